#pragma once
#include <unordered_map>

#include "gpusim/ptx/lexer.h"
#include "gpusim/ptx/module.h"

namespace gpusim::ptx {

struct NameHash {
  using is_transparent = void;
  size_t operator()(std::string_view name) const { return std::hash<std::string_view>{}(name); }
};
template <class T>
using NameMap = std::unordered_map<std::string, T, NameHash, std::equal_to<>>;

/// Reads `{ … }` of a function whose head (parameters, parameter registers) is there already. `module_names` are the
/// variables and functions declared before it, and the function itself.
void parse_body(Lexer& in, const NameMap<uint32_t>& module_names, Function& function);

}  // namespace gpusim::ptx
