#pragma once
#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include "gpusim/machine/instruction.h"
#include "gpusim/machine/instructions/rounding.h"

namespace gpusim {

/// An instruction's modifiers, of which a select function takes those it knows; what is left then is refused.
class Variant {
 public:
  explicit Variant(const ptx::Instruction& instruction)
      : left_(instruction.modifiers.begin(), instruction.modifiers.end()) {}

  /// Whether the modifier is there; it is taken.
  bool take(std::string_view modifier) {
    const auto found = std::find(left_.begin(), left_.end(), modifier);
    if (found == left_.end()) return false;
    left_.erase(found);
    return true;
  }
  Round take_rounding() {
    if (take("rn")) return Round::nearest;
    if (take("rz")) return Round::zero;
    if (take("rm")) return Round::down;
    return take("rp") ? Round::up : Round::none;
  }
  /// Whether exactly these are left: the types, usually.
  bool is(std::initializer_list<std::string_view> modifiers) const { return std::ranges::equal(left_, modifiers); }
  /// What is left.
  const std::vector<std::string_view>& left() const { return left_; }

 private:
  std::vector<std::string_view> left_;
};

/// A Choice, or a null one where the number of operands is another.
inline Choice choice(std::span<const Shape> operands, Handler run, std::vector<uint8_t> bytes, Kind kind,
                     int32_t immediate = 0) {
  if (operands.size() != bytes.size()) return {};
  return {run, std::move(bytes), kind, immediate};
}

}  // namespace gpusim
