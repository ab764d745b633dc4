// The readers against damaged files, without a fuzzer: what it once found, its seeds cut off or damaged at every byte,
// and depths and lengths that no honest file has. A target returns or this program ends (tests/fuzz/targets.h).
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "tests/fuzz/targets.h"

using namespace lightcone;
namespace fs = std::filesystem;

namespace {

const Path root = LIGHTCONE_SOURCE_DIR, seeds = root / "tests/fuzz/seeds", formats = root / "tests/golden/formats";

struct Target {
  std::string name;
  void (*run)(Bytes);
  std::vector<Path> files;  // small ones that the reader accepts
};
const Target targets[] = {
    {"safetensors", fuzz::safetensors, {formats / "python.safetensors"}},
    {"npy", fuzz::npy, {formats / "v1.npy", formats / "v2.npy"}},
    {"npz", fuzz::npz, {formats / "small.npz"}},
    {"toml", fuzz::toml, {seeds / "toml/every_syntax.toml"}},
    {"overrides", fuzz::overrides, {seeds / "overrides/10", seeds / "overrides/11"}},
};

void run(const Target& target, const std::string& bytes) {
  target.run({reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()});
}

const Target& target(const std::string& name) {
  return *std::find_if(std::begin(targets), std::end(targets), [&](auto& t) { return t.name == name; });
}

}  // namespace

TEST_CASE("fuzz: what was found once") {
  for (const Target& target : targets) {
    const Path folder = root / "tests/fuzz/regressions" / target.name;
    int files = 0;
    for (const auto& file : fs::directory_iterator(folder)) {
      INFO(file.path().string());
      CHECK_NOTHROW(run(target, read_file(file.path())));
      ++files;
    }
    CHECK_MESSAGE(files > 0, folder.string());
  }
}

TEST_CASE("fuzz: real files cut off at every byte, and with every byte damaged") {
  for (const Target& target : targets)
    for (const Path& file : target.files) {
      const std::string bytes = read_file(file);
      REQUIRE(!bytes.empty());
      for (size_t at = 0; at < bytes.size(); ++at) {
        INFO(file.string(), ", byte ", at);
        REQUIRE_NOTHROW(run(target, bytes.substr(0, at)));
        for (unsigned char change : {0x01, 0x80}) {
          std::string damaged = bytes;
          damaged[at] = static_cast<char>(damaged[at] ^ change);
          REQUIRE_NOTHROW(run(target, damaged));
        }
      }
    }
}

TEST_CASE("fuzz: depths and lengths that no honest file has") {
  for (const char* open : {"[", "{a:", "{", "'", "\"", "[[", "a.", "[{", "${", "\\", "\n"})
    for (size_t n : {65, 1000, 60000}) {
      std::string many;
      while (many.size() < n) many += open;
      for (const char* start : {"", "a=", "a = ", "[", "a = [\n"}) {
        INFO(n, " bytes of ", start, open);
        CHECK_NOTHROW(run(target("toml"), start + many));
        CHECK_NOTHROW(run(target("overrides"), start + many));
      }
    }
  const auto little_endian = [](uint64_t n, int bytes) {
    return std::string(reinterpret_cast<const char*>(&n), static_cast<size_t>(bytes));
  };
  for (uint64_t n : {uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{7}}) {
    INFO(n);
    CHECK_NOTHROW(run(target("safetensors"), little_endian(n, 8) + "{}"));
    CHECK_NOTHROW(run(target("npy"), "\x93NUMPY\x02" + std::string(1, '\0') + little_endian(n, 4) + "{}"));
    // Each of the sizes and offsets of a zip file in turn.
    const std::string zip = read_file(formats / "small.npz");
    for (size_t at = 0; at + 4 <= zip.size(); ++at) {
      std::string lying = zip;
      lying.replace(at, 4, little_endian(n, 4));
      REQUIRE_NOTHROW(run(target("npz"), lying));
    }
  }
}

TEST_CASE("fuzz: a target lets through what it should not") {
  CHECK_THROWS_AS(fuzz::allows_errors([] { throw std::bad_alloc(); }), std::bad_alloc);
  CHECK_THROWS_AS(fuzz::with_guards({}, [](Context& ctx) { ctx.empty({1 << 20}, DType::f32); }), std::logic_error);
  CHECK_THROWS_AS(fuzz::with_guards({}, [](Context& ctx) { ctx.empty({1}, DType::i8).data<int8_t>()[1] = 1; }),
                  std::logic_error);
  CHECK(fuzz::allows_errors([] {}));
  CHECK(!fuzz::allows_errors([] { throw Error("as it may"); }));
}
