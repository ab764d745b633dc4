#include "kernels/edge_vectors.h"

#include "engine/check.h"
#include "kernels/edge_vectors_backward.h"
#include "kernels/edge_vectors_forward.h"
#include "kernels/in_double.h"

namespace lightcone::kernels {

namespace {

EdgeStatistics statistics(Context& ctx, int64_t jets, const int32_t* ptr, const double* p, double pairs) {
  constexpr int64_t grain = 4;
  // The sum of f(ln m^2) over unordered pairs.
  auto sum = [&](auto f) {
    return parallel_sum<double>(ctx, jets, grain, [&](int64_t, int64_t from, int64_t to) {
      double total = 0;
      for (int64_t b = from; b < to; ++b)
        for (int64_t i = ptr[b]; i < ptr[b + 1]; ++i)
          for (int64_t j = i + 1; j < ptr[b + 1]; j += minkowski_math::block) {
            const int64_t count = std::min<int64_t>(minkowski_math::block, ptr[b + 1] - j);
            const minkowski_math::Block q(p + 4 * j, count);
            const double* r = p + 4 * i;
            double out[minkowski_math::block];
#pragma omp simd
            for (int64_t k = 0; k < minkowski_math::block; ++k) {
              const double E = r[0] + q.E[k], x = r[1] + q.px[k], y = r[2] + q.py[k], z = r[3] + q.pz[k];
              out[k] =
                  f(vector_math::log(minkowski_math::at_least(E * E - x * x - y * y - z * z, minkowski_math::epsilon)));
            }
            for (int64_t k = 0; k < count; ++k) total += out[k];
          }
      return total;
    });
  };
  const double mean = sum([](double e) { return e; }) * 2 / pairs;
  const double squares = sum([mean](double e) { return (e - mean) * (e - mean); }) * 2;
  return {mean, minkowski_math::at_least(std::sqrt(squares / (pairs - 1)), 1e-5)};
}

struct Sizes {
  int64_t T, jets, H, n;
};

// `mlp` is the perceptron, or all of its gradients.
Sizes check_mlp(const Context& ctx, const char* where, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp) {
  check(ctx, where, "p", p).rank(2).columns(4).momentum();
  const int64_t T = p.dim(0), jets = check_ptr(ctx, where, "ptr", ptr, T);
  check(ctx, where, "receiver", mlp.receiver).rank(2).momentum();
  const DType dtype = mlp.receiver.dtype();
  const int64_t H = mlp.receiver.dim(1);
  check(ctx, where, "receiver", mlp.receiver).shape({T, H});
  check(ctx, where, "sender", mlp.sender).like(mlp.receiver);
  if (mlp.edge.defined()) check(ctx, where, "edge", mlp.edge).shape({H}).dtype(dtype);
  if (mlp.weights.empty() || mlp.weights.size() != mlp.biases.size())
    fail(where, "{} weights and {} biases behind the first layer, expected as many of both and at least one",
         mlp.weights.size(), mlp.biases.size());
  check(ctx, where, "the last of weights", mlp.weights.back()).rank(2);
  const int64_t n = mlp.weights.back().dim(0);
  if (H == 0 || n == 0) fail(where, "{} hidden channels and {} vectors, expected at least one of each", H, n);
  for (size_t l = 0; l < mlp.weights.size(); ++l) {
    const int64_t rows = l + 1 < mlp.weights.size() ? H : n;
    check(ctx, where, fmt::format("weights[{}] behind the first layer", l), mlp.weights[l])
        .shape({rows, H})
        .dtype(dtype);
    check(ctx, where, fmt::format("biases[{}] behind the first layer", l), mlp.biases[l]).shape({rows}).dtype(dtype);
  }
  return {T, jets, H, n};
}

void check_options(const char* where, const EdgeVectorsOptions& o, const EdgeMlp& mlp) {
  if (!(o.dropout >= 0 && o.dropout < 1)) fail(where, "dropout is {}, expected 0 <= dropout < 1", o.dropout);
  if (mlp.edge.defined() && !(o.edge_std > 0 && std::isfinite(o.edge_std) && std::isfinite(o.edge_mean)))
    fail(where, "edge_mean is {} and edge_std is {}, expected finite numbers and a positive edge_std", o.edge_mean,
         o.edge_std);
}

template <class S>
edge::Perceptron<S> perceptron(const EdgeMlp& m, const Sizes& sizes) {
  edge::Perceptron<S> out{
      sizes.H, sizes.n, m.receiver.data<S>(), m.sender.data<S>(), m.edge.defined() ? m.edge.data<S>() : nullptr, {}};
  for (size_t l = 0; l < m.weights.size(); ++l)
    out.layers.push_back({m.weights[l].dim(0), m.weights[l].data<S>(), m.biases[l].data<S>()});
  return out;
}

std::vector<int64_t> pairs_before(const Tensor& ptr) {
  std::vector<int64_t> sums{0};
  for (int64_t b = 0; b + 1 < ptr.numel(); ++b) {
    const int64_t N = ptr.offsets()[b + 1] - ptr.offsets()[b];
    sums.push_back(sums.back() + N * (N - 1));
  }
  return sums;
}

// The multiplications and additions of a perceptron per pair.
double flops_of(const EdgeMlp& mlp, double pairs) {
  double sum = 4. * mlp.receiver.dim(1);
  for (const Tensor& w : mlp.weights) sum += 2. * w.numel() + w.dim(1);
  return sum * pairs;
}

}  // namespace

namespace cuda {  // edge_vectors.cu
void edge_vectors(Context& ctx, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp,
                  const EdgeVectorsOptions& options, const Draw& dropout, Tensor& vectors, Tensor& lse, Tensor& norm);
void edge_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp,
                           const EdgeVectorsOptions& options, const Draw& dropout, const Tensor& vectors,
                           const Tensor& lse, const Tensor& norm, EdgeMlp& gradients, Tensor* dp);
EdgeStatistics edge_statistics(Context& ctx, const Tensor& p, const Tensor& ptr, double pairs);
}  // namespace cuda

int64_t count_pairs(const Tensor& ptr) { return pairs_before(ptr).back(); }

void edge_vectors(Context& ctx, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp, const EdgeVectorsOptions& o,
                  const Draw& dropout, Tensor& vectors, Tensor& lse, Tensor& norm) {
  const char* where = "edge_vectors";
  const Sizes sizes = check_mlp(ctx, where, p, ptr, mlp);
  check_options(where, o, mlp);
  check(ctx, where, "vectors", vectors).shape({sizes.T, sizes.n, 4}).dtype(p.dtype());
  check(ctx, where, "lse", lse).shape({sizes.T, sizes.n}).dtype(mlp.receiver.dtype());
  check(ctx, where, "norm", norm).shape({sizes.T}).dtype(DType::f64);
  auto pairs = pairs_before(ptr);
  const auto scope = ctx.profiler().scope(where, p.bytes() + 2. * mlp.receiver.bytes() + vectors.bytes(),
                                          flops_of(mlp, static_cast<double>(pairs.back())));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::edge_vectors(ctx, p, ptr, mlp, o, dropout, vectors, lse, norm);
  const InDouble momenta(ctx, p);
  FromDouble y(ctx, &vectors);
  dispatch_momentum(where, mlp.receiver.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    const edge::Input<S> in{sizes.jets, ptr.data<int32_t>(), momenta, perceptron<S>(mlp, sizes), o,
                            dropout,    std::move(pairs)};
    edge::forward<S>(ctx, in, y, lse.data<S>(), norm.data<double>());
  });
}

void edge_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp,
                           const EdgeVectorsOptions& o, const Draw& dropout, const Tensor& vectors, const Tensor& lse,
                           const Tensor& norm, EdgeMlp& gradients, Tensor* dp) {
  const char* where = "edge_vectors_backward";
  const Sizes sizes = check_mlp(ctx, where, p, ptr, mlp);
  check_options(where, o, mlp);
  check(ctx, where, "vectors", vectors).shape({sizes.T, sizes.n, 4}).dtype(p.dtype());
  check(ctx, where, "dvectors", dvectors).like(vectors);
  check(ctx, where, "lse", lse).shape({sizes.T, sizes.n}).dtype(mlp.receiver.dtype());
  check(ctx, where, "norm", norm).shape({sizes.T}).dtype(DType::f64);
  const Sizes of_gradients = check_mlp(ctx, where, p, ptr, gradients);
  check(ctx, where, "the gradient of receiver", gradients.receiver).like(mlp.receiver);
  if (of_gradients.n != sizes.n || gradients.weights.size() != mlp.weights.size() ||
      gradients.edge.defined() != mlp.edge.defined())
    fail(where, "the gradients have other layers than the perceptron");
  if (dp) check(ctx, where, "dp", *dp).like(p);
  auto pairs = pairs_before(ptr);
  const auto scope = ctx.profiler().scope(where, 2. * (p.bytes() + 2. * mlp.receiver.bytes() + vectors.bytes()),
                                          3 * flops_of(mlp, static_cast<double>(pairs.back())));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::edge_vectors_backward(ctx, dvectors, p, ptr, mlp, o, dropout, vectors, lse, norm, gradients, dp);
  const InDouble momenta(ctx, p), y(ctx, vectors), dy(ctx, dvectors);
  FromDouble to_p(ctx, dp);
  dispatch_momentum(where, mlp.receiver.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    const edge::Input<S> in{sizes.jets, ptr.data<int32_t>(), momenta, perceptron<S>(mlp, sizes), o,
                            dropout,    std::move(pairs)};
    edge::Output<S> out{gradients.receiver.data<S>(),
                        gradients.sender.data<S>(),
                        gradients.edge.defined() ? gradients.edge.data<S>() : nullptr,
                        {},
                        {},
                        to_p};
    for (Tensor& w : gradients.weights) out.weights.push_back(w.data<S>());
    for (Tensor& b : gradients.biases) out.biases.push_back(b.data<S>());
    edge::backward<S>(ctx, in, dy, y, lse.data<S>(), norm.data<double>(), out);
  });
}

EdgeStatistics edge_statistics(Context& ctx, const Tensor& p, const Tensor& ptr) {
  check(ctx, "edge_statistics", "p", p).rank(2).columns(4).momentum();
  const int64_t jets = check_ptr(ctx, "edge_statistics", "ptr", ptr, p.dim(0)), pairs = count_pairs(ptr);
  if (pairs == 0) throw Error("edge_statistics: no jet has two constituents, so there are no pairs to standardise by");
  const auto scope = ctx.profiler().scope("edge_statistics", p.bytes(), 10. * pairs);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::edge_statistics(ctx, p, ptr, static_cast<double>(pairs));
  return statistics(ctx, jets, ptr.data<int32_t>(), InDouble(ctx, p), static_cast<double>(pairs));
}

}  // namespace lightcone::kernels
