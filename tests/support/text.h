#pragma once
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/error.h"

// What tests ask of texts: outputs, files, messages of errors.
namespace lightcone::test {

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline int64_t count(const std::string& text, const std::string& part) {
  int64_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}
inline int64_t lines(const std::string& text) { return count(text, "\n"); }

/// The message of the Error that f throws, or "" if it throws none. Any other exception passes through.
inline std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

/// CHECKs that f throws an Error whose message begins with `start` and has `part`.
inline void check_error(const std::function<void()>& f, const std::string& part, const std::string& start = "") {
  const std::string message = error_of(f);
  INFO("got: ", message);
  CHECK(message.starts_with(start));
  CHECK_MESSAGE((message != "" && has(message, part)), part);
}

/// A list with more behind it: arguments of a command.
inline std::vector<std::string> joined(std::vector<std::string> list, const std::vector<std::string>& more) {
  list.insert(list.end(), more.begin(), more.end());
  return list;
}

}  // namespace lightcone::test
