#pragma once
#include <doctest/doctest.h>

#include <fstream>
#include <functional>
#include <string>

#include "engine/file.h"
#include "tests/support/text.h"

namespace lightcone::test {

inline void overwrite(const Path& path, const std::string& bytes) {
  std::filesystem::remove(path);  // truncating instead makes some file systems wait for the disk
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// Writes the file cut off at every byte to `path`: `read` must throw an Error that names the file, each time.
inline void check_truncation(const Path& path, const std::string& bytes, const std::function<void()>& read) {
  for (size_t length = 0; length < bytes.size(); ++length) {
    overwrite(path, bytes.substr(0, length));
    const std::string message = error_of(read);
    INFO("cut off at byte ", length, ": ", message);
    REQUIRE(message.starts_with(path.string()));
  }
}

/// Flips each bit, and sets each byte to 0 and 255: `read` must succeed or throw an Error that names the file. Returns
/// how often it threw.
inline int64_t check_damage(const Path& path, const std::string& bytes, const std::function<void()>& read) {
  int64_t errors = 0;
  for (size_t at = 0; at < bytes.size(); ++at)
    for (int change = 0; change < 10; ++change) {
      std::string damaged = bytes;
      damaged[at] = change < 8 ? static_cast<char>(bytes[at] ^ (1 << change)) : change == 8 ? '\0' : '\xff';
      if (damaged == bytes) continue;
      overwrite(path, damaged);
      const std::string message = error_of(read);
      INFO("byte ", at, ", change ", change, ": ", message);
      REQUIRE((message.empty() || message.starts_with(path.string())));
      errors += !message.empty();
    }
  return errors;
}

}  // namespace lightcone::test
