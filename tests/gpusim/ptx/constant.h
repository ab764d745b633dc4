#pragma once
#include "gpusim/ptx/lexer.h"
#include "gpusim/ptx/module.h"

namespace gpusim::ptx {

struct Constant {
  Operand::Literal literal = Operand::Literal::integer;
  int64_t value = 0;  ///< the integer, or the bits of a float
  bool is_unsigned = false;
};

/// Whether a constant may begin at the current token.
bool at_constant(const Lexer& in);

/// A constant expression: literals, WARP_SZ, parentheses, unary - + ~ and binary * / % + - << >> & ^ |. Comparisons and
/// casts are refused.
Constant constant(Lexer& in);

/// The same, an integer.
int64_t integer(Lexer& in);

/// What may follow a base in an address: "+8", "-4", "+-4", or nothing.
int64_t offset(Lexer& in);

}  // namespace gpusim::ptx
