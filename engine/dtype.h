#pragma once
#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "engine/error.h"

namespace lightcone {

/// Element types. bool is stored as one byte, 0 or 1.
enum class DType : uint8_t { f64, f32, bf16, f16, fp8_e4m3, fp8_e5m2, i8, i32, i64, boolean };

/// Small floating-point formats, stored as their bits; constexpr also for nvcc, which lets kernels call what is.
/// Conversion from float and double rounds to nearest, ties to even, directly (no double rounding); NaN stays NaN.
/// Overflow: bf16, f16 and e5m2 become infinite, e4m3 (which has no infinity) becomes NaN (OCP OFP8 1.0, non-saturating
/// mode). Conversion to float is exact.
///
///   format     bits  exponent  mantissa  bias  largest
///   bf16       16    8         7         127   3.39e38
///   f16        16    5         10        15    65504
///   fp8_e4m3   8     4         3         7     448       (one NaN pattern per sign, no infinity)
///   fp8_e5m2   8     5         2         15    57344
namespace dtype_detail {

/// Rounds to float so that a following round to nearest even into fewer bits is correct: inexact results get an odd
/// last bit.
constexpr float round_to_odd(double x) {
  float f = static_cast<float>(x);
  if (static_cast<double>(f) == x || x != x) return f;
  uint32_t bits = std::bit_cast<uint32_t>(f);
  const bool too_large = (static_cast<double>(f) > x) == (x > 0);  // rounded away from zero
  if (too_large) --bits;                                           // now truncated towards zero
  return std::bit_cast<float>(bits | 1u);
}

template <int Exponent, int Mantissa, bool Infinity, class Bits>
constexpr Bits encode(float value) {
  constexpr int bias = (1 << (Exponent - 1)) - 1;
  constexpr int sign_shift = Exponent + Mantissa;
  constexpr uint32_t exponent_mask = ((1u << Exponent) - 1) << Mantissa;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 31) << sign_shift;
  uint32_t magnitude = bits & 0x7fffffffu;
  // NaN keeps its top mantissa bits and is made quiet.
  if (magnitude > 0x7f800000u)
    return static_cast<Bits>(sign | exponent_mask |
                             (Infinity
                                  ? (1u << (Mantissa - 1)) | ((magnitude >> (23 - Mantissa)) & ((1u << Mantissa) - 1))
                                  : (1u << Mantissa) - 1));
  const uint32_t overflow = Infinity ? exponent_mask : exponent_mask | ((1u << Mantissa) - 1);
  if (magnitude == 0x7f800000u) return static_cast<Bits>(sign | overflow);
  const int exponent = static_cast<int>(magnitude >> 23) - 127 + bias;
  uint32_t mantissa = (magnitude & 0x7fffffu) | (magnitude >> 23 ? 0x800000u : 0u);
  // Normal numbers drop 23 - Mantissa bits, subnormal ones more; everything below half the smallest subnormal is zero.
  int shift = 23 - Mantissa;
  if (exponent < 1) shift += 1 - exponent;
  if (magnitude >> 23 == 0) shift -= 1;  // a subnormal float has exponent -126, not -127
  if (shift > 25) return static_cast<Bits>(sign);
  const uint32_t half = 1u << (shift - 1), rest = mantissa & ((1u << shift) - 1);
  uint32_t rounded = mantissa >> shift;
  if (rest > half || (rest == half && (rounded & 1))) ++rounded;
  // Adding the mantissa (with its leading one) to exponent - 1 lets a carry move into the exponent.
  const uint32_t result = exponent < 1 ? rounded : (static_cast<uint32_t>(exponent - 1) << Mantissa) + rounded;
  return static_cast<Bits>(sign | (result >= overflow ? overflow : result));
}

template <int Exponent, int Mantissa, bool Infinity, class Bits>
constexpr float decode(Bits bits) {
  constexpr int bias = (1 << (Exponent - 1)) - 1;
  const uint32_t sign = static_cast<uint32_t>(bits >> (Exponent + Mantissa)) << 31;
  const uint32_t exponent = (bits >> Mantissa) & ((1u << Exponent) - 1);
  const uint32_t mantissa = bits & ((1u << Mantissa) - 1);
  const bool top = exponent == (1u << Exponent) - 1;
  if (top && (Infinity || mantissa == (1u << Mantissa) - 1))
    return std::bit_cast<float>(sign | 0x7f800000u | (Infinity ? mantissa << (23 - Mantissa) : 0x400000u));
  if (exponent == 0) {
    // mantissa * 2^(1 - bias - Mantissa), exact in float for every format here but bf16's subnormals, which are float's
    // own.
    const float scale = std::bit_cast<float>(static_cast<uint32_t>(127 + 1 - bias - Mantissa) << 23);
    return std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(mantissa) * scale) | sign);
  }
  return std::bit_cast<float>(sign | ((exponent + 127 - bias) << 23) | (mantissa << (23 - Mantissa)));
}

template <int Exponent, int Mantissa, bool Infinity, class Bits>
struct SmallFloat {
  Bits bits = 0;
  SmallFloat() = default;
  explicit constexpr SmallFloat(float x) : bits(encode<Exponent, Mantissa, Infinity, Bits>(x)) {}
  explicit constexpr SmallFloat(double x) : SmallFloat(round_to_odd(x)) {}
  template <class I>
  requires std::is_integral_v<I>
  explicit constexpr SmallFloat(I x) : SmallFloat(static_cast<double>(x)) {}
  constexpr operator float() const { return decode<Exponent, Mantissa, Infinity, Bits>(bits); }
};
}  // namespace dtype_detail

using f16 = dtype_detail::SmallFloat<5, 10, true, uint16_t>;
using fp8_e4m3 = dtype_detail::SmallFloat<4, 3, false, uint8_t>;
using fp8_e5m2 = dtype_detail::SmallFloat<5, 2, true, uint8_t>;

/// bfloat16 is the upper half of a float, which keeps its conversions short enough for hot loops.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  explicit constexpr bf16(float x) {
    const uint32_t b = std::bit_cast<uint32_t>(x);
    const uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1)) >> 16;
    bits = static_cast<uint16_t>(x != x ? (b >> 16) | 0x40u : rounded);
  }
  explicit constexpr bf16(double x) : bf16(dtype_detail::round_to_odd(x)) {}
  template <class I>
  requires std::is_integral_v<I>
  explicit constexpr bf16(I x) : bf16(static_cast<double>(x)) {}
  constexpr operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

template <class T>
inline constexpr DType dtype_of = [] {
  if constexpr (std::is_same_v<T, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, bf16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<T, f16>)
    return DType::f16;
  else if constexpr (std::is_same_v<T, fp8_e4m3>)
    return DType::fp8_e4m3;
  else if constexpr (std::is_same_v<T, fp8_e5m2>)
    return DType::fp8_e5m2;
  else if constexpr (std::is_same_v<T, int8_t>)
    return DType::i8;
  else if constexpr (std::is_same_v<T, int32_t>)
    return DType::i32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::i64;
  else {
    static_assert(std::is_same_v<T, bool>, "not an element type");
    return DType::boolean;
  }
}();

size_t size_of(DType dtype);
std::string_view name_of(DType dtype);  ///< "f64", "bf16", "bool", …
bool is_floating(DType dtype);

template <class T>
struct Type {
  using type = T;
};

/// f(Type<T>{}) for the compute types f64, f32 and bf16; throws Error naming `where` for any other dtype.
template <class F>
decltype(auto) dispatch_compute(std::string_view where, DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>{});
    case DType::f32:
      return f(Type<float>{});
    case DType::bf16:
      return f(Type<bf16>{});
    default:
      fail(where, "dtype {} is not supported, expected f64, f32 or bf16", name_of(dtype));
  }
}

/// f(Type<T>{}) for the dtypes of four-momenta, f64 and f32; throws Error naming `where` for any other dtype.
template <class F>
decltype(auto) dispatch_momentum(std::string_view where, DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>{});
    case DType::f32:
      return f(Type<float>{});
    default:
      fail(where, "dtype {} is not supported, expected f64 or f32", name_of(dtype));
  }
}

/// f(Type<T>{}) for every dtype.
template <class F>
decltype(auto) dispatch_all(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>{});
    case DType::f32:
      return f(Type<float>{});
    case DType::bf16:
      return f(Type<bf16>{});
    case DType::f16:
      return f(Type<f16>{});
    case DType::fp8_e4m3:
      return f(Type<fp8_e4m3>{});
    case DType::fp8_e5m2:
      return f(Type<fp8_e5m2>{});
    case DType::i8:
      return f(Type<int8_t>{});
    case DType::i32:
      return f(Type<int32_t>{});
    case DType::i64:
      return f(Type<int64_t>{});
    case DType::boolean:
      return f(Type<bool>{});
  }
  fail("dtype", "unknown dtype {}", static_cast<int>(dtype));
}

/// The type in which sums over T run: double for double, float for everything smaller.
template <class T>
using sum_type = std::conditional_t<std::is_same_v<T, double>, double, float>;
inline DType sum_dtype(DType d) { return d == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace lightcone

template <>
struct fmt::formatter<lightcone::DType> : fmt::formatter<std::string_view> {
  auto format(lightcone::DType d, format_context& ctx) const {
    return fmt::formatter<std::string_view>::format(lightcone::name_of(d), ctx);
  }
};
