#pragma once
#include <utility>

#include "gpusim/machine/instructions/float_bits.h"
#include "gpusim/machine/instructions/float_variant.h"

namespace gpusim {

/// x[0] = F(x[1], …, x[n]) on T, as every f32 and f64 instruction does it: operands flushed, result made canonical,
/// flushed, saturated. `directed`: in the rounding mode that is in Op::immediate.
template <class T, class F, bool ftz, bool sat, bool directed, size_t... operand>
void float_lanes(Lanes& w, const Op& op, std::index_sequence<operand...>) {
  const auto lanes = [&] {
    map_lanes<T>(
        w, op.x[0],
        [](auto... x) {
          T result = canonical(F{}((ftz ? flush(x) : x)...));
          if (ftz) result = flush(result);
          return sat ? saturate(result) : result;
        },
        w.of<T>(op.x[operand + 1])...);
  };
  if constexpr (directed) {
    const RoundingScope scope(static_cast<Round>(op.immediate));
    lanes();
  } else {
    lanes();
  }
}

template <class T, class F, size_t n, bool ftz, bool sat, bool directed>
void float_handler(Lanes& w, const Op& op) {
  float_lanes<T, F, ftz, sat, directed>(w, op, std::make_index_sequence<n>());
}

/// The Choice for F with n operands on f32 or f64, as the variant (less F's own modifiers) says.
template <class F, size_t n>
Choice f32_choice(std::span<const Shape> operands, bool ftz, bool sat, Round round = Round::none) {
  static constexpr Handler handlers[2][2][2] = {
      {{float_handler<float, F, n, false, false, false>, float_handler<float, F, n, false, false, true>},
       {float_handler<float, F, n, false, true, false>, float_handler<float, F, n, false, true, true>}},
      {{float_handler<float, F, n, true, false, false>, float_handler<float, F, n, true, false, true>},
       {float_handler<float, F, n, true, true, false>, float_handler<float, F, n, true, true, true>}}};
  const bool directed = round != Round::none && round != Round::nearest;
  return choice(operands, handlers[ftz][sat][directed], std::vector<uint8_t>(n + 1, 4), Kind::f32,
                static_cast<int32_t>(round));
}
template <class F, size_t n>
Choice f64_choice(std::span<const Shape> operands, Round round = Round::none) {
  const bool directed = round != Round::none && round != Round::nearest;
  return choice(
      operands,
      directed ? float_handler<double, F, n, false, false, true> : float_handler<double, F, n, false, false, false>,
      std::vector<uint8_t>(n + 1, 8), Kind::f64, static_cast<int32_t>(round));
}

// In approximate.cpp: those with .approx.
Choice select_approximate(const ptx::Instruction& instruction, std::span<const Shape> operands);

}  // namespace gpusim
