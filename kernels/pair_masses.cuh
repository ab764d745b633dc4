#pragma once
#include "kernels/minkowski_math.h"
#include "kernels/pairs.cuh"

// (ln max((p_i + p_j)^2, 1e-10) - mean) / std of pairs, in f64: pair_masses (pair_vectors.h) with those of one with
// itself, edge_attributes (message_passing.h) without.
namespace lightcone::kernels::cuda {

template <class P>
__device__ double square_of_sum(const double (&r)[4], const P* q, double (&s)[4]) {
#pragma unroll
  for (int c = 0; c < 4; ++c) s[c] = r[c] + double(q[c]);
  return s[0] * s[0] - s[1] * s[1] - s[2] * s[2] - s[3] * s[3];
}

// A warp owns the pairs (i, all j) of one constituent i, a lane every 32nd of them.
template <bool itself, class P, class S>
__global__ void masses_kernel(Jets jets, int64_t T, const P* p, double mean, double std, S* e) {
  const int64_t t = warp_index();
  if (t >= T) return;
  const Constituent x = jets.constituent(t);
  const double r[4] = {double(p[4 * t]), double(p[4 * t + 1]), double(p[4 * t + 2]), double(p[4 * t + 3])};
  for (int j = lane_index(); j < x.N; j += 32) {
    if (!itself && j == x.i) continue;
    double s[4];
    const double m2 = minkowski_math::at_least(square_of_sum(r, p + 4 * (x.first + j), s), minkowski_math::epsilon);
    e[itself ? x.pair(x.i, j) : x.edge(x.i, j)] = S((vector_math::log(m2) - mean) / std);
  }
}

// Likewise, for i at both ends of a pair.
template <bool itself, class P, class S>
__global__ void masses_backward_kernel(Jets jets, int64_t T, const S* de, const P* p, double std, P* dp) {
  const int64_t t = warp_index();
  if (t >= T) return;
  const Constituent x = jets.constituent(t);
  const double r[4] = {double(p[4 * t]), double(p[4 * t + 1]), double(p[4 * t + 2]), double(p[4 * t + 3])};
  double sum[4] = {};
  for (int j = lane_index(); j < x.N; j += 32) {
    if (!itself && j == x.i) continue;
    double s[4];
    const double m2 = square_of_sum(r, p + 4 * (x.first + j), s);
    if (m2 < minkowski_math::epsilon) continue;
    const S ij = de[itself ? x.pair(x.i, j) : x.edge(x.i, j)], ji = de[itself ? x.pair(j, x.i) : x.edge(j, x.i)];
    const double d = 2 * (double(ij) + double(ji)) / (std * m2);
    sum[0] += d * s[0];
#pragma unroll
    for (int c = 1; c < 4; ++c) sum[c] -= d * s[c];
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    sum[c] = warp_sum(sum[c]);
    if (lane_index() == 0) dp[4 * t + c] = P(sum[c]);
  }
}

template <bool itself>
void masses(Context& ctx, const char* where, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e) {
  const PairsOf pairs(ctx, ptr);
  dispatch_momentum(where, p.dtype(), [&](auto momenta) {
    dispatch_momentum(where, e.dtype(), [&](auto type) {
      using P = typename decltype(momenta)::type;
      using S = typename decltype(type)::type;
      launch(ctx, where, masses_kernel<itself, P, S>, {blocks_of_warps(p.dim(0)), block_threads}, pairs, p.dim(0),
             p.data<P>(), mean, std, e.data<S>());
    });
  });
}

template <bool itself>
void masses_backward(Context& ctx, const char* where, const Tensor& de, const Tensor& p, const Tensor& ptr, double std,
                     Tensor& dp) {
  const PairsOf pairs(ctx, ptr);
  dispatch_momentum(where, p.dtype(), [&](auto momenta) {
    dispatch_momentum(where, de.dtype(), [&](auto type) {
      using P = typename decltype(momenta)::type;
      using S = typename decltype(type)::type;
      launch(ctx, where, masses_backward_kernel<itself, P, S>, {blocks_of_warps(p.dim(0)), block_threads}, pairs,
             p.dim(0), de.data<S>(), p.data<P>(), std, dp.data<P>());
    });
  });
}

}  // namespace lightcone::kernels::cuda
