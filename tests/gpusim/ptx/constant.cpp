#include "gpusim/ptx/constant.h"

#include <bit>
#include <charconv>

namespace gpusim::ptx {
namespace {

using Literal = Operand::Literal;

uint64_t digits(const Lexer& in, std::string_view text, int base) {
  uint64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || stop != text.data() + text.size()) in.unexpected("a number");
  return value;
}

Constant literal(Lexer& in) {
  std::string_view text = in.peek().text;
  Constant c;
  const char kind = text.size() > 1 && text[0] == '0' ? char(text[1] | 0x20) : '\0';
  if (kind == 'f' || kind == 'd') {
    if (text.size() != (kind == 'f' ? 10u : 18u)) in.unexpected("8 digits after 0f, 16 after 0d");
    c.literal = kind == 'f' ? Literal::f32 : Literal::f64;
    c.value = int64_t(digits(in, text.substr(2), 16));
  } else if (kind != 'x' && kind != 'b' && text.find_first_of(".eE") != text.npos) {
    double value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || stop != text.data() + text.size()) in.unexpected("a number");
    c = {Literal::f64, std::bit_cast<int64_t>(value)};
  } else {
    const bool suffix = text.back() == 'U';
    if (suffix) text.remove_suffix(1);
    const bool prefix = kind == 'x' || kind == 'b';
    const int base = kind == 'x' ? 16 : kind == 'b' ? 2 : text[0] == '0' ? 8 : 10;
    c.value = int64_t(digits(in, text.substr(prefix ? 2 : 0), base));
    c.is_unsigned = suffix || c.value < 0;
  }
  in.take();
  return c;
}

// How strongly a binary operator binds; 0: it is none.
int strength(const Token& token) {
  if (token.kind != Token::Kind::mark) return 0;
  switch (token.text[0]) {
    case '|':
      return 1;
    case '^':
      return 2;
    case '&':
      return 3;
    case '<':
    case '>':
      return token.text.size() == 2 ? 4 : 0;
    case '+':
    case '-':
      return 5;
    case '*':
    case '/':
    case '%':
      return 6;
    default:
      return 0;
  }
}
constexpr int factor = 6;

Constant apply(const Lexer& in, char operation, const Constant& a, const Constant& b) {
  if (a.literal != Literal::integer || b.literal != Literal::integer) in.refuse("arithmetic on float constants");
  const uint64_t x = uint64_t(a.value), y = uint64_t(b.value);
  const bool is_unsigned = a.is_unsigned || b.is_unsigned;
  const auto result = [&](uint64_t bits) { return Constant{Literal::integer, int64_t(bits), is_unsigned}; };
  switch (operation) {
    case '|':
      return result(x | y);
    case '^':
      return result(x ^ y);
    case '&':
      return result(x & y);
    case '<':
      return {Literal::integer, y > 63 ? 0 : int64_t(x << y), a.is_unsigned};
    case '>':
      return {Literal::integer, a.is_unsigned ? int64_t(y > 63 ? 0 : x >> y) : a.value >> (y > 63 ? 63 : y),
              a.is_unsigned};
    case '+':
      return result(x + y);
    case '-':
      return result(x - y);
    case '*':
      return result(x * y);
    default:
      break;
  }
  if (y == 0) in.refuse("division by zero in a constant");
  if (operation == '/') return result(is_unsigned ? x / y : b.value == -1 ? 0 - x : uint64_t(a.value / b.value));
  return result(is_unsigned ? x % y : b.value == -1 ? 0 : uint64_t(a.value % b.value));
}

Constant expression(Lexer& in, int weakest, int depth);

Constant unary(Lexer& in, int depth) {
  if (depth > 64) in.refuse("a constant nested too deeply");
  if (in.accept("(")) {
    const Constant c = expression(in, 1, depth + 1);
    in.expect(")");
    return c;
  }
  if (in.accept("+")) return unary(in, depth + 1);
  if (in.accept("-")) {
    Constant c = unary(in, depth + 1);
    switch (c.literal) {
      case Literal::integer:
        c.value = int64_t(0 - uint64_t(c.value));
        break;
      case Literal::f32:
        c.value ^= int64_t{1} << 31;
        break;
      case Literal::f64:
        c.value ^= INT64_MIN;
        break;
    }
    return c;
  }
  if (in.accept("~")) {
    Constant c = unary(in, depth + 1);
    if (c.literal != Literal::integer) in.refuse("~ of a float constant");
    c.value = ~c.value;
    return c;
  }
  if (in.accept("WARP_SZ")) return {Literal::integer, 32};
  if (!in.is(Token::Kind::number)) in.unexpected("a constant");
  return literal(in);
}

Constant expression(Lexer& in, int weakest, int depth) {
  Constant left = unary(in, depth);
  for (int s = strength(in.peek()); s >= weakest && s > 0; s = strength(in.peek())) {
    const char operation = in.take().text[0];
    left = apply(in, operation, left, expression(in, s + 1, depth + 1));
  }
  return left;
}

int64_t whole(const Lexer& in, const Constant& c) {
  if (c.literal != Literal::integer) in.refuse("expected an integer constant, found a float");
  return c.value;
}

}  // namespace

bool at_constant(const Lexer& in) {
  return in.is(Token::Kind::number) || in.is("-") || in.is("+") || in.is("~") || in.is("(") || in.is("WARP_SZ");
}

Constant constant(Lexer& in) { return expression(in, 1, 0); }

int64_t integer(Lexer& in) { return whole(in, constant(in)); }

int64_t offset(Lexer& in) {
  uint64_t sum = 0;
  while (in.is("+") || in.is("-")) {
    const bool minus = in.take().text[0] == '-';
    const uint64_t term = uint64_t(whole(in, expression(in, factor, 0)));
    sum += minus ? 0 - term : term;
  }
  return int64_t(sum);
}

}  // namespace gpusim::ptx
