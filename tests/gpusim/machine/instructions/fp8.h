#pragma once
#include "gpusim/machine/instructions/float_bits.h"
#include "gpusim/machine/instructions/half.h"

namespace gpusim {

// e4m3: no infinities, ±448 at most, NaN is S.1111.111. e5m2: the upper byte of an f16, ±57344 at most. Branch-free.

struct E4m3 {
  static constexpr int mantissa = 3, bias = 7;
  static constexpr uint32_t largest = 0x7e;
  static constexpr float largest_value = 448.0f;
  static float value(uint8_t bits) {
    const uint32_t magnitude = bits & 0x7fu, sign = (bits & 0x80u) << 24;
    const uint32_t normal = (magnitude << 20) + (120u << 23);
    const uint32_t subnormal = bits_of(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-9f);
    const uint32_t finite = sign | (magnitude < 8 ? subnormal : normal);
    return from_bits<float>(magnitude == 0x7f ? canonical_nan_f32 : finite);
  }
};
struct E5m2 {
  static constexpr int mantissa = 2, bias = 15;
  static constexpr uint32_t largest = 0x7b;
  static constexpr float largest_value = 57344.0f;
  static float value(uint8_t bits) { return f16_to_float(static_cast<uint16_t>(bits << 8)); }
};

/// .rn.satfinite{.relu}: to nearest even, beyond the largest (infinity too) the largest, NaN is 0x7f.
template <class F>
inline uint8_t to_fp8(float x, bool relu) {
  constexpr int shift = 23 - F::mantissa;
  constexpr uint32_t rebias = static_cast<uint32_t>(127 - F::bias) << 23;
  // A subnormal's last place is that of this power of two in float.
  constexpr float place = std::bit_cast<float>(static_cast<uint32_t>(127 + 24 - F::bias - F::mantissa) << 23);
  const uint32_t bits = bits_of(x), sign = bits >> 24 & 0x80;
  const float size = std::fabs(x);
  const uint32_t magnitude = bits_of(size);
  const uint32_t normal = (magnitude - rebias + (1u << (shift - 1)) - 1 + (magnitude >> shift & 1)) >> shift;
  const uint32_t subnormal = bits_of(size + place) - bits_of(place);
  const uint32_t finite = magnitude < rebias + (1u << 23) ? subnormal : normal;
  uint32_t result = sign | (size >= F::largest_value ? F::largest : finite);
  result = relu && sign ? 0 : result;
  return static_cast<uint8_t>(x != x ? 0x7fu : result);
}

}  // namespace gpusim
