#pragma once
#include <optional>

#include "gpusim/ptx/lexer.h"
#include "gpusim/ptx/module.h"

namespace gpusim::ptx {

/// .global, .shared, …: the space that the current token names, if it does.
std::optional<Space> space(const Lexer& in);

/// Reads `.global .align 4 .b8 table[4] = {1, 2, 3, 4}, other` from its space on, up to what follows (a semicolon).
std::vector<Variable> declare_variables(Lexer& in, bool is_extern);

/// One parameter: `.param .align 8 .b8 p[24]` or, in a .func, `.reg .b32 %r`.
struct Parameter {
  Variable variable;
  bool is_register = false;
};
Parameter declare_parameter(Lexer& in);

/// Reads `.reg .b32 %r<10>, a` up to what follows.
std::vector<Register> declare_registers(Lexer& in);

/// Passes over .attribute(…), if there.
inline void skip_attributes(Lexer& in) {
  while (in.accept(".attribute")) in.skip("(", ")");
}

}  // namespace gpusim::ptx
