#pragma once
#include "gpusim/machine/instructions/float_variant.h"

namespace gpusim {

/// What a conversion's handler has to know at run time: Op::immediate.
struct ConversionMode {
  Round round = Round::none;
  bool ftz = false, sat = false, relu = false, satfinite = false;
  uint8_t to_bytes = 0, from_bytes = 0;  ///< of the registers, which may be wider than the types

  int32_t packed() const {
    return static_cast<int32_t>(round) | ftz << 3 | sat << 4 | relu << 5 | satfinite << 6 | to_bytes << 8 |
           from_bytes << 16;
  }
  static ConversionMode of(int32_t packed) {
    return {static_cast<Round>(packed & 7),
            (packed >> 3 & 1) != 0,
            (packed >> 4 & 1) != 0,
            (packed >> 5 & 1) != 0,
            (packed >> 6 & 1) != 0,
            static_cast<uint8_t>(packed >> 8),
            static_cast<uint8_t>(packed >> 16)};
  }
};

/// cvt to f16x2, bf16x2, e4m3x2, e5m2x2 and tf32, from the fp8 pairs, and cvt.pack.
Choice select_packed_conversion(const ptx::Instruction& instruction, std::span<const Shape> operands);

}  // namespace gpusim
