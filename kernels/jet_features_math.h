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
LIGHTCONE_HOST_DEVICE constexpr Standard standard(int column) {
  constexpr Standard all[7] = {{1.7, 0.7}, {2.0, 0.7}, {-4.7, 0.7}, {-4.7, 0.7}, {0, 1}, {0, 1}, {0.2, 4}};
  return all[column];
}

/// The columns that are selected.
std::span<const int> columns(kernels::TaggingFeatures which);

/// phi_a - phi_b in [-pi, pi) for transverse momenta away from zero: the angle of a b*, as complex numbers.
LIGHTCONE_HOST_DEVICE inline double angle_between(double ax, double ay, double bx, double by) {
  const double angle = vector_math::atan2(ay * bx - ax * by, ax * bx + ay * by);
  return angle >= M_PI ? -M_PI : angle;
}

// Functions inside of vectorised loops must be inlined, however large they are.

/// The features of the constituent a and its jet j, before they are standardised.
[[gnu::always_inline]] LIGHTCONE_HOST_DEVICE inline void features(const double (&a)[4], const double (&j)[4],
                                                                  double (&f)[7]) {
  const double pt2 = a[1] * a[1] + a[2] * a[2], jet_pt2 = j[1] * j[1] + j[2] * j[2];
  const double log_pt = 0.5 * vector_math::log(at_least(pt2, epsilon));
  const double log_E = vector_math::log(at_least(a[0], epsilon));
  const double dphi =
      angle_between(away_from_zero(a[1]), away_from_zero(a[2]), away_from_zero(j[1]), away_from_zero(j[2]));
  const double deta = eta(jet_pt2, j[3]).value - eta(pt2, a[3]).value;
  f[0] = log_pt;
  f[1] = log_E;
  f[2] = log_pt - 0.5 * vector_math::log(at_least(jet_pt2, epsilon));
  f[3] = log_E - vector_math::log(at_least(j[0], epsilon));
  f[4] = dphi;
  f[5] = deta;
  f[6] = std::sqrt(at_least(dphi * dphi + deta * deta, epsilon));
}

/// The gradient to a four-momentum from those to its ln pt, ln E, phi and eta.
[[gnu::always_inline]] LIGHTCONE_HOST_DEVICE inline void to_momentum(const double (&p)[4], double g_log_pt,
                                                                     double g_log_E, double g_phi, double g_eta,
                                                                     double (&dp)[4]) {
  const double pt2 = p[1] * p[1] + p[2] * p[2], a = away_from_zero(p[1]), b = away_from_zero(p[2]);
  const Eta e = eta(pt2, p[3]);
  const double by_pt2 = (pt2 < epsilon ? 0.0 : 0.5 * g_log_pt / pt2) + g_eta * e.by_pt2;
  const double by_phi = g_phi / (a * a + b * b);
  dp[0] = p[0] < epsilon ? 0.0 : g_log_E / p[0];
  dp[1] = 2 * p[1] * by_pt2 - (a == p[1] ? b * by_phi : 0.0);
  dp[2] = 2 * p[2] * by_pt2 + (b == p[2] ? a * by_phi : 0.0);
  dp[3] = g_eta * e.by_pz;
}

/// The gradients to a and j from g, those to their features.
[[gnu::always_inline]] LIGHTCONE_HOST_DEVICE inline void features_backward(const double (&g)[7], const double (&a)[4],
                                                                           const double (&j)[4], double (&da)[4],
                                                                           double (&dj)[4]) {
  const double dphi =
      angle_between(away_from_zero(a[1]), away_from_zero(a[2]), away_from_zero(j[1]), away_from_zero(j[2]));
  const double deta = eta(j[1] * j[1] + j[2] * j[2], j[3]).value - eta(a[1] * a[1] + a[2] * a[2], a[3]).value;
  const double dr2 = dphi * dphi + deta * deta, by_dr = dr2 < epsilon ? 0.0 : g[6] / std::sqrt(dr2);
  const double g_phi = g[4] + by_dr * dphi, g_eta = g[5] + by_dr * deta;
  to_momentum(a, g[0] + g[2], g[1] + g[3], g_phi, -g_eta, da);
  to_momentum(j, -g[2], -g[3], -g_phi, g_eta, dj);
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
      double of[7];
      features({a.E[k], a.px[k], a.py[k], a.pz[k]}, {j.E[k], j.px[k], j.py[k], j.pz[k]}, of);
      f[0][k] = of[0], f[1][k] = of[1], f[2][k] = of[2], f[3][k] = of[3];
      f[4][k] = of[4], f[5][k] = of[5], f[6][k] = of[6];
    }
    for (int64_t c = 0; c < F; ++c) {
      const int column = selected[c];
      const auto [mean, factor] = standard(column);
      for (int64_t k = 0; k < count; ++k) y[(t + k) * F + c] = Out((f[column][k] - mean) * factor);
    }
  }
}

}  // namespace lightcone::jet_features_math
