#pragma once
#include "kernels/edge_vectors_math.h"
#include "kernels/gemm_tile.h"
#include "kernels/minkowski_math.h"

// What edge_vectors.h defines for pairs of four-momenta, a block at a time, in f64. A tile is as many receivers i as a
// register of S has lanes, one a lane; a block is a tile with up to `senders` j. Arrays of a block are [sender][lane].
namespace lightcone::kernels::edge {

inline constexpr int64_t senders = gemm::tile_vectors;
/// Pairs of a block.
template <class S>
inline constexpr int64_t block = senders* lanes<S>;

template <class S>
class Pairs {
 public:
  static constexpr int64_t W = lanes<S>;

  Pairs(const EdgeVectorsOptions& options, bool edges) : o_(options), signs_(options.operation), edges_(edges) {}

  /// The receivers [first, first + W) of p; behind `last` the first one stands in.
  void set_receivers(const double* p, int64_t first, int64_t last) {
    for (int64_t l = 0; l < W; ++l)
      for (int c = 0; c < 4; ++c) receiver_[c][l] = p[4 * (first + l < last ? first + l : first) + c];
  }

  /// Squares, 1 / norm and e of the pairs with n senders p.
  void set_senders(const double* p, int64_t n) {
    for (int64_t v = 0; v < n; ++v) {
      const double *q = p + 4 * v, a = signs_.receiver, b = signs_.sender;
#pragma omp simd
      for (int64_t l = 0; l < W; ++l) {
        double s[4], f[4];
        for (int c = 0; c < 4; ++c) s[c] = receiver_[c][l] + q[c], f[c] = a * receiver_[c][l] + b * q[c];
        m2[v * W + l] = s[0] * s[0] - s[1] * s[1] - s[2] * s[2] - s[3] * s[3];
        f2[v * W + l] = f[0] * f[0] - f[1] * f[1] - f[2] * f[2] - f[3] * f[3];
      }
    }
    if (o_.fm_norm) {
#pragma omp simd
      for (int64_t k = 0; k < n * W; ++k) {
        const double length = std::sqrt(std::abs(f2[k]));
        inverse[k] = 1 / minkowski_math::at_least(length, least_norm);
      }
    } else {
      std::fill_n(inverse, n * W, 1.0);
    }
    if (edges_) {
      const double mean = o_.edge_mean, std = o_.edge_std;
#pragma omp simd
      for (int64_t k = 0; k < n * W; ++k)
        edge[k] = S((vector_math::log(minkowski_math::at_least(m2[k], minkowski_math::epsilon)) - mean) / std);
    }
  }

  /// f_ij per lane with the sender of four-momentum p.
  void momentum(const double* p, double (&f)[4][W]) const {
    for (int c = 0; c < 4; ++c) {
      const double q = signs_.sender * p[c];
#pragma omp simd
      for (int64_t l = 0; l < W; ++l) f[c][l] = signs_.receiver * receiver_[c][l] + q;
    }
  }

  /// Gradients of momenta. For sender v, of four-momentum p: dm = d loss / d (f / norm), its product with f, and de = d
  /// loss / d e. Adds to the receivers' `to` [4][W] and to the sender's.
  void add_gradient(int64_t v, const double* p, const double (&dm)[4][W], const double (&dm_f)[W], const S* de,
                    double* to, double* to_sender) const {
    double f[4][W], scale[W], dm2[W];
    momentum(p, f);
#pragma omp simd
    for (int64_t l = 0; l < W; ++l) {
      const double u = inverse[v * W + l], square = f2[v * W + l], s = m2[v * W + l];
      // The norm's own gradient, where its bound does not act.
      const bool free = o_.fm_norm && std::abs(square) > least_norm * least_norm;
      scale[l] = free ? (square < 0 ? -u : u) * u * u * dm_f[l] : 0.0;
      dm2[l] = edges_ && s >= minkowski_math::epsilon ? 2 * de[v * W + l] / (o_.edge_std * s) : 0.0;
    }
    for (int c = 0; c < 4; ++c) {
      const double q = p[c];
      double sum = 0;
      for (int64_t l = 0; l < W; ++l) {
        const double df = inverse[v * W + l] * dm[c][l] - scale[l] * metric[c] * f[c][l];
        const double ds = dm2[l] * metric[c] * (receiver_[c][l] + q);
        to[c * W + l] += signs_.receiver * df + ds;
        sum += signs_.sender * df + ds;
      }
      to_sender[c] += sum;
    }
  }

  alignas(64) double m2[block<S>], f2[block<S>], inverse[block<S>];
  alignas(64) S edge[block<S>];

 private:
  const EdgeVectorsOptions& o_;
  const Signs signs_;
  const bool edges_;
  alignas(64) double receiver_[4][W];
};

}  // namespace lightcone::kernels::edge
