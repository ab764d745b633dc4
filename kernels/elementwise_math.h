#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/elementwise.h"
#include "kernels/vector_math.h"

/// The functions of elementwise.h for one element, on either device: on the CPU for loops through vector_math::map().
namespace lightcone::kernels::elementwise {

template <class T>
LIGHTCONE_HOST_DEVICE T sigmoid(T x) {
  return 1 / (1 + vector_math::exp(-x));
}

/// log(1 + exp(x)) without overflow and without losing the small results.
template <class T>
LIGHTCONE_HOST_DEVICE T softplus(T x) {
  return std::max(x, T(0)) + vector_math::log1p(vector_math::exp(-std::abs(x)));
}

/// The normal distribution function and its density, exp(-x^2 / 2) / sqrt(2 pi).
template <class T>
struct Normal {
  T cdf, density;
};

LIGHTCONE_HOST_DEVICE inline Normal<double> normal(double x) {
  return {0.5 * (1 + vector_math::erf(x * 0.70710678118654752440)),
          0.39894228040143267794 * vector_math::exp(-0.5 * x * x)};
}

/// In f32 both come from one exponential: 1 - cdf(a) = exp(-a^2 / 2) t R(t) / 2 for a >= 0, t = 1 / (1 + 0.3 a / sqrt
/// 2), with R fitted for least relative error, 2e-8; 2^f likewise on [-1/2, 1/2]. Relative errors of cdf and density
/// grow from 1e-7 to 2e-6 where they are as small as 1e-7.
LIGHTCONE_HOST_DEVICE inline Normal<float> normal(float x) {
  constexpr float last = 13;  // where the density vanishes in f32
  const float a = std::min(std::abs(x), last);
  const float exponent = a * a * -0.72134752044448170368f;  // of 2
  const float whole = std::rint(exponent), f = exponent - whole;
  float power = 1.5345812e-4f;
  power = power * f + 1.3399931e-3f;
  power = power * f + 9.6184891e-3f;
  power = power * f + 5.5503286e-2f;
  power = power * f + 2.4022646e-1f;
  power = power * f + 6.9314718e-1f;
  power = power * f + 1.f;
  const auto bits = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;  // 2^whole, never below 2^-122
  const float e = std::abs(x) > last ? 0.f : power * std::bit_cast<float>(bits);
  const float t = 1 / (1 + a * 0.21213203435596425732f);
  float r = -1.2940670e-1f;
  r = r * t + 4.8495239e-1f;
  r = r * t - 5.1090139e-1f;
  r = r * t + 5.4598486e-1f;
  r = r * t - 9.3315117e-2f;
  r = r * t + 2.1428411e-1f;
  r = r * t + 1.4852704e-1f;
  r = r * t + 1.7068467e-1f;
  r = r * t + 1.6919012e-1f;
  const float above = 0.5f * e * (t * r);
  return {x < 0 ? above : 1 - above, 0.39894228040143267794f * e + (x - x)};
}

/// The exact GELU (Hendrycks, Gimpel, arXiv:1606.08415).
template <class T>
LIGHTCONE_HOST_DEVICE T gelu(T x) {
  return x * normal(x).cdf;
}

template <class T>
LIGHTCONE_HOST_DEVICE T gelu_derivative(T x) {
  const Normal<T> n = normal(x);
  return n.cdf + x * n.density;
}

template <Unary f, class T>
LIGHTCONE_HOST_DEVICE T value(T x) {
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
LIGHTCONE_HOST_DEVICE T derivative(T saved) {
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

// The same as objects, whose type names the function: what a loop over elements is compiled for, on either device.
struct Add {
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Subtract {
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T a, T b) const {
    return a - b;
  }
};
struct Multiply {
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T a, T b) const {
    return a * b;
  }
};
struct Scale {
  double factor;
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T x) const {
    return T(factor) * x;
  }
};
struct Clamp {
  double low, high;
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T x) const {
    return x < T(low) ? T(low) : x > T(high) ? T(high) : x;
  }
};
struct ClampBackward {
  double low, high;
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T dy, T x) const {
    return x >= T(low) && x <= T(high) ? dy : T(0);
  }
};
template <Unary f>
struct Value {
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T x) const {
    return value<f>(x);
  }
};
template <Unary f>
struct TimesDerivative {
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T dy, T saved) const {
    return dy * derivative<f>(saved);
  }
};

/// cast(): whether x, its fraction dropped, is a number of type To. Double holds every bound here, or the power of two
/// above it.
template <class To, class From>
LIGHTCONE_HOST_DEVICE bool fits(From x) {
  if constexpr (std::is_integral_v<From>) {
    return std::in_range<To>(x);
  } else {
    constexpr double low = static_cast<double>(std::numeric_limits<To>::min());
    const double whole = std::trunc(static_cast<double>(x));
    return whole >= low && whole < -low;
  }
}

/// Whether cast() has to ask.
template <class To, class From>
inline constexpr bool may_not_fit = std::is_integral_v<To> && !std::is_same_v<To, bool> && !std::is_same_v<From, bool>;

template <class To, class From>
LIGHTCONE_HOST_DEVICE To converted(From x) {
  if constexpr (std::is_same_v<To, bool>)
    return x != From{};
  else
    return static_cast<To>(x);
}

}  // namespace lightcone::kernels::elementwise
