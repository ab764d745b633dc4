#pragma once
#include <algorithm>
#include <cmath>

#include "tests/support/op_case.h"

// What oracles of linear maps are made of.
namespace lightcone::test {

/// x w^T + b, with b left out if `inputs` ends before it.
inline Array naive_linear(const std::vector<Array>& inputs) {
  const Array &x = inputs[0], &w = inputs[1];
  const int64_t N = w.shape[0], K = w.shape[1], T = x.shape.numel() / std::max<int64_t>(1, K);
  Shape shape = x.shape;
  shape[-1] = N;
  Array y = zeros(shape);
  for (int64_t t = 0; t < shape.numel() / std::max<int64_t>(1, N); ++t)
    for (int64_t n = 0; n < N; ++n) {
      double sum = inputs.size() > 2 ? inputs[2][n] : 0;
      for (int64_t k = 0; k < K && t < T; ++k) sum += x[t * K + k] * w.at(n, k);
      y[t * N + n] = sum;
    }
  return y;
}

inline double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2)); }

inline Array transposed(const Array& a) {
  Array out = zeros({a.shape[1], a.shape[0]});
  for (int64_t i = 0; i < a.shape[0]; ++i)
    for (int64_t j = 0; j < a.shape[1]; ++j) out.at(j, i) = a.at(i, j);
  return out;
}

}  // namespace lightcone::test
