#include "experiments/toml.h"

#include <fmt/format.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <toml.hpp>

#include "engine/error.h"

namespace lightcone {

namespace {

constexpr size_t max_bytes = 64 << 10;
constexpr int max_depth = 64;
constexpr size_t max_binary_digits = 62;

// The parser recurses per bracket and per dot of a key, so the depth of both is checked before it sees the text; and
// the length of binary numbers.
void check_text(const std::string& text, const std::string& file) {
  int brackets = 0, dots = 0, line = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size()) - 1;
    } else if (c == '"' || c == '\'') {
      const bool multiline = text.compare(i, 3, std::string(3, c)) == 0;
      const std::string quote(multiline ? 3 : 1, c);
      for (i += quote.size(); i < text.size() && text.compare(i, quote.size(), quote) != 0; ++i) {
        if (text[i] == '\n') {
          ++line;
          if (!multiline) break;
        }
        if (text[i] == '\\' && c == '"') ++i;
      }
      i += quote.size() - 1;
      // Up to two quotes may stand before the closing three.
      for (int extra = 0; multiline && extra < 2 && i + 1 < text.size() && text[i + 1] == c; ++extra) ++i;
    } else {
      if (c == '\n') ++line;
      dots = c == '.' ? dots + 1 : std::isalnum(static_cast<unsigned char>(c)) || strchr("-_ \t", c) ? dots : 0;
      brackets += (c == '[' || c == '{') - (c == ']' || c == '}');
      if (brackets > max_depth || dots > max_depth)
        fail("config", "{}:{}: nested deeper than {} levels", file, line, max_depth);
      // The parser doubles a place value for each binary digit, whether it still fits or not.
      if (text.compare(i, 2, "0b") == 0 &&
          std::min(text.find_first_not_of("01_", i + 2), text.size()) > i + 2 + max_binary_digits)
        fail("config", "{}:{}: a binary number of more than {} digits", file, line, max_binary_digits);
    }
  }
}

// Tables in file order; the parser assigns tables, which ordered_map with its constant keys cannot.
template <class Key, class Value>
struct Table : nlohmann::ordered_map<Key, Value> {
  Table() = default;
  Table(const Table&) = default;
  Table(Table&&) = default;
  Table& operator=(Table other) {
    this->swap(other);
    return *this;
  }
};

/// The parser looks at the last entry of an array into which a key goes on, also where there is none.
template <class T>
struct Array : std::vector<T> {
  using std::vector<T>::vector;
  T& back() {
    if (this->empty()) throw std::logic_error("a key goes on into an empty array");
    return std::vector<T>::back();
  }
  const T& back() const { return const_cast<Array*>(this)->back(); }
};

using Toml = toml::basic_value<toml::discard_comments, Table, Array>;

// Dotted keys within brackets can add up to more levels than either has.
Json to_json(const Toml& value, const std::string& file, int depth = 0) {
  if (depth > max_depth)
    fail("config", "{}:{}: nested deeper than {} levels", file, value.location().line(), max_depth);
  switch (value.type()) {
    case toml::value_t::boolean:
      return value.as_boolean();
    case toml::value_t::integer:
      // The parser cuts a number that does not fit to the largest.
      if (const int64_t n = value.as_integer(); n != INT64_MAX && n != INT64_MIN) return n;
      fail("config", "{}:{}: the number is out of range", file, value.location().line());
    case toml::value_t::floating:
      if (const double x = value.as_floating(); std::fabs(x) != DBL_MAX) return x;
      fail("config", "{}:{}: the number is out of range", file, value.location().line());
    case toml::value_t::string: {
      const std::string& text = value.as_string().str;
      return text == "null" ? Json(nullptr) : Json(text);
    }
    case toml::value_t::array: {
      Json list = Json::array();
      for (const auto& entry : value.as_array()) list.push_back(to_json(entry, file, depth + 1));
      return list;
    }
    case toml::value_t::table: {
      Json table = Json::object();
      for (const auto& [key, entry] : value.as_table()) table[key] = to_json(entry, file, depth + 1);
      return table;
    }
    default:
      fail("config", "{}:{}: dates and times have no use here; quote the value", file, value.location().line());
  }
}

std::string quoted(const std::string& text) {
  // JSON's escapes are a subset of TOML's, but for DEL, which TOML wants escaped.
  std::string out;
  for (char c : Json(text).dump())
    if (c == '\x7f')
      out += "\\u007F";
    else
      out += c;
  return out;
}

std::string key_text(const std::string& key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return c < 128 && (std::isalnum(c) || c == '_' || c == '-');
  });
  return bare ? key : quoted(key);
}

std::string value_text(const Json& value) {
  if (value.is_null()) return "\"null\"";
  if (value.is_string()) return quoted(value.get_ref<const std::string&>());
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::isnan(number)) return "nan";
    const std::string text = fmt::format("{}", number);
    return std::isfinite(number) && text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
  }
  if (!value.is_structured()) return value.dump();
  std::string inner;
  for (const auto& [key, entry] : value.items())
    inner +=
        (inner.empty() ? "" : ", ") + (value.is_object() ? key_text(key) + " = " : std::string()) + value_text(entry);
  return value.is_array() ? "[" + inner + "]" : "{" + inner + "}";
}

void write_table(const Json& table, const std::string& path, std::string& out) {
  for (const auto& [key, value] : table.items())
    if (!value.is_object()) out += key_text(key) + " = " + value_text(value) + "\n";
  for (const auto& [key, value] : table.items())
    if (value.is_object()) {
      const std::string name = path.empty() ? key_text(key) : path + "." + key_text(key);
      out += (out.empty() ? "[" : "\n[") + name + "]\n";
      write_table(value, name, out);
    }
}

}  // namespace

Json read_toml(const std::filesystem::path& path) {
  const std::string file = path.string();
  std::error_code ignored;
  std::ifstream stream(path, std::ios::binary);
  if (!stream || !std::filesystem::is_regular_file(path, ignored)) fail("config", "cannot read {}", file);
  std::string text(max_bytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(stream.gcount()));
  if (text.size() > max_bytes) fail("config", "{} is larger than {} KiB: not a configuration", file, max_bytes >> 10);
  if (text.find('\0') != std::string::npos || !is_utf8(text)) fail("config", "{} is not UTF-8 text", file);
  check_text(text, file);
  try {
    std::istringstream in(text);
    return to_json(toml::parse<toml::discard_comments, Table, Array>(in, file), file);
  } catch (const toml::exception& e) {
    // what() goes on with a picture of the lines; its first line says what is wrong.
    std::string what = e.what();
    what = what.substr(0, what.find('\n'));
    if (auto colon = what.find(": "); colon != std::string::npos && what.starts_with("[error] toml::"))
      what.erase(0, colon + 2);
    fail("config", "{}:{}: {}", file, e.location().line(), excerpt(what));
  } catch (const std::logic_error& e) {
    fail("config", "{} is not valid TOML: {}", file, excerpt(e.what()));
  }
}

std::string toml_text(const Json& table) {
  std::string out;
  write_table(table, "", out);
  return out;
}

bool is_utf8(const std::string& text) {
  try {
    (void)Json(text).dump();  // the library checks as it writes
    return true;
  } catch (const Json::type_error&) {
    return false;
  }
}

Json values_first(const Json& table) {
  Json out = Json::object();
  for (const auto& [key, value] : table.items())
    if (!value.is_object()) out[key] = value;
  for (const auto& [key, value] : table.items())
    if (value.is_object()) out[key] = values_first(value);
  return out;
}

std::string excerpt(const std::string& text) {
  std::string line = Json(text.substr(0, 80)).dump(-1, ' ', false, Json::error_handler_t::replace);
  line = line.substr(1, line.size() - 2);
  return text.size() > 80 ? line + "..." : line;
}

}  // namespace lightcone
