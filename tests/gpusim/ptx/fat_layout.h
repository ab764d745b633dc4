#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

#include "gpusim/error.h"

namespace gpusim::ptx {

// Fat binaries as CUDA 11 to 13 write them: one header, which the entries follow.

struct FatHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t bytes;  // of all entries
};
constexpr uint32_t fat_magic = 0xba55ed50;

struct FatEntry {
  uint16_t kind;
  uint16_t version;
  uint32_t header_bytes;
  uint64_t bytes;  // of what follows the entry's header
  uint32_t compressed_bytes;
  uint32_t options_offset;
  uint16_t minor, major;
  uint32_t target;
  uint32_t name_offset, name_bytes;
  uint64_t flags;
  uint64_t unknown;
  uint64_t plain_bytes;  // once decompressed

  bool compressed() const { return (flags & (0x2000 | 0x8000)) != 0 || compressed_bytes != 0; }  // LZ4, Zstandard
};
static_assert(sizeof(FatHeader) == 16 && sizeof(FatEntry) == 64);
constexpr uint16_t kind_ptx = 1, kind_machine_code = 2;

template <class T>
T read(std::string_view bytes, uint64_t at = 0) {
  if (bytes.size() < at || bytes.size() - at < sizeof(T)) fail("fat binary: an image is cut short");
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

/// f(entry, content) for all entries in what follows a header.
template <class F>
void for_each_entry(std::string_view rest, F&& f) {
  while (!rest.empty()) {
    const auto entry = read<FatEntry>(rest);
    if (entry.header_bytes < sizeof entry || entry.header_bytes > rest.size() ||
        entry.bytes > rest.size() - entry.header_bytes)
      fail("fat binary: an image of {} bytes does not fit", entry.bytes);
    f(entry, rest.substr(entry.header_bytes, entry.bytes));
    rest.remove_prefix(entry.header_bytes + entry.bytes);
  }
}

}  // namespace gpusim::ptx
