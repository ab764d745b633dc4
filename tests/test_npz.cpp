#include "engine/npz.h"

#include <doctest/doctest.h>

#include <cstring>

#include "tests/support/bits.h"
#include "tests/support/damage.h"
#include "tests/support/scratch_folder.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
const Path golden = Path(LIGHTCONE_SOURCE_DIR) / "tests/golden/formats";

Tensor counting(Context& ctx, DType dtype) {
  std::vector<double> values(24);
  for (int i = 0; i < 24; ++i) values[i] = i;
  return ctx.of({2, 3, 4}, dtype, values);
}
std::string npy(const std::string& header, size_t data, char version = 1) {
  const uint32_t length = static_cast<uint32_t>(header.size());
  return std::string("\x93NUMPY") + version + '\0' +
         std::string(reinterpret_cast<const char*>(&length), version == 1 ? 2 : 4) + header + std::string(data, '\0');
}
/// Sets a little-endian number.
template <class T>
void put(std::string& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}
}  // namespace

TEST_CASE("npz: arrays written by NumPy, stored and deflated") {
  Context ctx(1);
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    INFO(name);
    const Npz file(golden / name);
    for (auto [key, dtype] : {std::pair{"f8", DType::f64},
                              {"f4", DType::f32},
                              {"f2", DType::f16},
                              {"i1", DType::i8},
                              {"i4", DType::i32},
                              {"i8", DType::i64}}) {
      INFO(key);
      CHECK(same_bits(file.load(ctx, key), counting(ctx, dtype)));
    }
    CHECK(same_bits(file.load(ctx, "fortran"), counting(ctx, DType::i32)));
    const Tensor b = file.load(ctx, "b1");
    for (int i = 0; i < 24; ++i) CHECK(b.data<bool>()[i] == (i % 3 == 0));
    CHECK(file.load(ctx, "scalar").item() == 2.5);
    CHECK(file.load(ctx, "empty").shape() == Shape{0, 4});
    CHECK(file.load(ctx, "one").data<int32_t>()[4] == 4);
    for (const char* key : {"u1", "i2", "big", "c16", "text", "records", "seven"}) {
      INFO(key);
      const std::string message = error_of([&] { file.open(key); });
      CHECK(message.starts_with((golden / name).string() + ": " + key + ".npy: byte 10"));
      CHECK(message.find(std::string(key) == "seven" ? "7 axes"
                         : std::string(key) == "records"
                             ? "records are not read"
                             : "expected f8, f4, f2, i1, i4, i8 or b1") != std::string::npos);
    }
    check_error([&] { file.open("x"); }, "has no array 'x', only f8, f4");
    CHECK(file.has("f8"));
    CHECK(!file.has("f8.npy"));
  }
}

TEST_CASE("npz: entries stream, several at once, and outlive the archive") {
  Context ctx(1);
  auto file = std::make_unique<Npz>(golden / "deflated.npz");
  NpyReader a = file->open("f8"), b = file->open("f4"), fortran = file->open("fortran");
  file.reset();
  double x[5];
  float y[24];
  for (int part = 0; part < 4; ++part) {
    a.read<double>(x);
    CHECK(x[4] == 5 * part + 4);
  }
  b.read<float>(y);
  CHECK(y[23] == 23);
  a.read<double>(std::span(x, 4));
  CHECK(x[3] == 23);
  CHECK(error_of([&] { a.read<double>(std::span(x, 1)); }).find("8 bytes expected, the entry has 0 left") !=
        std::string::npos);
  CHECK(error_of([&] { b.read<double>(x); }) != "");
  int32_t z[1];
  check_error([&] { fortran.read<int32_t>(z); }, "Fortran order");
}

TEST_CASE("npy: versions 1 to 3, and ours come back as they were") {
  ScratchFolder folder;
  Context ctx(1);
  for (const char* name : {"v1.npy", "v2.npy", "v3.npy"})
    CHECK(same_bits(load_npy(ctx, golden / name), counting(ctx, DType::f32)));
  // The same bytes as NumPy's.
  save_npy(folder / "x.npy", counting(ctx, DType::f32));
  CHECK(read_file(folder / "x.npy") == read_file(golden / "v1.npy"));
  std::vector<std::pair<std::string, Tensor>> arrays;
  for (DType d : {DType::f64, DType::f32, DType::f16, DType::i8, DType::i32, DType::i64, DType::boolean}) {
    const std::string name(name_of(d));
    const Tensor t = ctx.of({3}, d, std::vector<double>{1, 0, 1});
    for (const auto& [key, array] :
         {std::pair{name, t}, {name + "0", t.narrow(0, 0)}, {name + "s", t.narrow(2, 1).reshape({})}}) {
      save_npy(folder / "a.npy", array);
      CHECK(same_bits(load_npy(ctx, folder / "a.npy"), array));
      arrays.emplace_back(key, array);
    }
  }
  save_npz(folder / "a.npz", arrays);
  const Npz file(folder / "a.npz");
  CHECK(file.names().size() == arrays.size());
  for (const auto& [key, array] : arrays) CHECK(same_bits(file.load(ctx, key), array));
  save_npz(folder / "b.npz", arrays);
  CHECK(read_file(folder / "a.npz") == read_file(folder / "b.npz"));
  save_npz(folder / "none.npz", {});
  CHECK(Npz(folder / "none.npz").names().empty());

  const Tensor t = ctx.zeros({1}, DType::bf16);
  CHECK(error_of([&] { save_npy(folder / "c.npy", t); }) ==
        "npy: bf16 cannot be written, NumPy has no such type; cast to f32");
  CHECK(error_of([&] { save_npz(folder / "c.npz", {{"a", arrays[0].second}, {"a", t}}); }) != "");
  CHECK(!std::filesystem::exists(folder / "c.npy"));
  CHECK(!std::filesystem::exists(folder / "c.npz"));
}

TEST_CASE("npy: headers that are wrong") {
  ScratchFolder folder;
  Context ctx(1);
  const Path path = folder / "x.npy";
  auto rejects = [&](const std::string& bytes, const char* part) {
    overwrite(path, bytes);
    check_error([&] { load_npy(ctx, path); }, part, path.string() + ": byte ");
  };
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n";
  overwrite(path, npy(good, 4));
  CHECK(load_npy(ctx, path).item() == 0);
  rejects(npy(good, 3), "needs 4 bytes of data, 3 are here");
  rejects(npy(good, 5), "5 are here");
  rejects("not an array", "no npy array");
  rejects(npy(good, 4, 4), "npy version 4.0");
  rejects(npy("", 0), "character 0, expected '{'");
  rejects(npy("{", 0), "expected a text");
  rejects(npy("{'descr': '<f4", 0), "the end of this text");
  rejects(npy("{'descr': '<f4', 'fortran_order': 0, 'shape': ()}", 4), "True or False");
  rejects(npy("{'descr': '<f4', 'fortran_order': False}", 4), "all of descr");
  rejects(npy("{'descr': '<f4', 'descr': '<f4'}", 4), "one 'descr'");
  rejects(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}", 4), "not 'x'");
  rejects(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 4), "a non-negative integer");
  rejects(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999,)}", 4),
          "a non-negative integer");
  rejects(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296)}", 4), "too many elements");
  rejects(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", 4), "needs 4000000000000 bytes");
  rejects(npy(good + "x", 4), "the end of the header");
  std::string bools = npy("{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}", 3);
  bools[bools.size() - 1] = 7;
  rejects(bools, "value 2 from here is 7 where a bool");
}

TEST_CASE("npy and npz: a file cut off or damaged at any byte never crashes or allocates a lot") {
  ScratchFolder folder;
  Context ctx(1);
  const Tensor t = counting(ctx, DType::f32);
  save_npy(folder / "x.npy", t);
  auto read_npy = [&] { load_npy(ctx, folder / "x.npy"); };
  std::string bytes = read_file(folder / "x.npy");
  check_truncation(folder / "x.npy", bytes, read_npy);
  CHECK(check_damage(folder / "x.npy", bytes, read_npy) > 500);

  const Path path = folder / "x.npz";
  auto read_npz = [&] {
    const Npz file(path);
    for (const auto& name : file.names()) file.load(ctx, name);
  };
  save_npz(path, {{"a", t}, {"empty", t.narrow(0, 0)}});
  bytes = read_file(path);
  check_truncation(path, bytes, read_npz);
  CHECK(check_damage(path, bytes, read_npz) > 2000);
  CHECK(ctx.allocator().statistics().peak < 100000);
}

TEST_CASE("npz: a deflated file cut off or damaged anywhere") {
  ScratchFolder folder;
  Context ctx(1);
  const Path path = folder / "x.npz";
  const std::string bytes = read_file(golden / "small.npz");
  overwrite(path, bytes);
  auto read = [&] {
    const Npz file(path);
    for (const auto& name : file.names()) file.load(ctx, name);
  };
  read();
  check_truncation(path, bytes, read);
  // Damage in the compressed bytes is found by zlib or by the checksum; only unused fields may pass.
  CHECK(check_damage(path, bytes, read) > 2000);
  CHECK(ctx.allocator().statistics().peak < 100000);
}

TEST_CASE("npz: damage in the data is found by the checksum") {
  ScratchFolder folder;
  Context ctx(1);
  const Path path = folder / "x.npz";
  save_npz(path, {{"a", counting(ctx, DType::f32)}});
  std::string bytes = read_file(path);
  bytes[30 + 5 + 128 + 50] ^= 1;
  overwrite(path, bytes);
  check_error([&] { Npz(path).load(ctx, "a"); }, "checksum");
}

TEST_CASE("npz: sizes in zip64 fields, sizes that deflate cannot reach, what is not read") {
  ScratchFolder folder;
  Context ctx(1);
  const Path path = folder / "x.npz";
  save_npz(path, {{"a", counting(ctx, DType::f32)}});
  const std::string plain = read_file(path);
  const size_t directory = plain.find("PK\x01\x02"), end = plain.find("PK\x05\x06");
  const uint32_t size = 128 + 96;

  // The same archive with its sizes and offset in a zip64 field, and a zip64 end record.
  std::string entry = plain.substr(directory, end - directory);
  put<uint16_t>(entry, 30, 28);
  for (size_t at : {20, 24, 42}) put<uint32_t>(entry, at, 0xffffffff);
  std::string field(28, '\0');
  put<uint16_t>(field, 0, 1);
  put<uint16_t>(field, 2, 24);
  put<uint64_t>(field, 4, size);
  put<uint64_t>(field, 12, size);
  std::string end64(56 + 20, '\0');
  put<uint32_t>(end64, 0, 0x06064b50);
  put<uint64_t>(end64, 4, 44);
  put<uint64_t>(end64, 32, 1);
  put<uint64_t>(end64, 40, entry.size() + field.size());
  put<uint64_t>(end64, 48, directory);
  put<uint32_t>(end64, 56, 0x07064b50);
  put<uint64_t>(end64, 64, directory + entry.size() + field.size());
  std::string tail = plain.substr(end);
  put<uint32_t>(tail, 12, 0xffffffff);
  put<uint32_t>(tail, 16, 0xffffffff);
  auto archive = [&] { return plain.substr(0, directory) + entry + field + end64 + tail; };
  overwrite(path, archive());
  CHECK(same_bits(Npz(path).load(ctx, "a"), counting(ctx, DType::f32)));
  check_damage(path, archive(), [&] { Npz(path).load(ctx, "a"); });

  auto rejects = [&](const std::string& bytes, const char* part) {
    overwrite(path, bytes);
    check_error([&] { Npz(path).load(ctx, "a"); }, part, path.string());
  };
  put<uint16_t>(entry, 10, 8);  // deflate, and 2^40 bytes
  put<uint64_t>(field, 4, uint64_t{1} << 40);
  rejects(archive(), "cannot have 1099511627776 bytes in 224 of the file");
  std::string changed = plain;
  put<uint16_t>(changed, directory + 8, 1);
  rejects(changed, "encrypted");
  changed = plain;
  put<uint16_t>(changed, directory + 10, 12);
  rejects(changed, "compressed by method 12");
  changed = plain;
  changed[30] = 'b';  // the local name
  rejects(changed, "another one is here");
  rejects("", "no end of a zip directory");
  rejects("PK", "no end of a zip directory");
  // A comment at the end is allowed.
  changed = plain + "a comment";
  put<uint16_t>(changed, plain.size() - 2, 9);
  overwrite(path, changed);
  CHECK(same_bits(Npz(path).load(ctx, "a"), counting(ctx, DType::f32)));
}
