#include "gpusim/ptx/module.h"

#include <algorithm>

namespace gpusim::ptx {

bool Instruction::has(std::string_view modifier) const {
  return std::find(modifiers.begin(), modifiers.end(), modifier) != modifiers.end();
}

std::string Instruction::variant() const {
  std::string text = opcode;
  for (const std::string& modifier : modifiers) (text += '.') += modifier;
  return text;
}

const Function* Module::find(std::string_view name) const {
  const auto it = std::find_if(functions.begin(), functions.end(), [&](const Function& f) { return f.name == name; });
  return it == functions.end() ? nullptr : &*it;
}

const std::string& Module::file(const Location& location) const {
  static const std::string unknown;
  const auto it = files.find(location.file);
  return it == files.end() ? unknown : it->second;
}

}  // namespace gpusim::ptx
