#pragma once
#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/vector_math.h"

/// The functions of elementwise.h for one element, for loops through vector_math::map().
namespace lightcone::kernels::elementwise {

template <class T>
T sigmoid(T x) {
  return 1 / (1 + vector_math::exp(-x));
}

/// log(1 + exp(x)) without overflow and without losing the small results.
template <class T>
T softplus(T x) {
  return std::max(x, T(0)) + vector_math::log1p(vector_math::exp(-std::abs(x)));
}

/// The normal distribution function.
template <class T>
T normal_cdf(T x) {
  return T(0.5) * (1 + vector_math::erf(x * T(0.70710678118654752440)));
}

/// The exact GELU (Hendrycks, Gimpel, arXiv:1606.08415).
template <class T>
T gelu(T x) {
  return x * normal_cdf(x);
}

template <class T>
T gelu_derivative(T x) {
  constexpr T density_at_zero = T(0.39894228040143267794);
  return normal_cdf(x) + x * density_at_zero * vector_math::exp(T(-0.5) * x * x);
}

template <Unary f, class T>
T value(T x) {
  if constexpr (f == Unary::gelu) return gelu(x);
  if constexpr (f == Unary::relu) return x <= 0 ? T(0) : x;  // NaN stays NaN
  if constexpr (f == Unary::silu) return x * sigmoid(x);
  if constexpr (f == Unary::sigmoid) return sigmoid(x);
  if constexpr (f == Unary::tanh) return vector_math::tanh(x);
  if constexpr (f == Unary::softplus) return softplus(x);
  if constexpr (f == Unary::leaky_relu) return x <= 0 ? T(0.01) * x : x;
  if constexpr (f == Unary::exp) return vector_math::exp(x);
  if constexpr (f == Unary::log) return vector_math::log(x);
  if constexpr (f == Unary::sqrt) return std::sqrt(x);
  if constexpr (f == Unary::abs) return std::abs(x);
  if constexpr (f == Unary::square) return x * x;
}

/// f' from what backward_reads_result(f) says: y for some, x for the others.
template <Unary f, class T>
T derivative(T saved) {
  const T x = saved, y = saved;
  if constexpr (f == Unary::gelu) return gelu_derivative(x);
  if constexpr (f == Unary::relu) return y > 0 ? T(1) : T(0);
  if constexpr (f == Unary::silu) return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
  if constexpr (f == Unary::sigmoid) return y * (1 - y);
  if constexpr (f == Unary::tanh) return 1 - y * y;
  if constexpr (f == Unary::softplus) return sigmoid(x);
  if constexpr (f == Unary::leaky_relu) return y > 0 ? T(1) : T(0.01);
  if constexpr (f == Unary::exp) return y;
  if constexpr (f == Unary::log) return 1 / x;
  if constexpr (f == Unary::sqrt) return T(0.5) / y;
  if constexpr (f == Unary::abs) return T(x > 0) - T(x < 0);
  if constexpr (f == Unary::square) return 2 * x;
}

}  // namespace lightcone::kernels::elementwise
