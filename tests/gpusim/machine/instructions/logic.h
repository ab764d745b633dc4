#pragma once
#include "gpusim/machine/instruction.h"

namespace gpusim {

// Parts of move_instructions(), by file.

// compare.cpp
Choice select_set(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_setp(const ptx::Instruction& instruction, std::span<const Shape> operands);

// logic.cpp
Choice select_and(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_or(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_xor(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_not(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_cnot(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_lop3(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_shl(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_shr(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_shf(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_prmt(const ptx::Instruction& instruction, std::span<const Shape> operands);

// bits.cpp
Choice select_bmsk(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_szext(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_brev(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_bfind(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_fns(const ptx::Instruction& instruction, std::span<const Shape> operands);

}  // namespace gpusim
