#include "kernels/message_passing.h"

#include "kernels/edge_vectors.h"
#include "kernels/message_passing_mlp.h"
#include "kernels/minkowski_math.h"

namespace lightcone::kernels {

namespace messages {
namespace {

template <class S>
void message_passing(Context& ctx, const Graph& graph, Factors<S>& factors, S* y) {
  const int64_t H = factors.m.H;
  parallel_chunks(ctx, graph.tokens(), 16, [&](int64_t, int64_t from, int64_t to) {
    BlockMlp<S> mlp(ctx, factors, false);
    std::fill(y + from * H, y + to * H, S(0));
    graph.for_blocks(from, to, [&](const EdgeBlock& edges) {
      const S* messages = mlp.forward(edges);
      for (int64_t r = 0; r < edges.count; ++r) add_to(H, messages + r * H, y + edges.receiver[r] * H);
    });
    if (factors.options.aggregation == Pool::mean)
      for (int64_t i = from; i < to; ++i)
        map_row(H, y + i * H, [&](auto at) { return at(static_cast<const S*>(y + i * H)) * S(graph.share(i)); });
  });
}

/// Cuts of the jets for sums over edges: at most 64, fewer where a sum is large.
struct JetGroups : cpu::Segments {
  JetGroups(int64_t jets, int64_t sum_size) : Segments(0, 1) {
    const int64_t most = std::clamp<int64_t>((int64_t{1} << 22) / std::max<int64_t>(1, sum_size), 1, 64);
    size = std::max<int64_t>(1, (jets + most - 1) / most);
    count = (jets + size - 1) / size;
  }
};

template <class S>
void message_passing_backward(Context& ctx, const Graph& graph, Factors<S>& factors, const S* dy,
                              const Perceptron<S>& out) {
  const Perceptron<S>& m = factors.m;
  const int64_t H = m.H, D = m.D, T = graph.tokens(), depth = m.depth();
  // dy of means.
  const bool mean = factors.options.aggregation == Pool::mean;
  auto scaled = ctx.scratch<S>(mean ? T * H : 0);
  if (mean)
    for (int64_t i = 0; i < T; ++i)
      map_row(H, scaled.data() + i * H, [&](auto at) { return at(dy + i * H) * S(graph.share(i)); });
  const S* const from_y = mean ? scaled.data() : dy;

  auto edge_rows = ctx.scratch<S>(m.E * H);  // of dW_e^T
  std::vector<std::pair<int64_t, S*>> parts;
  for (S* w : out.weights) parts.emplace_back(H * H, w);
  for (S* b : out.biases) parts.emplace_back(H, b);
  parts.emplace_back(m.E * H, edge_rows.data());
  parts.emplace_back(H * D, out.feature_weight);
  int64_t size = 0;
  for (const auto& part : parts) size += part.first;
  const JetGroups groups(graph.jets(), size);
  std::vector<std::unique_ptr<cpu::TokenSum<S>>> sums;
  for (const auto& [n, to] : parts) sums.push_back(std::make_unique<cpu::TokenSum<S>>(ctx, groups, n, to));

  parallel_chunks(ctx, graph.jets(), groups.size, [&](int64_t group, int64_t first, int64_t last) {
    BlockMlp<S> mlp(ctx, factors, true);
    Perceptron<S> to = out;
    std::vector<S*> own;
    for (size_t k = 0; k < parts.size(); ++k) {
      own.push_back(parts[k].second ? sums[k]->of(group) : nullptr);
      std::fill_n(own[k], own[k] ? parts[k].first : 0, S(0));
    }
    for (int64_t l = 0; l < depth; ++l) to.weights[l] = own[l], to.biases[l] = own[depth + l];
    to.edge_weight = own[2 * depth];
    to.feature_weight = own[2 * depth + 1];
    const int64_t begin = graph.ptr[first], end = graph.ptr[last];
    auto clear = [&](S* x, int64_t columns) {
      if (x) std::fill(x + begin * columns, x + end * columns, S(0));
    };
    clear(to.receiver, H), clear(to.sender, H), clear(to.features, D), clear(to.frames, 16);
    graph.for_blocks(begin, end, [&](const EdgeBlock& edges) { mlp.backward(edges, from_y, to); });
  });
  for (auto& sum : sums) sum->finish();
  for (int64_t k = 0; k < m.E; ++k)
    for (int64_t h = 0; h < H; ++h) out.edge_weight[h * m.E + k] = edge_rows[k * H + h];
}

template <class P, class E>
void edge_attributes(Context& ctx, const Graph& graph, const P* p, double mean, double std, E* e) {
  using namespace minkowski_math;
  parallel_chunks(ctx, graph.tokens(), 32, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
      for (int64_t j = graph.begin[i]; j < graph.end[i]; j += minkowski_math::block) {
        const int64_t count = std::min<int64_t>(minkowski_math::block, graph.end[i] - j);
        const Block q(p + 4 * j, count);
        const double r[4] = {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
        double out[minkowski_math::block];
#pragma omp simd
        for (int64_t k = 0; k < minkowski_math::block; ++k) {
          const double t = r[0] + q.E[k], x = r[1] + q.px[k], y = r[2] + q.py[k], z = r[3] + q.pz[k];
          out[k] = (vector_math::log(at_least(t * t - x * x - y * y - z * z, epsilon)) - mean) / std;
        }
        for (int64_t k = 0; k < count; ++k)
          if (j + k != i) e[graph.edge(i, j + k)] = static_cast<E>(out[k]);
      }
  });
}

template <class P, class E>
void edge_attributes_backward(Context& ctx, const Graph& graph, const E* de, const P* p, double std, P* dp) {
  using namespace minkowski_math;
  parallel_chunks(ctx, graph.tokens(), 32, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const double r[4] = {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
      double sum[4] = {};
      for (int64_t j = graph.begin[i]; j < graph.end[i]; j += minkowski_math::block) {
        const int64_t count = std::min<int64_t>(minkowski_math::block, graph.end[i] - j);
        const Block q(p + 4 * j, count);
        // i is the receiver of one edge and the sender of the other; 0 for itself.
        double d[minkowski_math::block] = {};
        for (int64_t k = 0; k < count; ++k)
          if (j + k != i) d[k] = double(de[graph.edge(i, j + k)]) + double(de[graph.edge(j + k, i)]);
        Block to_p;
#pragma omp simd
        for (int64_t k = 0; k < minkowski_math::block; ++k) {
          const double t = r[0] + q.E[k], x = r[1] + q.px[k], y = r[2] + q.py[k], z = r[3] + q.pz[k];
          const double m2 = t * t - x * x - y * y - z * z, slope = m2 < epsilon ? 0. : 2 * d[k] / (std * m2);
          to_p.E[k] = slope * t, to_p.px[k] = -slope * x, to_p.py[k] = -slope * y, to_p.pz[k] = -slope * z;
        }
        for (int64_t k = 0; k < count; ++k)
          sum[0] += to_p.E[k], sum[1] += to_p.px[k], sum[2] += to_p.py[k], sum[3] += to_p.pz[k];
      }
      for (int c = 0; c < 4; ++c) dp[4 * i + c] = static_cast<P>(sum[c]);
    }
  });
}

}  // namespace
}  // namespace messages

namespace cuda {  // message_passing.cu
void message_passing(Context& ctx, const Tensor& ptr, const MessagePerceptron& m, const MessageOptions& o,
                     const Draw& dropout, Tensor& y);
void message_passing_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, const MessagePerceptron& m,
                              const MessageOptions& o, const Draw& dropout, MessagePerceptron& gradients);
void edge_attributes(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e);
void edge_attributes_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std,
                              Tensor& dp);
}  // namespace cuda

namespace {

// `m` is the perceptron, or its gradients: then edge and frames may be left out.
void check_perceptron(const Context& ctx, const char* where, const Tensor& ptr, const MessagePerceptron& m,
                      const MessageOptions& o, bool gradients) {
  check(ctx, where, "receiver", m.receiver).rank(2).momentum();
  const int64_t T = m.receiver.dim(0), H = m.receiver.dim(1);
  const DType dtype = m.receiver.dtype();
  check_ptr(ctx, where, "ptr", ptr, T);
  if (H == 0) fail(where, "receiver has 0 columns, expected at least 1");
  check(ctx, where, "sender", m.sender).like(m.receiver);
  auto optional = [&](const char* name, const Tensor& t, const Shape& shape) {
    if (t.defined() || !gradients) check(ctx, where, name, t).shape(shape).dtype(dtype);
  };
  if (m.edge.defined() || m.edge_weight.defined()) {
    check(ctx, where, "edge_weight", m.edge_weight).rank(2);
    const int64_t E = m.edge_weight.dim(1);
    check(ctx, where, "edge_weight", m.edge_weight).shape({H, E}).dtype(dtype);
    optional("edge", m.edge, {count_pairs(ptr), E});
  }
  if (m.features.defined() || m.feature_weight.defined() || m.frames.defined()) {
    const int64_t D = o.reps.dim();
    check(ctx, where, "features", m.features).shape({T, D}).dtype(dtype);
    check(ctx, where, "feature_weight", m.feature_weight).shape({H, D}).dtype(dtype);
    optional("frames", m.frames, {T, 4, 4});
  }
  if (m.weights.size() != m.biases.size())
    fail(where, "{} weights and {} biases, expected as many of both", m.weights.size(), m.biases.size());
  for (size_t l = 0; l < m.weights.size(); ++l) {
    check(ctx, where, fmt::format("weights[{}]", l), m.weights[l]).shape({H, H}).dtype(dtype);
    check(ctx, where, fmt::format("biases[{}]", l), m.biases[l]).shape({H}).dtype(dtype);
  }
  if (!(o.dropout >= 0 && o.dropout < 1)) fail(where, "dropout is {}, expected 0 <= dropout < 1", o.dropout);
}

void check_edges(const Context& ctx, const char* where, const char* name, const Tensor& e, const Tensor& p,
                 const Tensor& ptr, double std) {
  check(ctx, where, "p", p).rank(2).columns(4).momentum();
  check_ptr(ctx, where, "ptr", ptr, p.dim(0));
  check(ctx, where, name, e).shape({count_pairs(ptr), 1}).momentum();
  if (!(std > 0 && std::isfinite(std))) fail(where, "std is {}, expected a positive, finite number", std);
}

// Of a perceptron on all edges.
double flops_of(const MessagePerceptron& m, double edges) {
  double sum = 2. * m.receiver.dim(1) + 2. * m.feature_weight.numel() + 2. * m.edge_weight.numel();
  for (const Tensor& w : m.weights) sum += 2. * w.numel() + w.dim(1);
  return sum * edges;
}

}  // namespace

void message_passing(Context& ctx, const Tensor& ptr, const MessagePerceptron& m, const MessageOptions& o,
                     const Draw& dropout, Tensor& y) {
  const char* where = "message_passing";
  check_perceptron(ctx, where, ptr, m, o, false);
  check(ctx, where, "y", y).like(m.receiver);
  const auto scope = ctx.profiler().scope(where, 3. * y.bytes() + m.edge.bytes() + m.features.bytes(),
                                          flops_of(m, static_cast<double>(count_pairs(ptr))));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::message_passing(ctx, ptr, m, o, dropout, y);
  const messages::Graph graph(ptr);
  dispatch_momentum(where, y.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    const messages::Perceptron<S> perceptron(m);
    messages::Factors<S> factors(ctx, perceptron, o, dropout, graph.edges(), false);
    messages::message_passing<S>(ctx, graph, factors, y.data<S>());
  });
}

void message_passing_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, const MessagePerceptron& m,
                              const MessageOptions& o, const Draw& dropout, MessagePerceptron& gradients) {
  const char* where = "message_passing_backward";
  check_perceptron(ctx, where, ptr, m, o, false);
  check_perceptron(ctx, where, ptr, gradients, o, true);
  check(ctx, where, "dy", dy).like(m.receiver);
  check(ctx, where, "the gradient of receiver", gradients.receiver).like(m.receiver);
  if (gradients.weights.size() != m.weights.size() || gradients.edge_weight.defined() != m.edge_weight.defined() ||
      gradients.features.defined() != m.features.defined())
    fail(where, "the gradients have other parts than the perceptron");
  if (m.edge_weight.defined())
    check(ctx, where, "the gradient of edge_weight", gradients.edge_weight).like(m.edge_weight);
  const auto scope = ctx.profiler().scope(where, 5. * dy.bytes() + 2. * m.edge.bytes() + 2. * m.features.bytes(),
                                          3 * flops_of(m, static_cast<double>(count_pairs(ptr))));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::message_passing_backward(ctx, dy, ptr, m, o, dropout, gradients);
  const messages::Graph graph(ptr);
  dispatch_momentum(where, dy.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    const messages::Perceptron<S> perceptron(m);
    messages::Factors<S> factors(ctx, perceptron, o, dropout, graph.edges(), true);
    messages::message_passing_backward<S>(ctx, graph, factors, dy.data<S>(), messages::Perceptron<S>(gradients));
  });
}

void edge_attributes(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e) {
  const char* where = "edge_attributes";
  check_edges(ctx, where, "e", e, p, ptr, std);
  if (!std::isfinite(mean)) fail(where, "mean is {}, expected a finite number", mean);
  const auto scope = ctx.profiler().scope(where, p.bytes() + e.bytes(), 12. * static_cast<double>(count_pairs(ptr)));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::edge_attributes(ctx, p, ptr, mean, std, e);
  const messages::Graph graph(ptr);
  dispatch_momentum(where, p.dtype(), [&](auto momenta) {
    dispatch_momentum(where, e.dtype(), [&](auto attributes) {
      using P = typename decltype(momenta)::type;
      using E = typename decltype(attributes)::type;
      messages::edge_attributes(ctx, graph, p.data<P>(), mean, std, e.data<E>());
    });
  });
}

void edge_attributes_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std,
                              Tensor& dp) {
  const char* where = "edge_attributes_backward";
  check_edges(ctx, where, "de", de, p, ptr, std);
  check(ctx, where, "dp", dp).like(p);
  const auto scope =
      ctx.profiler().scope(where, 2. * p.bytes() + de.bytes(), 24. * static_cast<double>(count_pairs(ptr)));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::edge_attributes_backward(ctx, de, p, ptr, std, dp);
  const messages::Graph graph(ptr);
  dispatch_momentum(where, p.dtype(), [&](auto momenta) {
    dispatch_momentum(where, de.dtype(), [&](auto attributes) {
      using P = typename decltype(momenta)::type;
      using E = typename decltype(attributes)::type;
      messages::edge_attributes_backward(ctx, graph, de.data<E>(), p.data<P>(), std, dp.data<P>());
    });
  });
}

}  // namespace lightcone::kernels
