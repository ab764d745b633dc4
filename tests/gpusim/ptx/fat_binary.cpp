#include "gpusim/ptx/fat_binary.h"

#include <cstdint>
#include <cstring>
#include <string_view>

#include "gpusim/error.h"

namespace gpusim::ptx {
namespace {

// The layout as CUDA 11 to 13 write it: a wrapper in the host object points to one header, which the entries follow.
struct Wrapper {
  uint32_t magic;
  uint32_t version;
  const char* data;
  const void* linked;
};
constexpr uint32_t wrapper_magic = 0x466243b1, wrapper_version = 1;  // 2: device code linked apart (-rdc=true)

struct Header {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t bytes;  // of all entries
};
constexpr uint32_t header_magic = 0xba55ed50;

struct Entry {
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
};
static_assert(sizeof(Header) == 16 && sizeof(Entry) == 64);
constexpr uint16_t kind_ptx = 1;
constexpr uint64_t compressed_flags = 0x2000 | 0x8000;  // LZ4, Zstandard

template <class T>
T read(std::string_view bytes) {
  if (bytes.size() < sizeof(T)) fail("fat binary: an image is cut short");
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace

std::vector<Image> images(const void* fat_binary_wrapper) {
  Wrapper wrapper;
  std::memcpy(&wrapper, fat_binary_wrapper, sizeof wrapper);
  if (wrapper.magic != wrapper_magic) fail("fat binary: unknown wrapper 0x{:08x}", wrapper.magic);
  if (wrapper.version != wrapper_version)
    fail("fat binary: wrapper version {}; relocatable device code (-rdc=true) is not supported", wrapper.version);
  Header header;
  std::memcpy(&header, wrapper.data, sizeof header);
  if (header.magic != header_magic || header.version != 1 || header.header_bytes < sizeof header)
    fail("fat binary: unknown header 0x{:08x}, version {}", header.magic, header.version);

  std::vector<Image> found;
  bool compressed = false;
  for (std::string_view rest(wrapper.data + header.header_bytes, header.bytes); !rest.empty();) {
    const auto entry = read<Entry>(rest);
    if (entry.header_bytes < sizeof entry || entry.header_bytes > rest.size() ||
        entry.bytes > rest.size() - entry.header_bytes)
      fail("fat binary: an image of {} bytes does not fit", entry.bytes);
    const std::string_view content = rest.substr(entry.header_bytes, entry.bytes);
    rest.remove_prefix(entry.header_bytes + entry.bytes);
    if (entry.kind != kind_ptx) continue;
    if ((entry.flags & compressed_flags) != 0 || entry.compressed_bytes != 0) {
      compressed = true;
      continue;
    }
    found.push_back({int(entry.target), std::string(content.substr(0, content.find('\0')))});
  }
  if (found.empty() && compressed) fail("fat binary: its PTX is compressed; build it with nvcc -no-compress");
  if (found.empty()) fail("fat binary: no PTX; build it with nvcc -gencode arch=compute_80,code=compute_80 or similar");
  return found;
}

}  // namespace gpusim::ptx
