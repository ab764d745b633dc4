#include <map>
#include <vector>

#include "gpusim/machine/instruction.h"

namespace gpusim {

Choice choose(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  static const std::multimap<std::string_view, Select> selects = [] {
    std::multimap<std::string_view, Select> by_opcode;  // equal keys stay in the order of insertion
    for (const auto list : {move_instructions(), integer_instructions(), float_instructions(), half_instructions(),
                            conversion_instructions(), warp_instructions(), tensor_instructions()})
      for (const Family& family : list) by_opcode.emplace(family.opcode, family.select);
    return by_opcode;
  }();
  const auto [first, last] = selects.equal_range(instruction.opcode);
  for (auto family = first; family != last; ++family) {
    Choice choice = family->second(instruction, operands);
    if (choice.run && choice.bytes.size() == operands.size()) return choice;
  }
  return {};
}

}  // namespace gpusim
