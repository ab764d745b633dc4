#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace lightcone {

/// A configuration before it is typed: tables, lists, strings, booleans, integers, floats and null, keys in file order.
using Json = nlohmann::ordered_json;

/// The members of a configuration struct by name, so that one listing serves reading, writing and checking:
///
///     struct Data {
///       std::string data_dir = "data";
///       std::optional<int64_t> max_particles;                    // null is allowed exactly where the type is optional
///       void fields(auto& f) { f("data_dir", data_dir); f("max_particles", max_particles); }
///     };
///     read_fields(json, data, "data");    // throws Error on an unknown key (naming the nearest) or a wrong type
///     Json out = write_fields(data);
///
/// Types: bool, int64_t, double (integers are accepted), std::string, std::vector and std::array of these,
/// std::optional of all of them, structs with fields(), and Json, which takes anything. A key that is absent keeps its
/// default.

/// The names of `candidates` closest to `name` by edit distance, best first, at most `count`; for error messages.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& candidates,
                                       size_t count = 3);

namespace fields_detail {

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};
template <class T>
struct is_list : std::false_type {};
template <class T>
struct is_list<std::vector<T>> : std::true_type {};
template <class T, size_t N>
struct is_list<std::array<T, N>> : std::true_type {};

struct NameCollector {
  std::vector<std::string> names;
  template <class T>
  void operator()(const char* name, T&) {
    names.push_back(name);
  }
};

[[noreturn]] void fail_type(const std::string& path, const char* expected, const Json& got);
[[noreturn]] void fail_unknown(const std::string& path, const std::string& key, const std::vector<std::string>& names);
[[noreturn]] void fail_length(const std::string& path, size_t expected, size_t got);

template <class T>
void read_value(const Json& json, T& value, const std::string& path);

struct Reader {
  const Json& json;
  const std::string& path;
  template <class T>
  void operator()(const char* name, T& value) {
    auto it = json.find(name);
    if (it != json.end()) read_value(*it, value, path.empty() ? name : path + "." + name);
  }
};

template <class T>
Json write_value(T& value);

struct Writer {
  Json json = Json::object();
  template <class T>
  void operator()(const char* name, T& value) {
    json[name] = write_value(value);
  }
};

template <class T>
void read_value(const Json& json, T& value, const std::string& path) {
  if constexpr (std::is_same_v<T, Json>) {
    value = json;
  } else if constexpr (is_optional<T>::value) {
    if (json.is_null()) {
      value.reset();
      return;
    }
    if (!value) value.emplace();
    read_value(json, *value, path);
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) fail_type(path, "true or false", json);
    value = json.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    // A float that is a whole number (1e5) is how people write large counts; beyond 2^53 it would not be exact.
    const double number = json.is_number() ? json.get<double>() : 0.5;
    if (!(number == std::trunc(number) && std::abs(number) <= 0x1p53)) fail_type(path, "an integer", json);
    value = static_cast<T>(number);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!json.is_number()) fail_type(path, "a number", json);
    value = json.get<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) fail_type(path, "a string", json);
    value = json.get<std::string>();
  } else if constexpr (is_list<T>::value) {
    if (!json.is_array()) fail_type(path, "a list", json);
    if constexpr (requires { value.resize(1); })
      value.resize(json.size());
    else if (json.size() != value.size())
      fail_length(path, value.size(), json.size());
    for (size_t i = 0; i < json.size(); ++i) read_value(json[i], value[i], path + "[" + std::to_string(i) + "]");
  } else {
    if (!json.is_object()) fail_type(path, "a table", json);
    NameCollector names;
    value.fields(names);
    for (auto& [key, unused] : json.items())
      if (std::find(names.names.begin(), names.names.end(), key) == names.names.end())
        fail_unknown(path, key, names.names);
    Reader reader{json, path};
    value.fields(reader);
  }
}

template <class T>
Json write_value(T& value) {
  if constexpr (is_optional<T>::value)
    return value ? write_value(*value) : Json(nullptr);
  else if constexpr (is_list<T>::value) {
    Json list = Json::array();
    for (auto& v : value) list.push_back(write_value(v));
    return list;
  } else if constexpr (requires(Writer w) { value.fields(w); }) {
    Writer writer;
    value.fields(writer);
    return writer.json;
  } else
    return Json(value);
}

}  // namespace fields_detail

/// Sets the members of `value` that `json` names. `path` is the dotted name of the struct, for messages.
template <class T>
void read_fields(const Json& json, T& value, const std::string& path) {
  fields_detail::read_value(json, value, path);
}
/// The same as a value of its own.
template <class T>
T fields_of(const Json& json, const std::string& path) {
  T value;
  read_fields(json, value, path);
  return value;
}

template <class T>
Json write_fields(T& value) {
  return fields_detail::write_value(value);
}

}  // namespace lightcone
