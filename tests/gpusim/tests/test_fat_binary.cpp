#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gpusim/error.h"
#include "gpusim/ptx/fat_binary.h"

using gpusim::Error;
using gpusim::ptx::Image;
using gpusim::ptx::images;

namespace {

// Bytes as fatbinary writes them, from what is known of the layout: all numbers are little-endian.
struct Bytes {
  std::string data;

  template <class T>
  Bytes& put(T value) {
    data.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
};

struct Content {
  uint16_t kind = 1;  // 1: PTX, 2: SASS
  uint32_t target = 80;
  std::string bytes;
  uint64_t flags = 0x11;
  uint32_t compressed = 0;
  uint32_t header = 80;
};

std::string fat_binary(const std::vector<Content>& contents) {
  Bytes entries;
  for (const Content& c : contents) {
    entries.put(c.kind).put<uint16_t>(0x101).put(c.header).put(uint64_t(c.bytes.size()));
    entries.put(c.compressed).put<uint32_t>(0).put<uint16_t>(0).put<uint16_t>(9).put(c.target);
    entries.put<uint32_t>(0).put<uint32_t>(0).put(c.flags).put<uint64_t>(0).put<uint64_t>(0);
    entries.data += std::string(c.header - 64, '\0') + c.bytes;
  }
  Bytes all;
  all.put<uint32_t>(0xba55ed50).put<uint16_t>(1).put<uint16_t>(16).put(uint64_t(entries.data.size()));
  return all.data + entries.data;
}

struct Wrapper {
  uint32_t magic = 0x466243b1, version = 1;
  const void* data = nullptr;
  const void* linked = nullptr;
};

std::vector<Image> read(const std::string& bytes) {
  const Wrapper wrapper{.data = bytes.data()};
  return images(&wrapper);
}

std::string error_of(const std::string& bytes) {
  try {
    read(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool holds(const std::string& text, const char* part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("fat binary: PTX among machine code") {
  const std::string sass(
      "\x7f"
      "ELF\0\1",
      6);
  const auto found = read(fat_binary({{.kind = 2, .bytes = sass, .header = 64},
                                      {.target = 80, .bytes = std::string("first\n\0\0", 8)},
                                      {.kind = 2, .target = 90, .bytes = sass},
                                      {.target = 90, .bytes = "second", .header = 96}}));
  REQUIRE(found.size() == 2);
  CHECK(found[0].target == 80);
  CHECK(found[0].text == "first\n");
  CHECK(found[1].target == 90);
  CHECK(found[1].text == "second");
}

TEST_CASE("fat binary: compressed PTX is passed over, or named where there is no other") {
  const Content zstd{.target = 90, .bytes = "(\xb5/\xfd", .flags = 0x8011, .compressed = 4};
  const Content lz4{.target = 90, .bytes = "....", .flags = 0x2011};
  CHECK(holds(error_of(fat_binary({zstd})), "-no-compress"));
  CHECK(holds(error_of(fat_binary({lz4})), "-no-compress"));
  const auto found = read(fat_binary({zstd, {.bytes = "text"}, lz4}));
  REQUIRE(found.size() == 1);
  CHECK(found[0].text == "text");
}

TEST_CASE("fat binary: without PTX") {
  CHECK(holds(error_of(fat_binary({})), "no PTX"));
  CHECK(holds(error_of(fat_binary({{.kind = 2, .bytes = "ELF"}})), "no PTX"));
}

TEST_CASE("fat binary: unknown layouts") {
  const std::string good = fat_binary({{.bytes = "text"}});
  CHECK(read(good).size() == 1);

  Wrapper wrapper{.data = good.data()};
  wrapper.magic = 1;
  CHECK_THROWS_AS(images(&wrapper), Error);
  wrapper = {.version = 2, .data = good.data()};
  CHECK_THROWS_WITH_AS(images(&wrapper), doctest::Contains("-rdc"), Error);

  const auto with = [&](size_t at, auto value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return error_of(bytes);
  };
  CHECK(holds(with(0, uint32_t{7}), "unknown header"));
  CHECK(holds(with(4, uint16_t{2}), "version 2"));
  CHECK(holds(with(6, uint16_t{8}), "unknown header"));
  for (const uint32_t header : {0u, 63u, 85u, ~0u}) CHECK(holds(with(20, header), "does not fit"));
  for (const uint64_t bytes : {uint64_t{5}, ~uint64_t{0}, ~uint64_t{0} - 79}) CHECK(holds(with(24, bytes), "does not"));
}

TEST_CASE("fat binary: cut short anywhere is an error") {
  const std::string good = fat_binary({{.bytes = "text"}});
  for (uint64_t size = 0; size < good.size() - 16; ++size) {
    std::string bytes = good.substr(0, 16 + size);  // what lies beyond must not be read
    std::memcpy(bytes.data() + 8, &size, sizeof size);
    CHECK_MESSAGE(!error_of(bytes).empty(), size);
  }
}
