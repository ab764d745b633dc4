#pragma once
#include "kernels/vector_math.h"

/// Activations and their derivatives of one element, for loops through vector_math::map().
namespace lightcone::kernels::elementwise {

template <class T>
T sigmoid(T x) {
  return 1 / (1 + vector_math::exp(-x));
}

/// The normal distribution function.
template <class T>
T normal_cdf(T x) {
  return T(0.5) * (1 + vector_math::erf(x * T(0.70710678118654752440)));
}

/// x cdf(x): the exact GELU (Hendrycks, Gimpel, arXiv:1606.08415), not its tanh approximation.
template <class T>
T gelu(T x) {
  return x * normal_cdf(x);
}

template <class T>
T gelu_derivative(T x) {
  constexpr T density_at_zero = T(0.39894228040143267794);
  return normal_cdf(x) + x * density_at_zero * vector_math::exp(T(-0.5) * x * x);
}

}  // namespace lightcone::kernels::elementwise
