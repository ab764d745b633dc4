#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

// What PTX asks of floating-point values beyond IEEE arithmetic, branch-free so that loops over lanes vectorise.

namespace gpusim {

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
inline BitsOf<T> bits_of(T x) {
  return std::bit_cast<BitsOf<T>>(x);
}
template <class T>
inline T from_bits(BitsOf<T> bits) {
  return std::bit_cast<T>(bits);
}

template <class T>
inline constexpr BitsOf<T> sign_bit = BitsOf<T>{1} << (8 * sizeof(T) - 1);
/// The exponent's bits, which are also those of infinity.
template <class T>
inline constexpr BitsOf<T> exponent_bits = std::bit_cast<BitsOf<T>>(std::numeric_limits<T>::infinity());

/// The one NaN that f32 instructions deliver.
inline constexpr uint32_t canonical_nan_f32 = 0x7fffffff;

/// f32 has no NaN payloads, f64 keeps them.
inline float canonical(float x) { return x != x ? from_bits<float>(canonical_nan_f32) : x; }
inline double canonical(double x) { return x; }

/// .ftz: subnormal values become zeros of the same sign.
template <class T>
inline T flush(T x) {
  return from_bits<T>((bits_of(x) & exponent_bits<T>) == 0 ? bits_of(x) & sign_bit<T> : bits_of(x));
}

/// .sat: into [0, 1]; NaN and -0 become +0.
template <class T>
inline T saturate(T x) {
  return x > T{0} ? (x < T{1} ? x : T{1}) : T{0};
}

/// The number of greater magnitude, as a NaN keeps being one: |x| and sign(s).
template <class T>
inline T with_sign(T magnitude, T sign) {
  return from_bits<T>((bits_of(magnitude) & ~sign_bit<T>) | (bits_of(sign) & sign_bit<T>));
}

/// x (a double) as a float of rounding "to odd": cut off, and the last bit set if anything was lost. Rounding that once
/// more, in any direction and to at least two bits fewer, is the same as rounding x directly.
inline float to_odd(double x) {
  const float nearest = static_cast<float>(x);
  const bool away = std::fabs(static_cast<double>(nearest)) > std::fabs(x);
  const bool inexact = static_cast<double>(nearest) != x;
  return from_bits<float>((bits_of(nearest) - (away ? 1u : 0u)) | (inexact ? 1u : 0u));
}

/// a + b as a float of rounding to odd, where the sum does not overflow.
inline float odd_sum(float a, float b) {
  const float sum = a + b, b_part = sum - a, a_part = sum - b_part;
  const float error = (a - a_part) + (b - b_part);
  const bool inexact = error > 0.0f || error < 0.0f;  // not where the sum is infinite
  const bool away = inexact && ((bits_of(error) ^ bits_of(sum)) & sign_bit<float>) != 0;
  return from_bits<float>((bits_of(sum) - (away ? 1u : 0u)) | (inexact ? 1u : 0u));
}

}  // namespace gpusim
