#pragma once
#include <fmt/format.h>

#include "autograd/elementwise.h"
#include "autograd/frames.h"
#include "tests/support/lorentz.h"

// Frames for tests, and transformations by them that are as naive as can be.
namespace lightcone::test {

inline constexpr FrameMap maps[] = {FrameMap::to_local, FrameMap::to_global, FrameMap::to_global_lowered};

/// A boost and a rotation for each token; every third one is improper (a reflection).
inline Array frames_of(int64_t T, uint64_t seed) {
  Array out = zeros({T, 4, 4});
  for (int64_t t = 0; t < T; ++t) {
    Lorentz l = random_rotation(seed + 7 * t) * random_boost(seed + 7 * t + 1, 0.2 + 0.1 * (t % 5));
    if (t % 3 == 2)
      for (int i = 0; i < 4; ++i) l[4 + i] = -l[4 + i];
    std::copy(l.begin(), l.end(), out.values.begin() + 16 * t);
  }
  return out;
}

inline double determinant(const double* m) {
  double det = 0;
  for (int p = 0; p < 256; ++p) {  // all index maps; those that repeat an index have no sign
    const int i[] = {p & 3, p >> 2 & 3, p >> 4 & 3, p >> 6};
    double sign = 1;
    for (int a = 0; a < 4; ++a)
      for (int b = 0; b < a; ++b) sign *= (i[a] > i[b]) - (i[a] < i[b]);
    det += sign * m[i[0]] * m[4 + i[1]] * m[8 + i[2]] * m[12 + i[3]];
  }
  return det;
}

/// rho(M) x for one copy: every component of the result is a sum over all components.
inline std::vector<double> naive_rho(const double* frame, const TensorReps& reps, FrameMap map, const double* x) {
  double m[16];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const double g_i = i ? -1 : 1, g_j = j ? -1 : 1;
      m[4 * i + j] = map == FrameMap::to_local    ? frame[4 * i + j]
                     : map == FrameMap::to_global ? g_i * g_j * frame[4 * j + i]
                                                  : g_j * frame[4 * j + i];
    }
  std::vector<double> y;
  for (const auto& term : reps.terms()) {
    const int64_t size = int64_t{1} << 2 * term.order;
    const double parity = term.odd && determinant(m) < 0 ? -1 : 1;
    for (int64_t copy = 0; copy < term.multiplicity; ++copy, x += size)
      for (int64_t to = 0; to < size; ++to) {
        double sum = 0;
        for (int64_t from = 0; from < size; ++from) {
          double product = x[from];
          for (int k = 0; k < term.order; ++k) product *= m[4 * (to >> 2 * k & 3) + (from >> 2 * k & 3)];
          sum += product;
        }
        y.push_back(parity * sum);
      }
  }
  return y;
}

inline Array naive_transform(const Array& x, const Array& frames, const TensorReps& reps, FrameMap map) {
  Array y = zeros(x.shape);
  for (int64_t i = 0; i < x.shape.numel(); i += reps.dim()) {
    const auto rho = naive_rho(&frames.values[i / x.shape[1] * 16], reps, map, &x.values[i]);
    std::copy(rho.begin(), rho.end(), y.values.begin() + i);
  }
  return y;
}

inline Var as_frames(const Var& frames, const Var& x) { return cast(frames, sum_dtype(x.dtype())); }

inline const char* const representations[] = {"8x0n+2x1n", "3x0n",      "1x1n",           "7x0n+3x1n",
                                              "4x0n+5x1n", "1x2n",      "2x0n+1x1n+1x2n", "2x0p+1x1n+1x1p",
                                              "1x0n+1x3n", "5x0n+1x2p", "16x0n+4x1n"};

inline Array columns(const Array& x, int64_t begin, int64_t count) {
  Array y = zeros({x.shape[0], count});
  for (int64_t t = 0; t < x.shape[0]; ++t)
    for (int64_t c = 0; c < count; ++c) y[t * count + c] = x[t * x.shape[1] + begin + c];
  return y;
}

}  // namespace lightcone::test
