#pragma once
#include "kernels/minkowski.h"
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
LIGHTCONE_HOST_DEVICE inline double away_from_zero(double x) { return std::abs(x) < epsilon ? epsilon : x; }

/// eta = (ln max(1 + x, epsilon) - ln max(1 - x, epsilon)) / 2, x = pz / |p|, |p|^2 at least epsilon.
///
/// With x >= 0 by symmetry, 1 - x is taken from pt^2 / (|p|^2 (1 + x)): the difference itself loses all digits at large
/// eta.
struct Eta {
  double value;
  double by_pt2, by_pz;  ///< partial derivatives; pt2 = px^2 + py^2
};
LIGHTCONE_HOST_DEVICE inline Eta eta(double pt2, double pz) {
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

/// Quantities of kernels::Kinematic: the value, and its derivatives by the components.
struct Pt {
  LIGHTCONE_HOST_DEVICE static double value(double, double x, double y, double) {
    return std::sqrt(at_least(x * x + y * y, epsilon));
  }
  LIGHTCONE_HOST_DEVICE static void gradient(double, double x, double y, double, double& dE, double& dx, double& dy,
                                             double& dz) {
    const double pt2 = x * x + y * y, r = pt2 < epsilon ? 0.0 : 1 / std::sqrt(pt2);
    dE = dz = 0, dx = x * r, dy = y * r;
  }
};
struct Phi {
  LIGHTCONE_HOST_DEVICE static double value(double, double x, double y, double) {
    return vector_math::atan2(away_from_zero(y), away_from_zero(x));
  }
  LIGHTCONE_HOST_DEVICE static void gradient(double, double x, double y, double, double& dE, double& dx, double& dy,
                                             double& dz) {
    const double a = away_from_zero(x), b = away_from_zero(y), r = 1 / (a * a + b * b);
    dE = dz = 0, dx = a == x ? -b * r : 0.0, dy = b == y ? a * r : 0.0;
  }
};
struct PseudoRapidity {
  LIGHTCONE_HOST_DEVICE static double value(double, double x, double y, double z) {
    return eta(x * x + y * y, z).value;
  }
  LIGHTCONE_HOST_DEVICE static void gradient(double, double x, double y, double z, double& dE, double& dx, double& dy,
                                             double& dz) {
    const Eta e = eta(x * x + y * y, z);
    dE = 0, dx = 2 * x * e.by_pt2, dy = 2 * y * e.by_pt2, dz = e.by_pz;
  }
};
struct Mass {
  LIGHTCONE_HOST_DEVICE static double value(double E, double x, double y, double z) {
    return std::sqrt(at_least(E * E - x * x - y * y - z * z, epsilon));
  }
  LIGHTCONE_HOST_DEVICE static void gradient(double E, double x, double y, double z, double& dE, double& dx, double& dy,
                                             double& dz) {
    const double m2 = E * E - x * x - y * y - z * z, r = m2 < epsilon ? 0.0 : 1 / std::sqrt(m2);
    dE = E * r, dx = -x * r, dy = -y * r, dz = -z * r;
  }
};

/// f(Quantity{})
template <class F>
void dispatch_quantity(kernels::Kinematic quantity, F&& f) {
  using kernels::Kinematic;
  switch (quantity) {
    case Kinematic::pt:
      return f(Pt{});
    case Kinematic::phi:
      return f(Phi{});
    case Kinematic::eta:
      return f(PseudoRapidity{});
    case Kinematic::mass:
      return f(Mass{});
  }
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
  LIGHTCONE_HOST_DEVICE void matrix(double* m) const {
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

/// dp from G, the gradient to the matrix of p's rest frame.
LIGHTCONE_HOST_DEVICE inline void restframe_boost_backward(const double* p, const double* G, double* dp) {
  const RestFrame f(p);
  double dgamma = G[0], dscale = 0, dbeta[3];
  for (int i = 0; i < 3; ++i) {
    const double edge = G[1 + i] + G[4 + 4 * i];
    dgamma -= edge * f.beta[i];
    dbeta[i] = -f.gamma * edge;
    for (int j = 0; j < 3; ++j) {
      dscale += G[5 + 4 * i + j] * f.beta[i] * f.beta[j];
      dbeta[i] += f.scale * (G[5 + 4 * i + j] + G[5 + 4 * j + i]) * f.beta[j];
    }
  }
  f.backward(dgamma, dscale, dbeta, p[0], dp);
}

/// y = matrix p.
LIGHTCONE_HOST_DEVICE inline void transform(const double* matrix, const double* p, double* y) {
  for (int i = 0; i < 4; ++i)
    y[i] = matrix[4 * i] * p[0] + matrix[4 * i + 1] * p[1] + matrix[4 * i + 2] * p[2] + matrix[4 * i + 3] * p[3];
}

}  // namespace lightcone::minkowski_math
