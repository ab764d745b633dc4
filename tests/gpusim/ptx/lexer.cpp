#include "gpusim/ptx/lexer.h"

#include <algorithm>
#include <charconv>

namespace gpusim::ptx {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$'; }
bool is_name(char c) { return is_letter(c) || is_digit(c); }

}  // namespace

void Lexer::skip_blanks() {
  while (at_ < end_) {
    const char c = *at_;
    if (c == '\n') {
      ++line_, ++at_;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v') {
      ++at_;
    } else if (c == '/' && at_ + 1 < end_ && at_[1] == '/') {
      at_ = std::find(at_, end_, '\n');
    } else if (c == '/' && at_ + 1 < end_ && at_[1] == '*') {
      constexpr std::string_view close = "*/";
      const char* stop = std::search(at_ + 2, end_, close.begin(), close.end());
      if (stop == end_) fail("PTX line {}: a comment without an end", line_);
      line_ += std::count(at_, stop, '\n');
      at_ = stop + 2;
    } else {
      return;
    }
  }
}

void Lexer::advance() {
  taken_line_ = token_.line;
  skip_blanks();
  token_.line = line_;
  const char* start = at_;
  const auto finish = [&](Token::Kind kind) {
    token_.kind = kind;
    token_.text = {start, size_t(at_ - start)};
  };
  if (at_ == end_) return finish(Token::Kind::end);

  const char c = *at_++;
  const char next = at_ < end_ ? *at_ : '\0';
  if (is_letter(c)) {
    while (at_ < end_ && is_name(*at_)) ++at_;
    return finish(Token::Kind::word);
  }
  if (c == '%' && is_letter(next)) {  // a register: only these hold dots (%tid.x)
    while (at_ < end_ && (is_name(*at_) || *at_ == '.')) ++at_;
    return finish(Token::Kind::word);
  }
  if (c == '.' && is_name(next)) {
    while (at_ < end_) {
      if (is_name(*at_))
        ++at_;
      else if (end_ - at_ > 2 && at_[0] == ':' && at_[1] == ':' && is_name(at_[2]))
        at_ += 2;
      else
        break;
    }
    return finish(Token::Kind::directive);
  }
  if (is_digit(c)) {
    const bool decimal = c != '0' || next == '.' || is_digit(next);
    while (at_ < end_ && (is_name(*at_) || *at_ == '.' ||
                          (decimal && (*at_ == '+' || *at_ == '-') && (at_[-1] == 'e' || at_[-1] == 'E'))))
      ++at_;
    return finish(Token::Kind::number);
  }
  if (c == '"') {
    at_ = std::find(at_, end_, '"');
    if (at_ == end_ || std::find(start, at_, '\n') != at_) fail("PTX line {}: a string without an end", line_);
    finish(Token::Kind::string);
    token_.text.remove_prefix(1);
    ++at_;
    return;
  }
  constexpr std::string_view marks = "{}[](),;:|!@+-*/%<>=&^~";
  if (marks.find(c) == marks.npos) fail("PTX line {}: unexpected character 0x{:02x}", line_, uint8_t(c));
  if ((c == '<' || c == '>') && next == c) ++at_;
  finish(Token::Kind::mark);
}

uint32_t Lexer::number(uint32_t most) {
  if (!is(Token::Kind::number)) unexpected("a number");
  const std::string_view text = token_.text;
  uint32_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || stop != text.data() + text.size()) unexpected("a decimal number");
  advance();
  if (value > most) refuse("{} is more than {}", value, most);
  return value;
}

void Lexer::skip(std::string_view open, std::string_view close) {
  expect(open);
  for (uint32_t depth = 1; depth > 0; advance()) {
    if (is(Token::Kind::end)) unexpected(close);
    if (is(open)) ++depth;
    if (is(close)) --depth;
  }
}

void Lexer::unexpected(std::string_view wanted) const {
  if (is(Token::Kind::end)) fail("PTX line {}: expected {}, found the end of the text", token_.line, wanted);
  fail("PTX line {}: expected {}, found '{}'", token_.line, wanted, token_.text);
}

}  // namespace gpusim::ptx
