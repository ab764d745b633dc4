#include "kernels/edge_vectors_math.h"
#include "kernels/elementwise_math.h"
#include "kernels/pair_masses.cuh"
#include "kernels/pair_vectors.h"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Constituent;
using cuda::Jets;
using cuda::lane_index;
using cuda::warp_index;
using cuda::warp_sum;

constexpr int tile = 16;

__device__ double metric(int component) { return component ? -1 : 1; }

// A block owns the products of `tile` senders of one jet: a thread those of one sender with every 16th receiver, for
// all n in turn. Jet b has the blocks from ptr[b] / tile + b on, which are enough for it, and at most one too many.
// Behind the jet's last constituent and the last number there are zeros.
template <class S>
__global__ void products_kernel(Jets jets, const S* q, const S* k, int64_t n, int64_t D, S* y) {
  int64_t jet = 0, end = jets.count;
  while (end - jet > 1) {
    const int64_t middle = (jet + end) / 2;
    (jets.ptr[middle] / tile + middle <= blockIdx.x ? jet : end) = middle;
  }
  const int64_t first = jets.ptr[jet], pairs = jets.before[jet];
  const int N = static_cast<int>(jets.ptr[jet + 1] - first),
            top = static_cast<int>(blockIdx.x - first / tile - jet) * tile;
  if (top >= N) return;
  __shared__ S senders[tile][tile + 1], receivers[tile][tile + 1];
  const int row = threadIdx.x / tile, col = threadIdx.x % tile, i = top + row;
  for (int left = 0; left < N; left += tile)
    for (int64_t v = 0; v < n; ++v) {
      S sum = 0;
      for (int64_t d = 0; d < D; d += tile) {
        auto load = [&](const S* x, int at) {
          return at < N && d + col < D ? x[((first + at) * n + v) * D + d + col] : S(0);
        };
        __syncthreads();  // the tiles before these have been read
        senders[row][col] = load(q, i);
        receivers[row][col] = load(k, left + row);
        __syncthreads();
#pragma unroll
        for (int m = 0; m < tile; ++m) sum += senders[row][m] * receivers[col][m];
      }
      if (i < N && left + col < N) y[(pairs + int64_t{i} * N + left + col) * n + v] = sum;
    }
}

// dq (as_sender) or dk of one constituent a block, with x the other: columns of sums over its partners.
template <bool as_sender, class S>
__global__ void products_backward_kernel(Jets jets, const S* dy, const S* x, int64_t n, int64_t D, S* to) {
  const Constituent own = jets.constituent(blockIdx.x);
  const S* partners = x + own.first * n * D;
  cuda::column_sums<S>(
      own.N, n * D,
      [&](int64_t u, int64_t c) {
        return dy[(as_sender ? own.pair(own.i, u) : own.pair(u, own.i)) * n + c / D] * partners[u * n * D + c];
      },
      [&](int64_t c, S sum) { to[blockIdx.x * n * D + c] = sum; });
}

/// pair_vectors' operands, and what belongs to one pair.
template <class P, class S>
struct Vectors {
  Jets jets;
  int64_t T, n;
  const P* p;
  const S* logits;
  PairVectorsOptions o;
  edge::Signs signs;
  double *top, *inverse;  ///< of a softmax: [T, n] the largest logit and 1 / the sum, of what it runs over

  struct Momentum {
    double f[4], square, inverse;  ///< inverse = 1 / norm
  };
  __device__ Momentum momentum(int64_t sender, int64_t receiver) const {
    Momentum m;
#pragma unroll
    for (int c = 0; c < 4; ++c)
      m.f[c] = signs.receiver * double(p[4 * receiver + c]) + signs.sender * double(p[4 * sender + c]);
    m.square = m.f[0] * m.f[0] - m.f[1] * m.f[1] - m.f[2] * m.f[2] - m.f[3] * m.f[3];
    m.inverse = o.fm_norm ? 1 / minkowski_math::at_least(std::sqrt(std::abs(m.square)), edge::least_norm) : 1.0;
    return m;
  }
  /// Where the sums for logit k of a pair stand.
  __device__ int64_t sums_at(int64_t sender, int64_t receiver, int64_t k) const {
    return (o.softmax_over_receivers ? sender : receiver) * n + k;
  }
  __device__ double weight(double logit, int64_t sums) const {
    if (o.nonlinearity == EdgeWeight::exp)
      return logit == -INFINITY ? 0.0 : vector_math::exp(logit < -10 ? -10 : logit > 10 ? 10 : logit);
    if (o.nonlinearity == EdgeWeight::softplus) return elementwise::softplus(logit);
    return vector_math::exp(logit - top[sums]) * inverse[sums];
  }
  /// d weight / d logit; of a softmax what its sum does not change.
  __device__ double slope(double logit, double weight) const {
    if (o.nonlinearity == EdgeWeight::softplus) return elementwise::sigmoid(logit);
    return o.nonlinearity == EdgeWeight::exp && !(std::abs(logit) <= 10) ? 0.0 : weight;
  }
  __device__ double share(int N) const { return o.aggregation == Pool::mean ? 1.0 / N : 1.0; }
};

__device__ double product(const double* a, const double (&b)[4]) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
}

// A warp owns the softmaxes that belong to one constituent, a lane every 32nd partner.
template <class P, class S>
__global__ void softmax_sums_kernel(Vectors<P, S> v) {
  const int64_t t = warp_index();
  if (t >= v.T) return;
  const Constituent own = v.jets.constituent(t);
  for (int64_t k = 0; k < v.n; ++k) {
    auto logit = [&](int u) {
      return double(v.logits[(v.o.softmax_over_receivers ? own.pair(own.i, u) : own.pair(u, own.i)) * v.n + k]);
    };
    double top = -INFINITY, sum = 0;
    for (int u = lane_index(); u < own.N; u += 32) {
      const double x = logit(u);
      top = x > top ? x : top;
    }
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) {
      const double other = __shfl_xor_sync(~0u, top, apart);
      top = other > top ? other : top;
    }
    for (int u = lane_index(); u < own.N; u += 32) sum += vector_math::exp(logit(u) - top);
    sum = warp_sum(sum) + 1e-16;  // NaN without a logit above -inf
    if (lane_index() == 0) v.top[t * v.n + k] = top, v.inverse[t * v.n + k] = 1 / sum;
  }
}

// A warp owns one receiver, a lane every 32nd sender. sums [T, n, 4] is `to` where that is f64.
template <class P, class S>
__global__ void vectors_kernel(Vectors<P, S> v, double* sums, P* to, double* norm) {
  const int64_t t = warp_index();
  if (t >= v.T) return;
  const Constituent own = v.jets.constituent(t);
  double square = 0;
  for (int64_t k = 0; k < v.n; ++k) {
    double sum[4] = {};
    for (int i = lane_index(); i < own.N; i += 32) {
      const auto m = v.momentum(own.first + i, t);
      const double w = v.weight(v.logits[own.pair(i, own.i) * v.n + k], v.sums_at(own.first + i, t, k)) * m.inverse;
#pragma unroll
      for (int c = 0; c < 4; ++c) sum[c] += w * m.f[c];
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      sum[c] = warp_sum(sum[c]) * v.share(own.N);
      square += metric(c) * sum[c] * sum[c];
      if (lane_index() == 0) sums[(t * v.n + k) * 4 + c] = sum[c];
    }
  }
  const double length =
      v.o.layer_norm ? minkowski_math::at_least(std::sqrt(std::abs(square)), edge::least_length) : 1.0;
  if (lane_index() == 0) norm[t] = length;
  __syncwarp();
  for (int64_t m = t * v.n * 4 + lane_index(); m < (t + 1) * v.n * 4; m += 32) to[m] = P(sums[m] / length);
}

// dsums [T, n, 4], the gradient of the sums over senders. A warp owns one receiver.
template <class P>
__global__ void sums_gradient_kernel(Jets jets, int64_t T, int64_t n, PairVectorsOptions o, const P* dy, const P* y,
                                     const double* norm, double* dsums) {
  const int64_t t = warp_index();
  if (t >= T) return;
  const Constituent own = jets.constituent(t);
  const P *g = dy + t * n * 4, *x = y + t * n * 4;
  const double length = norm[t], share = o.aggregation == Pool::mean ? 1.0 / own.N : 1.0;
  double dy_y = 0, square = 0;
  const double sign = metric(lane_index() % 4);  // of the metric, for all numbers of this lane
  for (int64_t m = lane_index(); m < 4 * n; m += 32) {
    dy_y += double(g[m]) * double(x[m]);
    square += sign * double(x[m]) * double(x[m]);
  }
  dy_y = warp_sum(dy_y), square = warp_sum(square);
  // The length is the bound, or made of the sums.
  if (!o.layer_norm || length <= edge::least_length) dy_y = 0;
  for (int64_t m = lane_index(); m < 4 * n; m += 32)
    dsums[t * n * 4 + m] = (double(g[m]) - (square < 0 ? -dy_y : dy_y) * sign * double(x[m])) / length * share;
}

// Of a softmax: [T, n] the sums of weight times its gradient over what it runs over. As softmax_sums_kernel.
template <class P, class S>
__global__ void softmax_backward_sums_kernel(Vectors<P, S> v, const double* dsums, double* totals) {
  const int64_t t = warp_index();
  if (t >= v.T) return;
  const Constituent own = v.jets.constituent(t);
  const bool sends = v.o.softmax_over_receivers;
  for (int64_t k = 0; k < v.n; ++k) {
    double sum = 0;
    for (int u = lane_index(); u < own.N; u += 32) {
      const int64_t receiver = sends ? own.first + u : t;
      const auto m = v.momentum(sends ? t : own.first + u, receiver);
      const double w = v.weight(v.logits[(sends ? own.pair(own.i, u) : own.pair(u, own.i)) * v.n + k], t * v.n + k);
      sum += w * (product(dsums + (receiver * v.n + k) * 4, m.f) * m.inverse);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) totals[t * v.n + k] = sum;
  }
}

// A warp owns one constituent, a lane every 32nd partner: the logits of its pairs as a sender, and its momentum's
// gradient from those and from its pairs as a receiver.
template <class P, class S>
__global__ void vectors_backward_kernel(Vectors<P, S> v, const double* dsums, const double* totals, S* dlogits, P* dp) {
  const int64_t t = warp_index();
  if (t >= v.T) return;
  const Constituent own = v.jets.constituent(t);
  double sum[4] = {};
  auto add_pair = [&](int64_t sender, int64_t receiver, int64_t pair, double sign, S* to) {
    const auto m = v.momentum(sender, receiver);
    double dm[4] = {}, dm_f = 0;  // of f / norm, and its product with f
    for (int64_t k = 0; k < v.n; ++k) {
      const double logit = v.logits[pair * v.n + k], *d = dsums + (receiver * v.n + k) * 4, d_f = product(d, m.f);
      const int64_t sums = v.sums_at(sender, receiver, k);
      const double w = v.weight(logit, sums);
#pragma unroll
      for (int c = 0; c < 4; ++c) dm[c] += w * d[c];
      dm_f += w * d_f;
      if (to) to[pair * v.n + k] = S(v.slope(logit, w) * (d_f * m.inverse) - (totals ? w * totals[sums] : 0.0));
    }
    // The norm's own gradient, where its bound does not act.
    const bool free = v.o.fm_norm && std::abs(m.square) > edge::least_norm * edge::least_norm;
    const double u = m.inverse, scale = free ? (m.square < 0 ? -u : u) * u * u * dm_f : 0.0;
#pragma unroll
    for (int c = 0; c < 4; ++c) sum[c] += sign * (u * dm[c] - scale * metric(c) * m.f[c]);
  };
  for (int u = lane_index(); u < own.N; u += 32) {
    add_pair(t, own.first + u, own.pair(own.i, u), v.signs.sender, dlogits);
    if (dp) add_pair(own.first + u, t, own.pair(u, own.i), v.signs.receiver, nullptr);
  }
  if (!dp) return;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    sum[c] = warp_sum(sum[c]);
    if (lane_index() == 0) dp[4 * t + c] = P(sum[c]);
  }
}

template <class S>
S* data_of(Tensor* t) {
  return t ? t->data<S>() : nullptr;
}

/// f(Type of momenta, Type of logits)
template <class F>
void dispatch_pairs(const char* where, const Tensor& p, const Tensor& logits, F&& f) {
  dispatch_momentum(where, p.dtype(), [&](auto momenta) {
    dispatch_momentum(where, logits.dtype(), [&](auto type) { f(momenta, type); });
  });
}

}  // namespace

namespace cuda {

void pair_masses(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e) {
  masses<true>(ctx, "pair_masses", p, ptr, mean, std, e);
}

void pair_masses_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std, Tensor& dp) {
  masses_backward<true>(ctx, "pair_masses_backward", de, p, ptr, std, dp);
}

void pair_products(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& ptr, int64_t n, int64_t D, Tensor& y) {
  const PairsOf pairs(ctx, ptr);
  const int64_t blocks = y.numel() ? q.dim(0) / tile + ptr.dim(0) - 1 : 0;
  dispatch_momentum("pair_products", q.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    launch(ctx, "pair_products", products_kernel<S>, {blocks, tile * tile}, pairs, q.data<S>(), k.data<S>(), n, D,
           y.data<S>());
  });
}

void pair_products_backward(Context& ctx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& ptr,
                            int64_t n, int64_t D, Tensor* dq, Tensor* dk) {
  const char* where = "pair_products_backward";
  const PairsOf pairs(ctx, ptr);
  const lightcone::cuda::Grid grid{D ? q.dim(0) : 0, block_threads};
  dispatch_momentum(where, q.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    if (dq)
      launch(ctx, where, products_backward_kernel<true, S>, grid, pairs, dy.data<S>(), k.data<S>(), n, D,
             dq->data<S>());
    if (dk)
      launch(ctx, where, products_backward_kernel<false, S>, grid, pairs, dy.data<S>(), q.data<S>(), n, D,
             dk->data<S>());
  });
}

void pair_vectors(Context& ctx, const Tensor& p, const Tensor& logits, const Tensor& ptr, const PairVectorsOptions& o,
                  Tensor& vectors, Tensor& norm) {
  const char* where = "pair_vectors";
  const int64_t T = p.dim(0), n = logits.dim(1);
  const PairsOf pairs(ctx, ptr);
  const lightcone::cuda::Grid grid{blocks_of_warps(T), block_threads};
  const bool softmax = o.nonlinearity == EdgeWeight::softmax;
  auto top = ctx.scratch<double>(softmax ? T * n : 0), inverse = ctx.scratch<double>(softmax ? T * n : 0);
  auto sums = ctx.scratch<double>(p.dtype() == DType::f64 ? 0 : vectors.numel());
  dispatch_pairs(where, p, logits, [&](auto momenta, auto type) {
    using P = typename decltype(momenta)::type;
    using S = typename decltype(type)::type;
    const Vectors<P, S> v{pairs,         T, n, p.data<P>(), logits.data<S>(), o, edge::Signs(o.operation), top.data(),
                          inverse.data()};
    double* to = sums.data();
    if constexpr (std::is_same_v<P, double>) to = vectors.data<double>();
    if (softmax) launch(ctx, where, softmax_sums_kernel<P, S>, grid, v);
    launch(ctx, where, vectors_kernel<P, S>, grid, v, to, vectors.data<P>(), norm.data<double>());
  });
}

void pair_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& logits,
                           const Tensor& ptr, const PairVectorsOptions& o, const Tensor& vectors, const Tensor& norm,
                           Tensor* dlogits, Tensor* dp) {
  const char* where = "pair_vectors_backward";
  const int64_t T = p.dim(0), n = logits.dim(1);
  const PairsOf pairs(ctx, ptr);
  const lightcone::cuda::Grid grid{blocks_of_warps(T), block_threads};
  const bool softmax = o.nonlinearity == EdgeWeight::softmax;
  auto top = ctx.scratch<double>(softmax ? T * n : 0), inverse = ctx.scratch<double>(softmax ? T * n : 0);
  auto totals = ctx.scratch<double>(softmax ? T * n : 0), dsums = ctx.scratch<double>(T * n * 4);
  dispatch_pairs(where, p, logits, [&](auto momenta, auto type) {
    using P = typename decltype(momenta)::type;
    using S = typename decltype(type)::type;
    const Vectors<P, S> v{pairs,         T, n, p.data<P>(), logits.data<S>(), o, edge::Signs(o.operation), top.data(),
                          inverse.data()};
    launch(ctx, where, sums_gradient_kernel<P>, grid, pairs, T, n, o, dvectors.data<P>(), vectors.data<P>(),
           norm.data<double>(), dsums.data());
    if (softmax) {
      launch(ctx, where, softmax_sums_kernel<P, S>, grid, v);
      launch(ctx, where, softmax_backward_sums_kernel<P, S>, grid, v, dsums.data(), totals.data());
    }
    launch(ctx, where, vectors_backward_kernel<P, S>, grid, v, dsums.data(), softmax ? totals.data() : nullptr,
           data_of<S>(dlogits), data_of<P>(dp));
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
