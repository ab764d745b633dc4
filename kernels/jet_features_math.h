#pragma once
#include <span>

#include "kernels/jet_features.h"
#include "kernels/minkowski_math.h"

/// The loop over constituents of jet_features.h, for the kernel and for whoever computes features while writing the
/// momenta.
namespace lightcone::jet_features_math {

using namespace minkowski_math;

struct Standard {
  double mean, factor;
};
inline constexpr Standard standard[7] = {{1.7, 0.7}, {2.0, 0.7}, {-4.7, 0.7}, {-4.7, 0.7}, {0, 1}, {0, 1}, {0.2, 4}};

/// The columns that are selected.
std::span<const int> columns(kernels::TaggingFeatures which);

/// phi_a - phi_b in [-pi, pi) for transverse momenta away from zero: the angle of a b*, as complex numbers.
inline double angle_between(double ax, double ay, double bx, double by) {
  const double angle = vector_math::atan2(ay * bx - ax * by, ax * bx + ay * by);
  return angle >= M_PI ? -M_PI : angle;
}

/// y [n, F] of n constituents p and their jets, `jet_stride` elements apart: 4, or 0 for one jet.
template <class T, class Out>
void rows(kernels::TaggingFeatures which, int64_t n, const T* p, const T* jet, int64_t jet_stride, Out* y) {
  const auto selected = columns(which);
  const auto F = static_cast<int64_t>(selected.size());
  if (F == 0) return;
  for (int64_t t = 0; t < n; t += block) {
    const int64_t count = std::min(block, n - t);
    const Block a(p + 4 * t, count), j(jet + jet_stride * t, count, jet_stride);
    double f[7][block];
#pragma omp simd
    for (int64_t k = 0; k < block; ++k) {
      const double pt2 = a.px[k] * a.px[k] + a.py[k] * a.py[k], jet_pt2 = j.px[k] * j.px[k] + j.py[k] * j.py[k];
      const double log_pt = 0.5 * vector_math::log(at_least(pt2, epsilon));
      const double log_E = vector_math::log(at_least(a.E[k], epsilon));
      const double dphi = angle_between(away_from_zero(a.px[k]), away_from_zero(a.py[k]), away_from_zero(j.px[k]),
                                        away_from_zero(j.py[k]));
      const double deta = eta(jet_pt2, j.pz[k]).value - eta(pt2, a.pz[k]).value;
      f[0][k] = log_pt;
      f[1][k] = log_E;
      f[2][k] = log_pt - 0.5 * vector_math::log(at_least(jet_pt2, epsilon));
      f[3][k] = log_E - vector_math::log(at_least(j.E[k], epsilon));
      f[4][k] = dphi;
      f[5][k] = deta;
      f[6][k] = std::sqrt(at_least(dphi * dphi + deta * deta, epsilon));
    }
    for (int64_t c = 0; c < F; ++c) {
      const int column = selected[c];
      const auto [mean, factor] = standard[column];
      for (int64_t k = 0; k < count; ++k) y[(t + k) * F + c] = Out((f[column][k] - mean) * factor);
    }
  }
}

}  // namespace lightcone::jet_features_math
