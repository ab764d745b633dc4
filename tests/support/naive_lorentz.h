#pragma once
#include <cmath>

#include "autograd/lorentz_norm.h"
#include "tests/support/naive_linear.h"

// What oracles of kernels for Lorentz vectors [T, 4, C] and scalars [T, C] are made of.
namespace lightcone::test {

struct LorentzArray {
  Array v, s;
};

/// One vector channel's component, and the product of two channels.
inline double component(const Array& v, int64_t t, int64_t p, int64_t c) { return v[(t * 4 + p) * v.shape[2] + c]; }
inline double inner(const Array& v, int64_t t, int64_t a, int64_t b) {
  double sum = 0;
  for (int64_t p = 0; p < 4; ++p) sum += (p ? -1 : 1) * component(v, t, p, a) * component(v, t, p, b);
  return sum;
}

inline LorentzArray naive_lorentz_norm(LorentzArray x, int64_t groups, double eps) {
  const LorentzArray in = x;
  const int64_t T = in.v.shape[0], V = in.v.shape[2], N = in.s.shape[1], Cv = V / groups, Cs = N / groups;
  for (int64_t t = 0; t < T; ++t)
    for (int64_t g = 0; g < groups; ++g) {
      double sum = 0;
      for (int64_t c = g * Cv; c < (g + 1) * Cv; ++c) sum += std::abs(inner(in.v, t, c, c));
      for (int64_t c = g * Cs; c < (g + 1) * Cs; ++c) sum += std::pow(in.s.at(t, c), 2);
      const double r = 1 / std::sqrt(sum / (Cv + Cs) + eps);
      for (int64_t p = 0; p < 4; ++p)
        for (int64_t c = g * Cv; c < (g + 1) * Cv; ++c) x.v[(t * 4 + p) * V + c] *= r;
      for (int64_t c = g * Cs; c < (g + 1) * Cs; ++c) x.s.at(t, c) *= r;
    }
  return x;
}

inline Array naive_gated_vectors(const Array& x, double (*f)(double)) {
  const int64_t T = x.shape[0], C = x.shape[2] / 3;
  Array y = zeros({T, 4, C});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t c = 0; c < C; ++c)
      for (int64_t p = 0; p < 4; ++p) y[(t * 4 + p) * C + c] = component(x, t, p, c) * f(inner(x, t, C + c, 2 * C + c));
  return y;
}

inline Array naive_gated_scalars(const Array& x, double (*f)(double)) {
  const int64_t T = x.shape[0], C = x.shape[1] / 2;
  Array y = zeros({T, C});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t c = 0; c < C; ++c) y.at(t, c) = x.at(t, c) * f(x.at(t, C + c));
  return y;
}

/// Vectors [T, 4, C] or [4, C] as the references have them, [T, C, 4], and back.
inline Array components_last(const Array& v) {
  Array out = zeros({v.shape[0], v.shape[2], v.shape[1]});
  for (int64_t t = 0; t < v.shape[0]; ++t)
    for (int64_t a = 0; a < v.shape[1]; ++a)
      for (int64_t b = 0; b < v.shape[2]; ++b)
        out[(t * v.shape[2] + b) * v.shape[1] + a] = v[(t * v.shape[1] + a) * v.shape[2] + b];
  return out;
}

}  // namespace lightcone::test
