#pragma once
#include <array>
#include <span>
#include <string_view>
#include <vector>

#include "gpusim/machine/lanes.h"
#include "gpusim/ptx/module.h"

namespace gpusim {

/// How an instruction counts (gpusim/report.h).
enum class Kind : uint8_t { integer, f32, f64, half, convert, move, predicate, control, memory, warp, tensor, count };

struct Op;
using Handler = void (*)(Lanes& w, const Op& op);
inline constexpr Slot no_slot = ~0u;

/// One decoded arithmetic instruction. Operands are flattened in PTX's order, vectors and pairs element by element:
/// `mov.b64 {%r1, %r2}, %rd1` has three, `setp.lt.and.s32 %p1|%p2, %r1, %r2, %p3` five. Ignored ones are `no_slot`.

struct Op {
  Handler run = nullptr;
  std::array<Slot, 5> x{};         ///< the first five operands
  const Slot* operands = nullptr;  ///< all of them
  uint32_t negated = 0;            ///< bit i: predicate operand i is !%p
  int32_t immediate = 0;           ///< what its Choice asked for
};

/// An operand as a select function sees it: what it is and how wide its register is.
struct Shape {
  bool is_register = false;  ///< else an immediate (or ignored), which fits any width
  uint8_t bytes = 0;         ///< of the register; 0: a predicate
};

/// What a select function answers: the handler, and how many bytes each flattened operand has to have (0: a predicate).
/// Immediates are made that wide: integers are truncated, 0f… and 0d… converted where the width differs. The decoder
/// refuses an instruction whose registers have other widths, so that a handler can rely on them.
struct Choice {
  Handler run = nullptr;  ///< null: the variant is not known
  std::vector<uint8_t> bytes;
  Kind kind = Kind::integer;
  int32_t immediate = 0;  ///< handed over in Op::immediate
};

/// The handler for one instruction, from its modifiers and (where registers may be wider than the type: cvt, st, ld)
/// from the widths of its operands. A modifier that the function does not know must give a null handler, never be
/// skipped.
using Select = Choice (*)(const ptx::Instruction& instruction, std::span<const Shape> operands);

struct Family {
  std::string_view opcode;  ///< "add"
  Select select;
};

// One list per file in machine/instructions/. An opcode may stand in several (add: integers, floats, halves); the first
// that knows the variant has it.
std::span<const Family> move_instructions();        // mov selp setp set slct and or xor not lop3 shl shr shf prmt …
std::span<const Family> integer_instructions();     // add sub mul mad div rem min max abs neg popc clz bfe bfi dp4a …
std::span<const Family> float_instructions();       // f32, f64: add mul fma div sqrt rcp ex2 lg2 sin cos tanh testp …
std::span<const Family> half_instructions();        // f16, f16x2, bf16, bf16x2
std::span<const Family> conversion_instructions();  // cvt
std::span<const Family> warp_instructions();        // shfl vote match redux activemask elect
std::span<const Family> tensor_instructions();      // mma.sync

/// The Choice for an instruction; its handler is null if no list knows it.
Choice choose(const ptx::Instruction& instruction, std::span<const Shape> operands);

}  // namespace gpusim
