#pragma once
#include <cstdint>
#include <string_view>

#include "gpusim/error.h"

namespace gpusim::ptx {

struct Token {
  enum class Kind : uint8_t {
    end,
    word,       ///< ld, %r1, %tid.x, $L__BB0_1, _
    directive,  ///< .reg; also an instruction's modifiers: .u32, .8x8, .shared::cta
    number,     ///< as written: 9.0, 0x1FU, 0f3F800000
    string,     ///< without its quotes
    mark,       ///< one character, or << or >>
  };
  Kind kind = Kind::end;
  std::string_view text;
  uint32_t line = 1;
};

/// The tokens of a PTX text, one ahead. The text must outlive it.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) { advance(); }

  const Token& peek() const { return token_; }
  Token take() {
    const Token token = token_;
    advance();
    return token;
  }

  bool is(Token::Kind kind) const { return token_.kind == kind; }
  /// The current token is exactly this mark, directive or word.
  bool is(std::string_view text) const { return token_.text == text && token_.kind != Token::Kind::string; }
  bool accept(std::string_view text) {
    if (!is(text)) return false;
    advance();
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) unexpected(text);
  }
  Token expect(Token::Kind kind, std::string_view what) {
    if (!is(kind)) unexpected(what);
    return take();
  }
  std::string_view word(std::string_view what) { return expect(Token::Kind::word, what).text; }
  /// A plain integer no larger than `most`.
  uint32_t number(uint32_t most = ~0u);

  /// Passes over `open … close`, nested.
  void skip(std::string_view open, std::string_view close);

  /// An error about the current token.
  [[noreturn]] void unexpected(std::string_view wanted) const;
  /// An error about what was taken last.
  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> format, T&&... arguments) const {
    fail("PTX line {}: {}", taken_line_, fmt::format(format, std::forward<T>(arguments)...));
  }

 private:
  void advance();
  void skip_blanks();

  const char *at_, *end_;
  uint32_t line_ = 1, taken_line_ = 1;
  Token token_;
};

}  // namespace gpusim::ptx
