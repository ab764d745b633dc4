#pragma once
#include <bit>
#include <cstdint>

namespace gpusim {

// 16-bit floats and f32, bit by bit: no rounding mode, no flush setting and no instruction set of the host matters, and
// without branches, so that loops over lanes become vector code. To 16 bits they round to nearest even; a NaN becomes
// the one NaN that PTX writes (0x7fff, 0x7fffffff).

inline float f16_to_float(uint16_t h) {
  const uint32_t magnitude = h & 0x7fffu, sign = (h & 0x8000u) << 16;
  const uint32_t normal = (magnitude << 13) + (112u << 23);                                  // exponent bias 15 to 127
  const uint32_t subnormal = std::bit_cast<uint32_t>(float(int32_t(magnitude)) * 0x1p-24f);  // exact
  const uint32_t finite = sign | (magnitude < 0x400 ? subnormal : normal);
  const uint32_t infinite = sign | 0x7f800000u;
  return std::bit_cast<float>(magnitude > 0x7c00 ? 0x7fffffffu : magnitude == 0x7c00 ? infinite : finite);
}

inline uint16_t float_to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
  const uint32_t even = magnitude >> 13 & 1;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + even) >> 13;
  // Shift a subnormal's mantissa with its leading one, and add one where what falls off is above half, or half and odd.
  const uint32_t shift = 126 - (magnitude >> 23), mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t by = shift - 1 < 24 ? shift : 25, kept = mantissa >> by, lost = mantissa & ((1u << by) - 1);
  const uint32_t half = 1u << (by - 1);
  const uint32_t subnormal = kept + (lost > half || (lost == half && (kept & 1)) ? 1 : 0);
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t ordered = sign | (magnitude >= 0x477ff000u ? 0x7c00u : finite);
  return uint16_t(magnitude > 0x7f800000u ? 0x7fffu : ordered);
}

inline float bf16_to_float(uint16_t b) { return std::bit_cast<float>(uint32_t{b} << 16); }

inline uint16_t float_to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
}

}  // namespace gpusim
