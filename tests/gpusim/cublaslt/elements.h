#pragma once
#include <library_types.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "gpusim/error.h"
#include "gpusim/machine/instructions/fp8.h"
#include "gpusim/machine/instructions/half.h"

namespace gpusim::lt {

// The element types in memory, each with the type it is reckoned in. To a narrower type values round to nearest even;
// fp8 and s8 saturate, and f16 overflows to infinity.

struct F64 {
  using Bits = double;
  static double decode(double x) { return x; }
  static double encode(double x) { return x; }
};
struct F32 {
  using Bits = float;
  static float decode(float x) { return x; }
  static float encode(float x) { return x; }
};
struct F16 {
  using Bits = uint16_t;
  static float decode(uint16_t x) { return f16_to_float(x); }
  static uint16_t encode(float x) { return float_to_f16(x); }
};
struct Bf16 {
  using Bits = uint16_t;
  static float decode(uint16_t x) { return bf16_to_float(x); }
  static uint16_t encode(float x) { return float_to_bf16(x); }
};

template <class Format>
struct Fp8 {
  using Bits = uint8_t;
  static float decode(uint8_t x) { return Format::value(x); }
  static uint8_t encode(float x) { return to_fp8<Format>(x, false); }
};
struct S8 {
  using Bits = int8_t;
  static int32_t decode(int8_t x) { return x; }
  static int8_t encode(float x) {
    const float r = std::nearbyint(x);
    return int8_t(r > -128 ? (r < 127 ? r : 127) : -128);
  }
};
struct S32 {
  using Bits = int32_t;
  static int32_t decode(int32_t x) { return x; }
  static int32_t encode(int32_t x) { return x; }
};

/// f(element type of a cudaDataType).
template <class F>
void with_type(uint32_t type, F&& f) {
  switch (type) {
    case CUDA_R_64F:
      return f(F64{});
    case CUDA_R_32F:
      return f(F32{});
    case CUDA_R_16F:
      return f(F16{});
    case CUDA_R_16BF:
      return f(Bf16{});
    case CUDA_R_8F_E4M3:
      return f(Fp8<E4m3>{});
    case CUDA_R_8F_E5M2:
      return f(Fp8<E5m2>{});
    case CUDA_R_8I:
      return f(S8{});
    case CUDA_R_32I:
      return f(S32{});
  }
  fail("cublasLt: elements of type {}", type);
}

/// Reads `count` elements, `step` apart, from the one numbered `first`.
template <class T>
void load(uint32_t type, const void* storage, int64_t first, int64_t step, int64_t count, T* to) {
  with_type(type, [&]<class E>(E) {
    const auto* from = static_cast<const typename E::Bits*>(storage) + first;
    if (step == 1)
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(E::decode(from[i]));
    else
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(E::decode(from[i * step]));
  });
}

template <class T>
void store(uint32_t type, void* storage, int64_t first, int64_t step, int64_t count, const T* from) {
  with_type(type, [&]<class E>(E) {
    using Value = decltype(E::decode({}));
    auto* to = static_cast<typename E::Bits*>(storage) + first;
    using Argument = std::conditional_t<std::is_same_v<E, S8>, float, Value>;
    for (int64_t i = 0; i < count; ++i) to[i * step] = E::encode(static_cast<Argument>(from[i]));
  });
}

/// An f32 in tf32: 10 bits of mantissa, rounded to nearest even.
inline float round_to_tf32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
  return (bits & 0x7fffffffu) > 0x7f800000u ? x : std::bit_cast<float>(rounded);
}

}  // namespace gpusim::lt
