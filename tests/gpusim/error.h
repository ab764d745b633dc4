#pragma once
#include <fmt/format.h>

#include <stdexcept>

namespace gpusim {

/// What gpusim cannot do, or a text it cannot read. What a program does wrong is a Finding (report.h) instead.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... T>
[[noreturn]] void fail(fmt::format_string<T...> format, T&&... arguments) {
  throw Error(fmt::format(format, std::forward<T>(arguments)...));
}

}  // namespace gpusim
