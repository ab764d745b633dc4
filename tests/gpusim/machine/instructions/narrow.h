#pragma once
#include "gpusim/machine/instructions/float_bits.h"
#include "gpusim/machine/instructions/half.h"
#include "gpusim/machine/instructions/rounding.h"

namespace gpusim {

// Rounding to a narrower float in a direction, without the host's rounding mode: round to nearest, see on which side of
// x that came out, and step to the neighbour if it is the wrong one. Bits of floats step through infinity as they
// should.

/// The step (+1 or -1, on bits without sign) from `nearest` to x rounded in the direction.
template <Round round, class T>
inline int32_t step(T nearest, T x) {
  const bool negative = std::signbit(nearest);
  if (round == Round::zero) return std::fabs(nearest) > std::fabs(x) ? -1 : 0;
  if (round == Round::down) return nearest > x ? (negative ? 1 : -1) : 0;
  if (round == Round::up) return nearest < x ? (negative ? -1 : 1) : 0;
  return 0;
}

template <Round round>
inline float to_f32(double x) {
  const float nearest = static_cast<float>(x);
  return from_bits<float>(bits_of(nearest) + static_cast<uint32_t>(step<round>(static_cast<double>(nearest), x)));
}
template <Round round>
inline uint16_t to_f16(float x) {
  const uint16_t nearest = float_to_f16(x);
  return static_cast<uint16_t>(nearest + step<round>(f16_to_float(nearest), x));
}
template <Round round>
inline uint16_t to_bf16(float x) {
  const uint16_t nearest = float_to_bf16(x);
  return static_cast<uint16_t>(nearest + step<round>(bf16_to_float(nearest), x));
}

/// f(std::integral_constant<Round>) for the rounding; none is nearest.
template <class F>
inline auto with_rounding(Round round, F&& f) {
  switch (round) {
    case Round::down:
      return f(std::integral_constant<Round, Round::down>());
    case Round::up:
      return f(std::integral_constant<Round, Round::up>());
    case Round::zero:
      return f(std::integral_constant<Round, Round::zero>());
    default:
      return f(std::integral_constant<Round, Round::nearest>());
  }
}

}  // namespace gpusim
