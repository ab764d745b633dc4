#pragma once
#include "gpusim/machine/instructions/fp8.h"

namespace gpusim::tensor {

// Element types of tensor instructions' A and B: how many bits they have, and an element of a register as the number
// that is multiplied, exact in Value.

struct F16 {
  using Value = float;
  static constexpr int bits = 16;
  static float value(uint32_t word, int e) { return f16_to_float(static_cast<uint16_t>(word >> 16 * e)); }
};
struct Bf16 {
  using Value = float;
  static constexpr int bits = 16;
  static float value(uint32_t word, int e) { return bf16_to_float(static_cast<uint16_t>(word >> 16 * e)); }
};
/// The low bits of an f32 that was not converted do not count.
struct Tf32 {
  using Value = float;
  static constexpr int bits = 32;
  static float value(uint32_t word, int) { return from_bits<float>(word & ~0x1fffu); }
};
template <class Format>
struct Fp8 {
  using Value = float;
  static constexpr int bits = 8;
  static float value(uint32_t word, int e) { return Format::value(static_cast<uint8_t>(word >> 8 * e)); }
};
template <int width, bool is_signed>
struct Integer {
  using Value = int32_t;
  static constexpr int bits = width;
  static int32_t value(uint32_t word, int e) {
    const uint32_t top = word << (32 - width - width * e);
    return is_signed ? static_cast<int32_t>(top) >> (32 - width) : static_cast<int32_t>(top >> (32 - width));
  }
};
struct F64 {
  using Value = double;
  static constexpr int bits = 64;
  static double value(double word, int) { return word; }
};

}  // namespace gpusim::tensor
