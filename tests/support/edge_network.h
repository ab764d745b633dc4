#pragma once
#include <numeric>

#include "autograd/edge_vectors.h"
#include "autograd/elementwise.h"
#include "autograd/matmul.h"
#include "autograd/random.h"
#include "autograd/segment.h"
#include "tests/support/lorentz.h"

// What edge_vectors is tested with, and its composite.
namespace lightcone::test {

struct EdgeNetwork {
  std::vector<int64_t> jets = {5, 4, 7};  // constituents
  int64_t scalars = 3, hidden = 4, layers = 2, vectors = 3;
  bool edges = true;
  EdgeVectorsOptions options = {.edge_mean = 5, .edge_std = 1.5};
  uint64_t seed = 1;
  double mass = 1;

  int64_t tokens() const { return std::accumulate(jets.begin(), jets.end(), int64_t{0}); }
  Tensor ptr(Context& ctx) const {
    std::vector<double> offsets{0};
    for (int64_t n : jets) offsets.push_back(offsets.back() + n);
    return ctx.offsets(std::vector<int32_t>(offsets.begin(), offsets.end()));
  }
  // Momenta, scalars, then weights and biases of each layer.
  std::vector<Array> inputs() const {
    std::vector<Array> x{momenta(tokens(), seed, mass), normal({tokens(), scalars}, seed + 1)};
    int64_t in = 2 * scalars + edges;
    for (int64_t l = 0; l <= layers; ++l) {
      const int64_t out = l < layers ? hidden : vectors;
      x.push_back(normal({out, in}, seed + 2 + l, 1 / std::sqrt(static_cast<double>(in))));
      x.push_back(normal({out}, seed + 20 + l, 0.3));
      in = hidden;
    }
    return x;
  }
  // Momenta, the first layer's parts, then weights and biases of each layer behind it.
  std::vector<Array> part_inputs() const {
    std::vector<Array> x = inputs();
    std::vector<Array> parts{x[0], normal({tokens(), hidden}, seed + 30), normal({tokens(), hidden}, seed + 31)};
    if (edges) parts.push_back(normal({hidden}, seed + 32));
    parts.insert(parts.end(), x.begin() + 4, x.end());
    return parts;
  }
};

// Of the layers from x[first] on.
inline EdgePerceptron perceptron_of(const std::vector<Var>& x, size_t first = 2) {
  EdgePerceptron p;
  for (size_t i = first; i < x.size(); i += 2) p.weights.push_back(x[i]), p.biases.push_back(x[i + 1]);
  return p;
}

inline Var fused(const EdgeNetwork& net, const std::vector<Var>& x) {
  return edge_vectors(x[0], x[1], net.ptr(x[0].context()), perceptron_of(x), net.options);
}

inline Var from_parts(const EdgeNetwork& net, const std::vector<Var>& x) {
  return edge_vectors(x[0], x[1], x[2], net.edges ? x[3] : Var{}, net.ptr(x[0].context()),
                      perceptron_of(x, 3 + net.edges), net.options);
}

// The same from simple functions of all pairs: [T, n 4].
namespace composite_edge_vectors {

struct Pairs {
  Tensor receiver, sender, ptr;  // rows of each ordered pair; offsets of the pairs of each receiver
};
inline Pairs pairs_of(Context& ctx, const EdgeNetwork& net) {
  std::vector<double> receiver, sender, ptr{0};
  int64_t begin = 0;
  for (int64_t n : net.jets) {
    for (int64_t i = begin; i < begin + n; ++i) {
      for (int64_t j = begin; j < begin + n; ++j)
        if (i != j) receiver.push_back(i), sender.push_back(j);
      ptr.push_back(receiver.size());
    }
    begin += n;
  }
  const auto E = static_cast<int64_t>(receiver.size());
  return {ctx.of({E}, DType::i64, receiver), ctx.of({E}, DType::i64, sender),
          ctx.of({static_cast<int64_t>(ptr.size())}, DType::i32, ptr)};
}

inline Var constant(const Var& like, Shape shape, const std::function<double(int64_t, int64_t)>& f) {
  Array a = zeros(shape);
  for (int64_t i = 0; i < shape.numel(); ++i) a[i] = f(i / shape[-1], i % shape[-1]);
  return like.tape().constant(to_tensor(like.context(), a, like.dtype()));
}
inline Var plus(const Var& x, double number) {
  return add(x, constant(x, x.shape(), [=](int64_t, int64_t) { return number; }));
}
inline Var inverse(const Var& x) { return unary(Unary::exp, scale(unary(Unary::log, x), -1)); }
// The sum of the Minkowski squares of the vectors in a row, in so many columns.
inline Var square(const Var& p, int64_t columns) {
  return matmul(multiply(p, p), constant(p, {p.dim(1), columns}, [](int64_t i, int64_t) { return i % 4 ? -1 : 1; }));
}
inline Var length(const Var& p, double least) {
  return clamp(unary(Unary::sqrt, unary(Unary::abs, square(p, p.dim(1)))), least, INFINITY);
}

// From the rows of p of each pair, the result of the first layer and the layers behind it, from x[first] on.
inline Var vectors(const EdgeNetwork& net, const Pairs& pairs, const std::vector<Var>& x, size_t first, Var h) {
  const auto& o = net.options;
  const EdgePerceptron mlp = perceptron_of(x, first);
  const Var pi = gather_rows(x[0], pairs.receiver), pj = gather_rows(x[0], pairs.sender);
  for (size_t l = 0; l < mlp.weights.size(); ++l)
    h = linear(unary(Unary::gelu, dropout(h, o.dropout)), mlp.weights[l], mlp.biases[l]);
  if (o.nonlinearity == EdgeWeight::exp) h = unary(Unary::exp, clamp(h, -10, 10));
  if (o.nonlinearity == EdgeWeight::softplus) h = unary(Unary::softplus, h);
  if (o.nonlinearity == EdgeWeight::softmax) {
    const Var top = x[0].tape().constant(segment_max(h, pairs.ptr).value());
    h = unary(Unary::exp, subtract(h, segment_broadcast(top, pairs.ptr)));
    h = multiply(h, inverse(segment_broadcast(plus(segment_sum(h, pairs.ptr), 1e-16), pairs.ptr)));
  }
  Var f = o.operation == EdgeMomentum::add ? add(pi, pj) : o.operation == EdgeMomentum::diff ? subtract(pi, pj) : pj;
  if (o.fm_norm) f = multiply(f, inverse(length(f, 1e-6)));
  std::vector<Var> sums;
  for (int64_t k = 0; k < net.vectors; ++k) {
    const Var weight = matmul(slice(h, k, 1), constant(h, {1, 4}, [](int64_t, int64_t) { return 1; }));
    const Var message = multiply(weight, f);
    sums.push_back(o.aggregation == kernels::Pool::mean ? segment_mean(message, pairs.ptr)
                                                        : segment_sum(message, pairs.ptr));
  }
  const Var v = concat(sums);
  return o.layer_norm ? multiply(v, inverse(length(v, 1e-5))) : v;
}

inline Var edge_of(const EdgeNetwork& net, const Pairs& pairs, const Var& p) {
  const Var m2 = clamp(square(add(gather_rows(p, pairs.receiver), gather_rows(p, pairs.sender)), 1), 1e-10, INFINITY);
  return scale(plus(unary(Unary::log, m2), -net.options.edge_mean), 1 / net.options.edge_std);
}

inline Var vectors(const EdgeNetwork& net, const std::vector<Var>& x) {
  const Pairs pairs = pairs_of(x[0].context(), net);
  std::vector<Var> parts{gather_rows(x[1], pairs.receiver), gather_rows(x[1], pairs.sender)};
  if (net.edges) parts.push_back(edge_of(net, pairs, x[0]));
  return vectors(net, pairs, x, 4, linear(concat(parts), x[2], x[3]));
}

inline Var vectors_from_parts(const EdgeNetwork& net, const std::vector<Var>& x) {
  const Pairs pairs = pairs_of(x[0].context(), net);
  Var h = add(gather_rows(x[1], pairs.receiver), gather_rows(x[2], pairs.sender));
  if (net.edges) h = add(h, matmul(edge_of(net, pairs, x[0]), reshape(x[3], {1, net.hidden})));
  return vectors(net, pairs, x, 3 + net.edges, h);
}

}  // namespace composite_edge_vectors

// Value, then the gradient of each input, for a random cotangent.
struct EdgeRun {
  Device device = Device::cpu;
  int threads = 1;
  DType dtype = DType::f64, momenta = DType::f64;
};
inline std::vector<Array> with_gradients(const EdgeNetwork& net, const std::vector<Array>& inputs, const EdgeRun& run,
                                         const std::function<Var(const std::vector<Var>&)>& f) {
  Context ctx(run.device, run.threads);
  Tape tape(ctx);
  std::vector<Var> x;
  for (const Array& a : inputs) x.push_back(tape.variable(to_tensor(ctx, a, x.empty() ? run.momenta : run.dtype)));
  if (net.options.dropout > 0) {
    const Array u = uniform({100000}, 77, 0, 1);
    ctx.rng().replace("dropout", u.values);
  }
  const Var y = f(x);
  tape.backward(y, to_tensor(ctx, {y.shape(), normal({y.value().numel()}, 5).values}, y.dtype()));
  std::vector<Array> out{to_array(y.value())};
  out[0].shape = {net.tokens(), net.vectors, 4};
  for (size_t i = 0; i < x.size(); ++i) {
    const Tensor& g = tape.gradient(x[i]);
    out.push_back(g.defined() ? to_array(g) : zeros(inputs[i].shape));
  }
  return out;
}
inline std::vector<Array> with_gradients(const EdgeNetwork& net, const std::vector<Array>& inputs, bool simple,
                                         int threads = 1, DType dtype = DType::f64, DType momenta = DType::f64) {
  return with_gradients(net, inputs, {Device::cpu, threads, dtype, momenta},
                        [&](auto& x) { return simple ? composite_edge_vectors::vectors(net, x) : fused(net, x); });
}
// Of the inputs from_parts.
inline std::vector<Array> part_gradients(const EdgeNetwork& net, const std::vector<Array>& inputs, const EdgeRun& run) {
  return with_gradients(net, inputs, run, [&](auto& x) { return from_parts(net, x); });
}

}  // namespace lightcone::test
