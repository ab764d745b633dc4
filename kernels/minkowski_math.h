#pragma once
#include "kernels/vector_math.h"

/// Relativistic kinematics of one four-momentum p = (E, px, py, pz), in f64: what the kernels of minkowski.h and
/// jet_features.h (where the definitions stand) do per item. Branches are selects, so that loops over items vectorise;
/// NaN passes through.
namespace lightcone::minkowski_math {

/// Below this, squares and the arguments of logarithms are replaced by it.
inline constexpr double epsilon = 1e-10;

LIGHTCONE_HOST_DEVICE inline double at_least(double x, double bound) { return x < bound ? bound : x; }

/// Four-momenta component by component, for loops under `#pragma omp simd`. The rest of a block is filled with its
/// first entry: an item's result depends neither on its place nor on its neighbours (see vector_math.h).
inline constexpr int64_t block = vector_math::block;
struct Block {
  double E[block], px[block], py[block], pz[block];
  Block() = default;
  /// Rows of four, `stride` elements apart.
  template <class T>
  Block(const T* p, int64_t count, int64_t stride = 4) {
    for (int64_t k = 0; k < block; ++k) {
      const T* row = p + (k < count ? k * stride : 0);
      E[k] = row[0], px[k] = row[1], py[k] = row[2], pz[k] = row[3];
    }
  }
  template <class T>
  void store(T* p, int64_t count, int64_t stride = 4) const {
    for (int64_t k = 0; k < count; ++k, p += stride) p[0] = T(E[k]), p[1] = T(px[k]), p[2] = T(py[k]), p[3] = T(pz[k]);
  }
};

/// A component that an angle is computed from.
inline double away_from_zero(double x) { return std::abs(x) < epsilon ? epsilon : x; }

/// eta = (ln max(1 + x, epsilon) - ln max(1 - x, epsilon)) / 2, x = pz / |p|, |p|^2 at least epsilon.
///
/// With x >= 0 by symmetry, 1 - x is taken from pt^2 / (|p|^2 (1 + x)): the difference itself loses all digits at large
/// eta.
struct Eta {
  double value;
  double by_pt2, by_pz;  ///< partial derivatives; pt2 = px^2 + py^2
};
inline Eta eta(double pt2, double pz) {
  const double p2 = pt2 + pz * pz;
  const bool moving = p2 >= epsilon;
  const double length = std::sqrt(moving ? p2 : epsilon);
  const double sign = pz < 0 ? -1.0 : 1.0, x = std::abs(pz) / length;
  const double towards = moving ? pt2 / (p2 * (1 + x)) : 1 - x;  // 1 - x
  const bool forward = towards < epsilon;                        // the logarithm's argument is the bound
  const double value = 0.5 * sign * vector_math::log((1 + x) / (forward ? epsilon : towards));
  // deta/dx = 1 / (1 - x^2) = |p|^2 / pt^2; only the first logarithm is left in the forward direction.
  const double slope = forward ? 0.5 / (1 + x) : 1 / ((1 + x) * towards);
  return {value, moving ? -0.5 * slope * sign * x / p2 : 0.0, slope * (moving ? (1 + x) * towards : 1.0) / length};
}

/// The Lorentz boost into the rest frame of p, row-major.
struct RestFrame {
  double t, beta[3], beta2, gamma, scale;
  bool subluminal;  ///< 1 - beta^2 is above its bound

  LIGHTCONE_HOST_DEVICE explicit RestFrame(const double* p) {
    t = at_least(p[0], epsilon);
    for (int i = 0; i < 3; ++i) beta[i] = p[1 + i] / t;
    beta2 = beta[0] * beta[0] + beta[1] * beta[1] + beta[2] * beta[2];
    subluminal = !(1 - beta2 < epsilon);
    gamma = 1 / std::sqrt(subluminal ? 1 - beta2 : epsilon);
    // gamma - 1 = gamma^2 beta^2 / (gamma + 1), which does not cancel for slow p.
    scale = (subluminal ? gamma * gamma * beta2 / (gamma + 1) : gamma - 1) / at_least(beta2, epsilon);
  }
  void matrix(double* m) const {
    m[0] = gamma;
    for (int i = 0; i < 3; ++i) {
      m[1 + i] = m[4 + 4 * i] = -gamma * beta[i];
      for (int j = 0; j < 3; ++j) m[5 + 4 * i + j] = (i == j) + scale * beta[i] * beta[j];
    }
  }
  /// dp from the gradients to gamma, scale and beta, each by itself.
  LIGHTCONE_HOST_DEVICE void backward(double dgamma, double dscale, const double* dbeta, double E, double* dp) const {
    dgamma += dscale / at_least(beta2, epsilon);
    const double dbeta2 =
        (subluminal ? 0.5 * dgamma * gamma * gamma * gamma : 0.0) - (beta2 < epsilon ? 0.0 : dscale * scale / beta2);
    double along = 0;
    for (int i = 0; i < 3; ++i) {
      dp[1 + i] = (dbeta[i] + 2 * beta[i] * dbeta2) / t;
      along += dp[1 + i] * beta[i];
    }
    dp[0] = E < epsilon ? 0.0 : -along;
  }
};

/// y = matrix p.
inline void transform(const double* matrix, const double* p, double* y) {
  for (int i = 0; i < 4; ++i)
    y[i] = matrix[4 * i] * p[0] + matrix[4 * i + 1] * p[1] + matrix[4 * i + 2] * p[2] + matrix[4 * i + 3] * p[3];
}

}  // namespace lightcone::minkowski_math
