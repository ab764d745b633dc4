#include "gpusim/ptx/fat_binary.h"

#include "gpusim/ptx/fat_layout.h"

namespace gpusim::ptx {
namespace {

// In the host object, points to the header.
struct Wrapper {
  uint32_t magic;
  uint32_t version;
  const char* data;
  const void* linked;
};
constexpr uint32_t wrapper_magic = 0x466243b1, wrapper_version = 1;  // 2: device code linked apart (-rdc=true)

}  // namespace

/// What follows the header.
std::string_view entries_of(const void* fat_binary_wrapper) {
  Wrapper wrapper;
  std::memcpy(&wrapper, fat_binary_wrapper, sizeof wrapper);
  if (wrapper.magic != wrapper_magic) fail("fat binary: unknown wrapper 0x{:08x}", wrapper.magic);
  if (wrapper.version != wrapper_version)
    fail("fat binary: wrapper version {}; relocatable device code (-rdc=true) is not supported", wrapper.version);
  FatHeader header;
  std::memcpy(&header, wrapper.data, sizeof header);
  if (header.magic != fat_magic || header.version != 1 || header.header_bytes < sizeof header)
    fail("fat binary: unknown header 0x{:08x}, version {}", header.magic, header.version);
  return {wrapper.data + header.header_bytes, header.bytes};
}

std::vector<Image> images(const void* fat_binary_wrapper) {
  std::vector<Image> found;
  bool compressed = false;
  for_each_entry(entries_of(fat_binary_wrapper), [&](const FatEntry& entry, std::string_view content) {
    if (entry.kind != kind_ptx) return;
    if (entry.compressed())
      compressed = true;
    else
      found.push_back({int(entry.target), std::string(content.substr(0, content.find('\0')))});
  });
  if (found.empty() && compressed) fail("fat binary: its PTX is compressed; build it with nvcc -no-compress");
  if (found.empty()) fail("fat binary: no PTX; build it with nvcc -gencode arch=compute_80,code=compute_80 or similar");
  return found;
}

}  // namespace gpusim::ptx
