#pragma once
#include "kernels/edge_vectors_work.cuh"
#include "kernels/elementwise_math.h"

// What edge_vectors.h defines for one pair of four-momenta, in f64.
namespace lightcone::kernels::edge {

struct PairOptions {
  InDoubles p;
  double receiver, sender;  ///< signs in f_ij
  double edge_mean, edge_std;
  bool fm_norm;
  PairOptions(const Tensor& momenta, const EdgeVectorsOptions& o)
      : p(momenta),
        receiver(Signs(o.operation).receiver),
        sender(Signs(o.operation).sender),
        edge_mean(o.edge_mean),
        edge_std(o.edge_std),
        fm_norm(o.fm_norm) {}
};

__device__ inline double minkowski(const double* a, const double* b) {
  return a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
}
/// The bound for anything below it; NaN stays.
template <class T>
__device__ T at_least(T x, T bound) {
  return x < bound ? bound : x;
}

struct Pair {
  double sum[4], f[4];

  __device__ Pair(const PairOptions& o, int64_t i, int64_t j) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const double p = o.p[4 * i + c], q = o.p[4 * j + c];
      sum[c] = p + q;
      f[c] = o.receiver * p + o.sender * q;
    }
  }
  /// 1 / norm
  __device__ double inverse(const PairOptions& o) const {
    return o.fm_norm ? 1 / at_least(std::sqrt(std::abs(minkowski(f, f))), least_norm) : 1.0;
  }
  __device__ double edge(const PairOptions& o) const {
    return (std::log(at_least(minkowski(sum, sum), 1e-10)) - o.edge_mean) / o.edge_std;
  }
  /// d loss / d f from dm = d loss / d (f / norm) and its product with f.
  __device__ void norm_gradient(const PairOptions& o, const double (&dm)[4], double (&df)[4]) const {
    const double square = minkowski(f, f), u = inverse(o);
    double along = 0;
#pragma unroll
    for (int c = 0; c < 4; ++c) along += dm[c] * f[c];
    // The norm's own gradient, where its bound does not act.
    const bool free = o.fm_norm && std::abs(square) > least_norm * least_norm;
    const double scale = free ? (square < 0 ? -u : u) * u * u * along : 0.0;
#pragma unroll
    for (int c = 0; c < 4; ++c) df[c] = u * dm[c] - (c ? -scale : scale) * f[c];
  }
  /// d loss / d (p_i + p_j) from d loss / d e.
  __device__ void edge_gradient(const PairOptions& o, double de, double (&ds)[4]) const {
    const double square = minkowski(sum, sum), dm2 = square >= 1e-10 ? 2 * de / (o.edge_std * square) : 0.0;
#pragma unroll
    for (int c = 0; c < 4; ++c) ds[c] = dm2 * (c ? -sum[c] : sum[c]);
  }
};

/// The weight of a logit, and its slope in `derivative`; `lse` for the softmax.
template <class S>
__device__ S weight_of(EdgeWeight kind, S logit, S lse, S& derivative) {
  if (kind == EdgeWeight::softmax) return derivative = vector_math::exp(logit - lse);
  if (kind == EdgeWeight::softplus) {
    derivative = elementwise::sigmoid(logit);
    return elementwise::softplus(logit);
  }
  const S bounded = logit < S(-10) ? S(-10) : logit > S(10) ? S(10) : logit;
  const S w = logit == -S(INFINITY) ? S(0) : vector_math::exp(bounded);
  derivative = std::abs(logit) <= S(10) ? w : S(0);
  return w;
}

}  // namespace lightcone::kernels::edge
