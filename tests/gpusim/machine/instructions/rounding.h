#pragma once
#include <immintrin.h>

#include <cstdint>

namespace gpusim {

/// .rn .rz .rm .rp, with the numbers that MXCSR has for them; `none` where an instruction names no rounding.
enum class Round : uint8_t { nearest = 0, down = 1, up = 2, zero = 3, none = 4 };

/// While it lives, SSE and AVX arithmetic rounds as told. The compiler knows nothing of rounding modes: it may move
/// arithmetic over the change of MXCSR, but not loads and stores over a barrier. So operands have to be read from
/// memory that others see, and results stored there, within the scope (as map_lanes does with registers).
class RoundingScope {
 public:
  explicit RoundingScope(Round round) : saved_(_mm_getcsr()) {
    set((saved_ & ~0x6000u) | static_cast<uint32_t>(round) << 13);
  }
  ~RoundingScope() { set(saved_); }
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;

 private:
  static void set(uint32_t control) {
    asm volatile("" ::: "memory");
    _mm_setcsr(control);
    asm volatile("" ::: "memory");
  }

  uint32_t saved_;
};

}  // namespace gpusim
