#include "engine/safetensors.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "tests/support/bits.h"
#include "tests/support/damage.h"
#include "tests/support/scratch_folder.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
const Path golden = Path(LIGHTCONE_SOURCE_DIR) / "tests/golden/formats";

/// A file of this header (not padded) and so many zero bytes of data.
std::string file_of(const std::string& header, size_t data = 4) {
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), 8);
  return out + header + std::string(data, '\0');
}
}  // namespace

TEST_CASE("safetensors: every dtype, empty tensors and scalars come back as they were") {
  ScratchFolder folder;
  Context ctx(1);
  std::vector<std::pair<std::string, Tensor>> tensors;
  const std::vector<double> values = {0, 1, -2, 0.5, 7, 1};
  for (int d = 0; d <= static_cast<int>(DType::boolean); ++d) {
    const DType dtype = static_cast<DType>(d);
    const std::string name(name_of(dtype));
    tensors.emplace_back(name, ctx.of({2, 3}, dtype, values));
    tensors.emplace_back(name + "/empty", ctx.empty({4, 0}, dtype));
    tensors.emplace_back(name + "/scalar", ctx.of({}, dtype, std::vector<double>{1}));
    tensors.emplace_back(name + "/part", tensors[tensors.size() - 3].second.narrow(1, 1));
  }
  tensors.emplace_back("six", ctx.zeros({1, 2, 1, 2, 1, 2}, DType::f32));
  const std::map<std::string, std::string> metadata = {{"commit", "abc"}, {"dtype", "a \"text\"\nΛ"}};
  save_safetensors(folder / "a.safetensors", tensors, metadata);

  const Safetensors file(folder / "a.safetensors");
  CHECK(file.metadata() == metadata);
  CHECK(file.names().size() == tensors.size());
  for (const auto& [name, t] : tensors) {
    INFO(name);
    CHECK(file.has(name));
    CHECK(same_bits(file.load(ctx, name), t));
    CHECK(file.info(name).begin % size_of(t.dtype()) == 0);
  }
  CHECK((read_file(folder / "a.safetensors")[0] & 7) == 0);  // so the data is aligned to 8
  save_safetensors(folder / "b.safetensors", tensors, metadata);
  CHECK(read_file(folder / "a.safetensors") == read_file(folder / "b.safetensors"));

  save_safetensors(folder / "none.safetensors", {});
  CHECK(Safetensors(folder / "none.safetensors").names().empty());
}

TEST_CASE("safetensors: a file written by Python") {
  Context ctx(1);
  const Safetensors file(golden / "python.safetensors");
  CHECK(file.metadata() == std::map<std::string, std::string>{{"kind", "test"}, {"µ", "Λ \"x\""}});
  const std::vector<double> x = {0, 1, -1.5, 2, 448, -0.015625};
  for (auto [name, dtype] : {std::pair{"f64", DType::f64},
                             {"f32", DType::f32},
                             {"bf16", DType::bf16},
                             {"f16", DType::f16},
                             {"e4m3", DType::fp8_e4m3},
                             {"e5m2", DType::fp8_e5m2}}) {
    INFO(name);
    CHECK(same_bits(file.load(ctx, name), ctx.of({2, 3}, dtype, x)));
  }
  CHECK(same_bits(file.load(ctx, "i8"), ctx.of({3}, DType::i8, std::vector<double>{-128, 0, 127})));
  CHECK(same_bits(file.load(ctx, "i32"), ctx.of({2}, DType::i32, std::vector<double>{-2147483648.0, 2147483647.0})));
  CHECK(file.load(ctx, "i64").data<int64_t>()[0] == INT64_MIN);
  CHECK(file.load(ctx, "i64").data<int64_t>()[1] == INT64_MAX);
  CHECK(same_bits(file.load(ctx, "bool"), ctx.of({3}, DType::boolean, std::vector<double>{1, 0, 1})));
  CHECK(file.load(ctx, "empty").shape() == Shape{0, 3});
  CHECK(file.load(ctx, "scalar").item() == 2.5);
  CHECK(file.info("u8").type == "U8");
  CHECK(
      error_of([&] { file.load(ctx, "u8"); }).ends_with("'u8' has elements of type U8, which Lightcone does not read"));
  CHECK(error_of([&] { file.load(ctx, "seven"); }).ends_with("'seven' has 7 axes, at most 6 are possible"));
  check_error([&] { file.load(ctx, "scaler"); }, "scalar");
}

TEST_CASE("safetensors: a header that is wrong anywhere is an Error that says where") {
  ScratchFolder folder;
  const Path path = folder / "x.safetensors";
  auto rejects = [&](const std::string& bytes, const char* part) {
    overwrite(path, bytes);
    check_error([&] { Safetensors file(path); }, part, path.string());
  };
  rejects("", "byte 0: ends inside");
  rejects(std::string(8, '\xff'), "byte 0: a header of 18446744073709551615 bytes in a file of 8");
  rejects(std::string(1, 3) + std::string(7, 0) + "{}", "a header of 3 bytes");
  rejects(file_of("[]"), "byte 8");
  rejects(file_of(" {}"), "byte 8");
  rejects(file_of("{"), "not valid JSON");
  rejects(file_of(R"({"a":})"), "byte 13");
  rejects(file_of("{}" + std::string(1, '\0') + "junk"), "byte 10: a zero byte");
  rejects(file_of("{}", 4), "has 4 bytes of data, the header describes 0");
  rejects(file_of(R"({"a":1})"), "'a' has a number where an object is expected");
  rejects(file_of(R"({"a":[]})"), "'a' has a list where an object is expected");
  rejects(file_of(R"({"a":{}})"), "'a' has no 'dtype'");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[1]}})"), "has no 'data_offsets'");
  rejects(file_of(R"({"a":{"dtype":1}})"), "a number where a text is expected");
  rejects(file_of(R"({"a":{"shape":"1"}})"), "a text where a list is expected");
  rejects(file_of(R"({"a":{"shape":[-1]}})"), "-1 where a non-negative integer is expected");
  rejects(file_of(R"({"a":{"shape":[1.5]}})"), "1.5 where a non-negative");
  rejects(file_of(R"({"a":{"shape":[1e400]}})"), "byte");
  rejects(file_of(R"({"a":{"shape":[99999999999999999999]}})"), "where a non-negative integer");
  rejects(file_of(R"({"a":{"shape":[[1]]}})"), "a list where a non-negative");
  rejects(file_of(R"({"a":{"shape":[18446744073709551615]}})"), "too large");
  rejects(file_of(R"({"a":{"other":[1]}})"), "unknown field 'other'");
  rejects(file_of(R"({"a":{"dtype":{}}})"), "an object where");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})"), "has 1 data_offsets");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})"), "before its begin");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})"), "needs 8 bytes, but it has 4");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})"), "too many");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "begins at byte 4 of the data");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                  6),
          "begins at byte 2");
  rejects(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5), "has 5 bytes of data");
  const std::string a = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  rejects(file_of("{" + a + "," + a + "}"), "'a' stands there twice");
  rejects(file_of(R"({"a":{"dtype":"F32","dtype":"F32"}})"), "'dtype' twice");
  rejects(file_of(R"({"__metadata__":{"x":1}})"), "a number where a text");
  rejects(file_of(R"({"__metadata__":{"x":{}}})"), "an object where a text");
  rejects(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "twice");
  rejects(file_of("{\"a" + std::string(100000, '[')), "byte");
  rejects(file_of("{\"a\":" + std::string(100000, '{')), "byte");
  check_error([&] { Safetensors file(folder / "none"); }, "No such file");
  check_error([&] { Safetensors file(folder.path()); }, "is a folder");
}

TEST_CASE("safetensors: unknown element types are only an Error if asked for; a bool must be 0 or 1") {
  ScratchFolder folder;
  Context ctx(1);
  overwrite(folder / "x", file_of(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2));
  check_error([&] { Safetensors(folder / "x").load(ctx, "a"); }, "type F4");
  std::string bools = file_of(R"({"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}})", 3);
  bools[bools.size() - 2] = 2;
  overwrite(folder / "y", bools);
  CHECK(error_of([&] {
          Safetensors(folder / "y").load(ctx, "a");
        }).ends_with(fmt::format("byte {}: 'a' holds 2 where a bool, 0 or 1, is expected", bools.size() - 2)));
}

TEST_CASE("safetensors: a file cut off or damaged at any byte never crashes") {
  ScratchFolder folder;
  Context ctx(1);
  const Path path = folder / "x.safetensors";
  save_safetensors(path, {{"a", ctx.zeros({2}, DType::f32)}, {"b", ctx.zeros({3}, DType::boolean)}}, {{"k", "v"}});
  const std::string bytes = read_file(path);
  auto read = [&] {
    const Safetensors file(path);
    for (const auto& name : file.names()) file.load(ctx, name);
  };
  check_truncation(path, bytes, read);
  CHECK(check_damage(path, bytes, read) > 1000);
  CHECK(ctx.allocator().statistics().peak < 10000);
}

TEST_CASE("safetensors: what cannot be saved") {
  ScratchFolder folder;
  Context ctx(1);
  const Tensor t = ctx.zeros({1}, DType::f32);
  const Path path = folder / "x";
  CHECK(error_of([&] { save_safetensors(path, {{"a", t}, {"a", t}}); }).ends_with("two tensors are named 'a'"));
  CHECK(error_of([&] { save_safetensors(path, {{"__metadata__", t}}); }) != "");
  CHECK(error_of([&] { save_safetensors(path, {{"a", Tensor()}}); }) != "");
  check_error([&] { save_safetensors(path, {{"\xff", t}}); }, "UTF-8");
  CHECK(!std::filesystem::exists(path));
}

TEST_CASE("write_atomic: replaces the whole file, and a failure leaves the old one and nothing else") {
  ScratchFolder folder;
  const Path path = folder / "x";
  write_atomic(path, "old");
  write_atomic(path, "older");
  CHECK(read_file(path) == "older");
  auto files = [&] { return std::distance(std::filesystem::directory_iterator(folder.path()), {}); };

  CHECK(error_of([&] {
          write_atomic(path, [](Writer& out) {
            out.write("new");
            throw Error("stop");
          });
        }) == "stop");
  CHECK(read_file(path) == "older");
  CHECK(files() == 1);

  // A limit on the size of files stands in for a full disk.
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string full = error_of([&] { write_atomic(path, std::string(10000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(full == path.string() + ": cannot be written: File too large; raise the limit (ulimit -f)");
  CHECK(read_file(path) == "older");
  CHECK(files() == 1);

  const Path missing = folder / "no" / "x";
  check_error([&] { write_atomic(missing, "x"); }, "No such file or directory");
  std::filesystem::create_directory(folder / "d");
  CHECK(error_of([&] { write_atomic(folder / "d", "x"); }) != "");  // a folder is in the way
  CHECK(files() == 2);
}

TEST_CASE("files: empty ones, devices") {
  ScratchFolder folder;
  write_atomic(folder / "empty", "");
  CHECK(read_file(folder / "empty").empty());
  CHECK(error_of([] { read_file("/dev/zero"); }) == "/dev/zero: is a device, expected a file");
}
