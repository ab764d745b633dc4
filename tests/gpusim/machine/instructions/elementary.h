#pragma once
#include <array>
#include <numbers>

#include "gpusim/machine/instructions/float_bits.h"

namespace gpusim {

// Elementary functions in double, for results that are then rounded to float or half: errors below 2^-45, special
// values as IEEE 754 and PTX have them. Without branches or calls, so that loops over lanes vectorise.

/// The sum of c[i]·x^i from i on, without a loop: loops over lanes must have no other inside.
template <size_t i = 0, size_t n>
inline double polynomial(double x, const std::array<double, n>& c) {
  if constexpr (i + 1 == n)
    return c[i];
  else
    return std::fma(polynomial<i + 1>(x, c), x, c[i]);
}

/// x + nearest_shift, |x| < 2^51, is rounded to an integer, which also stands in the low bits of the sum.
inline constexpr double nearest_shift = 0x1.8p52;

/// 2^x for any x: below 2^-1000 it is zero, above 2^1000 infinite.
inline double exp2_of(double x) {
  // The powers of ln 2 over factorials.
  static constexpr auto terms = [] {
    std::array<double, 13> c{1.0};
    for (size_t i = 1; i < c.size(); ++i) c[i] = c[i - 1] * std::numbers::ln2 / static_cast<double>(i);
    return c;
  }();
  const double limited = x < -1000.0 ? -1000.0 : (x > 1000.0 ? 1000.0 : x);
  const double shifted = limited + nearest_shift;
  const double fraction = limited - (shifted - nearest_shift);
  const double power = from_bits<double>((bits_of(shifted) + 1023) << 52);
  double result = polynomial(fraction, terms) * power;
  result = x < -1000.0 ? 0.0 : result;
  result = x > 1000.0 ? std::numeric_limits<double>::infinity() : result;
  return x != x ? x : result;
}

/// log2(x): -infinity for zeros, NaN for less. No x is subnormal, as these are floats.
inline double log2_of(double x) {
  // x = 2^n m with m in [√½, √2): log2 m = 2/ln 2 · artanh((m-1)/(m+1)).
  static constexpr auto terms = [] {
    std::array<double, 10> c{};
    for (size_t i = 0; i < c.size(); ++i) c[i] = 2.0 / (std::numbers::ln2 * static_cast<double>(2 * i + 1));
    return c;
  }();
  constexpr uint64_t root_half = std::bit_cast<uint64_t>(std::numbers::sqrt2 / 2);
  const uint64_t bits = bits_of(x), above = bits - root_half;
  const double m = from_bits<double>(bits - (above >> 52 << 52));
  // n is signed; it becomes a double through the low bits of the shift.
  const uint64_t biased = (above ^ sign_bit<double>) >> 52;
  const double n = from_bits<double>(bits_of(nearest_shift) + biased) - (nearest_shift + 2048.0);
  const double s = (m - 1.0) / (m + 1.0);
  double result = n + s * polynomial(s * s, terms);
  result = x == std::numeric_limits<double>::infinity() ? x : result;
  result = x == 0.0 ? -std::numeric_limits<double>::infinity() : result;
  return x < 0.0 || x != x ? std::numeric_limits<double>::quiet_NaN() : result;
}

/// Up to here sine and cosine are good to 2^-45 absolutely (as much relatively near zeros of a float argument).
inline constexpr float trigonometric_limit = 0x1p25f;

/// sin(x + quarter·π/2) for |x| ≤ trigonometric_limit.
inline double sine_of(double x, int quarter) {
  // π/2 in three parts of 26, 26 and 53 bits: their products with the quotient are exact or rounded once.
  constexpr double half_pi[] = {0x1.921fb5p+0, 0x1.110b46p-26, 0x1.1a62633145c07p-54};
  static constexpr auto sine = [] {
    std::array<double, 9> c{1.0};
    for (size_t i = 1; i < c.size(); ++i) c[i] = -c[i - 1] / static_cast<double>(2 * i * (2 * i + 1));
    return c;
  }();
  static constexpr auto cosine = [] {
    std::array<double, 9> c{1.0};
    for (size_t i = 1; i < c.size(); ++i) c[i] = -c[i - 1] / static_cast<double>((2 * i - 1) * 2 * i);
    return c;
  }();
  const double shifted = std::fma(x, 2.0 * std::numbers::inv_pi, nearest_shift);
  const double quotient = shifted - nearest_shift;
  double r = std::fma(-quotient, half_pi[0], x);
  r = std::fma(-quotient, half_pi[1], r);
  r = std::fma(-quotient, half_pi[2], r);
  const uint64_t turn = bits_of(shifted) + static_cast<uint64_t>(quarter);
  const double square = r * r;
  // A zero argument keeps its sign.
  const double odd = r == 0.0 ? r : r * polynomial(square, sine), even = polynomial(square, cosine);
  const double value = turn & 1 ? even : odd;
  return from_bits<double>(bits_of(value) ^ (turn & 2) << 62);
}

/// tanh(x).
inline double tanh_of(double x) {
  const double size = std::fabs(x), square = x * x;
  const double e = exp2_of(-2.0 / std::numbers::ln2 * size);
  const double large = with_sign((1.0 - e) / (1.0 + e), x);
  // Where 1 - e would cancel: the first terms of the series, the next being below 2^-60.
  const double small = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0)));
  return size < 0x1p-10 ? small : large;
}

}  // namespace gpusim
