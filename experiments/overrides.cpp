#include "experiments/overrides.h"

#include <charconv>
#include <cmath>
#include <cstring>

#include "engine/error.h"
#include "experiments/toml.h"

namespace lightcone {

namespace {

constexpr size_t max_key = 256, max_value = 64 << 10;
constexpr int max_depth = 64;

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// Text that reads as a number becomes one (1_000 too); 007, 0x10 and 8x0n do not.
Json number_or_text(const std::string& text) {
  std::string digits = text[0] == '+' || text[0] == '-' ? text.substr(1) : text;
  const double sign = text[0] == '-' ? -1 : 1;
  if (lower(digits) == "inf") return sign * INFINITY;
  if (lower(digits) == "nan") return NAN;
  if (digits.find_first_not_of("0123456789._eE+-") != std::string::npos) return text;
  if (digits.empty() || !(std::isdigit(static_cast<unsigned char>(digits[0])) || digits[0] == '.')) return text;
  auto digit = [&](size_t i) { return i < digits.size() && std::isdigit(static_cast<unsigned char>(digits[i])); };
  if (digits[0] == '0' && digit(1)) return text;
  for (size_t i = 1; i < digits.size(); ++i)
    if (digits[i] == '_' && !(digit(i - 1) && digit(i + 1))) return text;
  std::erase(digits, '_');
  const bool whole = digits.find_first_of(".eE") == std::string::npos;
  const char* end = digits.data() + digits.size();
  std::from_chars_result read;
  Json value;
  if (whole) {
    int64_t n = 0;
    read = std::from_chars(digits.data(), end, n);
    value = text[0] == '-' ? -n : n;
  } else {
    double x = 0;
    read = std::from_chars(digits.data(), end, x);
    value = sign * x;
  }
  if (read.ptr != end) return text;
  if (read.ec == std::errc::result_out_of_range) throw Error("the number " + excerpt(text) + " is out of range");
  return value;
}

Json typed(const std::string& text) {
  const std::string word = lower(text);
  if (word == "null") return nullptr;
  if (word == "true") return true;
  if (word == "false") return false;
  return text.empty() ? Json("") : number_or_text(text);
}

struct Parser {
  const std::string& text;
  size_t at = 0;

  void skip_blanks() { at = std::min(text.find_first_not_of(" \t\n", at), text.size()); }
  bool take(char c) {
    skip_blanks();
    if (at == text.size() || text[at] != c) return false;
    ++at;
    return true;
  }

  std::string quoted() {
    const char quote = text[at++];
    std::string out;
    for (; at < text.size() && text[at] != quote; ++at) {
      if (text[at] == '\\' && at + 1 < text.size() && (text[at + 1] == quote || text[at + 1] == '\\')) ++at;
      out += text[at];
    }
    if (at++ >= text.size()) throw Error("a quote is not closed");
    return out;
  }

  Json value(const char* delimiters, int depth) {
    if (depth > max_depth) throw Error("it is nested too deeply");
    skip_blanks();
    if (take('[')) {
      Json list = Json::array();
      if (take(']')) return list;
      do list.push_back(value(",]", depth + 1));
      while (take(','));
      if (!take(']')) throw Error("a list is not closed by ]");
      return list;
    }
    if (take('{')) {
      Json table = Json::object();
      if (take('}')) return table;
      do {
        skip_blanks();
        const std::string key = at < text.size() && strchr("\"'", text[at]) ? quoted() : bare(":,}");
        if (key.empty() || !take(':')) throw Error("a table is written {key: value, ...}");
        table[key] = value(",}", depth + 1);
      } while (take(','));
      if (!take('}')) throw Error("a table is not closed by }");
      return table;
    }
    if (at < text.size() && (text[at] == '"' || text[at] == '\'')) {
      std::string out = quoted();
      return out == "null" ? Json(nullptr) : Json(out);
    }
    std::string word = bare(delimiters);
    if (word.empty() && depth > 0) throw Error("an entry is empty");
    return typed(word);
  }

  std::string bare(const char* delimiters) {
    const size_t end = std::min(text.find_first_of(delimiters, at), text.size());
    return trim(text.substr(std::exchange(at, end), end - at));
  }
};

}  // namespace

Json parse_value(const std::string& text) {
  Parser parser{text};
  Json value = parser.value(",", 0);
  parser.skip_blanks();
  if (parser.at == text.size()) return value;
  if (text[parser.at] == ',') throw Error("a list is written [a,b], and text with a comma is quoted twice: \"'a,b'\"");
  throw Error("there is more after the value: " + excerpt(text.substr(parser.at)));
}

Override parse_override(const std::string& argument) {
  if (!is_utf8(argument)) fail("config", "'{}' is not UTF-8 text", excerpt(argument));
  Override out;
  std::string rest = trim(argument);
  if (rest.starts_with("~")) out.kind = Override::Kind::remove;
  if (rest.starts_with("+")) out.kind = Override::Kind::add;
  rest.erase(0, rest.starts_with("++") ? 2 : out.kind == Override::Kind::set ? 0 : 1);
  const size_t equals = rest.find('=');
  if (equals == std::string::npos && out.kind != Override::Kind::remove)
    fail("config", "'{}' is not of the form key=value", excerpt(argument));
  out.key = trim(rest.substr(0, equals));
  for (const auto& part : split(out.key, '.'))
    if (part.empty() || out.key.size() > max_key) fail("config", "'{}' does not name a key", excerpt(argument));
  if (equals == std::string::npos) return out;
  out.text = trim(rest.substr(equals + 1));
  try {
    if (out.text.size() > max_value) throw Error("the value is too long");
    out.value = parse_value(out.text);
  } catch (const Error& e) {
    fail("config", "{}={}: {}", out.key, excerpt(out.text), e.what());
  }
  return out;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + 1)
    parts.push_back(text.substr(begin, end - begin));
  parts.push_back(text.substr(begin));
  return parts;
}

}  // namespace lightcone
