#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace lightcone {

/// The one exception type. Its text is for the person at the terminal: what failed, what was expected, what came, what
/// to do.
///
///     throw Error("layer_norm: x has shape [3], expected 2 axes");
///     fail("layer_norm", "x has shape {}, expected 2 axes", shape);       // the same, formatted
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

/// Throws Error("<where>: <formatted message>").
template <class... Args>
[[noreturn]] void fail(std::string_view where, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format("{}: {}", where, fmt::format(format, std::forward<Args>(args)...)));
}

}  // namespace lightcone
