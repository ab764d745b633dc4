#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <random>
#include <set>

#include "gpusim/machine/instructions/wmma_layout.h"
#include "gpusim/tests/float_reference.h"

namespace gpusim {
namespace {

using Registers = std::vector<std::array<uint64_t, warp_size>>;

/// Runs an instruction on so many registers of so many bytes; what it found wrong is in `fault`.
struct TensorCase {
  ptx::Instruction instruction;
  uint8_t bytes = 4;
  std::string fault = {};

  TensorCase(const std::string& variant, uint8_t register_bytes) : bytes(register_bytes) {
    size_t begin = variant.find('.');
    instruction.opcode = variant.substr(0, begin);
    while (begin != std::string::npos) {
      const size_t end = variant.find('.', begin + 1);
      instruction.modifiers.push_back(variant.substr(begin + 1, end == std::string::npos ? end : end - begin - 1));
      begin = end;
    }
  }
  bool known(size_t operands) const {
    return choose(instruction, std::vector<Shape>(operands, Shape{true, bytes})).run != nullptr;
  }
  Registers run(size_t results, const Registers& inputs, uint32_t mask = all_lanes) {
    tested_variants().insert(instruction.variant());
    const size_t count = results + inputs.size();
    const Choice choice = choose(instruction, std::vector<Shape>(count, Shape{true, bytes}));
    const bool known = choice.run != nullptr;
    REQUIRE(known);
    REQUIRE(choice.bytes == std::vector<uint8_t>(count, bytes));
    struct alignas(64) Register {
      std::byte lanes[warp_size * 8];
    };
    std::vector<Register> memory(count);
    std::vector<Slot> slots(count);
    for (size_t i = 0; i < count; ++i) {
      slots[i] = static_cast<Slot>(i * sizeof(Register));
      for (int l = 0; l < warp_size && i >= results; ++l)
        std::memcpy(memory[i].lanes + l * bytes, &inputs[i - results][l], bytes);
    }
    Op op;
    op.run = choice.run;
    op.immediate = choice.immediate;
    op.operands = slots.data();
    std::copy_n(slots.begin(), std::min<size_t>(count, 5), op.x.begin());
    Lanes lanes;
    lanes.registers = reinterpret_cast<std::byte*>(memory.data());
    lanes.mask = mask;
    op.run(lanes, op);
    fault = lanes.fault ? lanes.fault : "";
    Registers out(results);
    for (size_t i = 0; i < results; ++i)
      for (int l = 0; l < warp_size; ++l) {
        out[i][l] = 0;
        std::memcpy(&out[i][l], memory[i].lanes + l * bytes, bytes);
      }
    return out;
  }
};

/// An element type: its width, a random pattern, and what a pattern is worth.
struct Element {
  std::string name;
  int bits;
  const exact::Format* format = nullptr;  // floats
  bool is_signed = false;
};
constexpr exact::Format e4m3{4, -6, 8, 8, 0x7f}, e5m2{3, -14, 15, 8, 0x7f};
const Element f16{"f16", 16, &exact::f16}, bf16{"bf16", 16, &exact::bf16}, f32{"f32", 32, &exact::f32},
    tf32{"tf32", 32, &exact::f32}, f64{"f64", 64, &exact::f64}, fp8_4{"e4m3", 8, &e4m3}, fp8_5{"e5m2", 8, &e5m2},
    s8{"s8", 8, nullptr, true}, u8{"u8", 8}, s4{"s4", 4, nullptr, true}, u4{"u4", 4}, b1{"b1", 1},
    s32{"s32", 32, nullptr, true};

double value(const Element& type, uint64_t bits) {
  if (!type.format) {
    const int64_t limit = int64_t{1} << type.bits;
    const auto x = static_cast<int64_t>(bits);
    return static_cast<double>(type.is_signed && x >= limit / 2 ? x - limit : x);
  }
  if (type.name == "tf32") bits &= ~uint64_t{0x1fff};
  if (type.name == "e4m3" && (bits & 0x7f) == 0x7f) return NAN;
  const exact::Number x = exact::decode(*type.format, bits);
  return from_bits<double>(exact::encode(exact::f64, x));
}

/// Mostly of ordinary size, so that sums have something to round; sometimes anything.
uint64_t random_pattern(const Element& type, std::mt19937_64& random, bool ordinary) {
  const uint64_t bits = random() & (~uint64_t{0} >> (64 - type.bits));
  if (!type.format || !ordinary) return bits;
  const double x = std::ldexp(1.0 + static_cast<double>(random() % 4096) / 4096, static_cast<int>(random() % 12) - 6);
  return exact::encode(*type.format, exact::number(random() & 1 ? -x : x));
}

using Place_of = std::function<Place(int lane, int element)>;

/// One instruction: where element i (over all registers) of A, B, C is. C also says D.
struct TensorShape {
  std::string name;
  int m, n, k;
  Place_of a, b, c;
};

int group(int lane) { return lane / 4; }
int member(int lane) { return lane % 4; }
Place c16(int l, int i) { return {group(l) + (i < 2 ? 0 : 8), 2 * member(l) + i % 2}; }
Place c8(int l, int i) { return {group(l), 2 * member(l) + i}; }

/// As the ISA has them, for elements of which a register holds so many.
TensorShape m8(int per, const char* name) {
  return {name,
          8,
          8,
          4 * per,
          [=](int l, int i) {
            return Place{group(l), per * member(l) + i};
          },
          [=](int l, int i) {
            return Place{per * member(l) + i, group(l)};
          },
          c8};
}
TensorShape m16_short(int per, const char* name) {
  return {name,
          16,
          8,
          4 * per,
          [=](int l, int i) {
            return Place{i < per ? group(l) : group(l) + 8, per * member(l) + i % per};
          },
          [=](int l, int i) {
            return Place{per * member(l) + i, group(l)};
          },
          c16};
}
TensorShape m16_long(int per, const char* name) {
  const auto in_k = [=](int l, int i) { return per * member(l) + i % per; };
  return {name,
          16,
          8,
          8 * per,
          [=](int l, int i) {
            const bool upper = i < per || (i >= 2 * per && i < 3 * per);
            return Place{upper ? group(l) : group(l) + 8, in_k(l, i) + (i < 2 * per ? 0 : 4 * per)};
          },
          [=](int l, int i) {
            return Place{in_k(l, i) + (i < per ? 0 : 4 * per), group(l)};
          },
          c16};
}
const TensorShape f64_k16{"m16n8k16",
                          16,
                          8,
                          16,
                          [](int l, int i) {
                            return Place{i % 2 == 0 ? group(l) : group(l) + 8, i / 2 * 4 + member(l)};
                          },
                          [](int l, int i) {
                            return Place{4 * i + member(l), group(l)};
                          },
                          c16};

/// wmma's, by the layout that its loads and stores share.
TensorShape wmma_shape(const char* name, int m, int n, int k, const Element& ab, const Element& cd) {
  const auto place_of = [&](Matrix matrix, const Element& type) -> Place_of {
    const Fragment fragment = wmma_fragment(matrix, name, type.name).value();
    return
        [=](int lane, int i) { return fragment.place(lane, i / fragment.per_register(), i % fragment.per_register()); };
  };
  return {name, m, n, k, place_of(Matrix::a, ab), place_of(Matrix::b, ab), place_of(Matrix::c, cd)};
}

/// Fills registers so that they hold the matrix.
Registers fill(const Element& type, const Place_of& place, size_t registers, int columns, int register_bits,
               const std::vector<uint64_t>& matrix) {
  Registers out(registers);
  const int per = register_bits / type.bits;
  for (size_t r = 0; r < registers; ++r)
    for (int l = 0; l < warp_size; ++l) {
      out[r][l] = 0;
      for (int e = 0; e < per; ++e) {
        const Place at = place(l, static_cast<int>(r) * per + e);
        out[r][l] |= matrix.at(at.row * columns + at.column) << (per > 1 ? e * type.bits : 0);
      }
    }
  return out;
}

struct Types {
  Element d, a, b, c;
};
enum class Mode : uint8_t { plain, satfinite, exclusive };

/// The element of D: products one after another, each sum rounded.
uint64_t expected(const Types& t, Mode mode, const TensorShape& s, int row, int column, const std::vector<uint64_t>& a,
                  const std::vector<uint64_t>& b, const std::vector<uint64_t>& c) {
  const uint64_t c_bits = c[row * s.n + column];
  const auto x = [&](int k) { return value(t.a, a[row * s.k + k]); };
  const auto y = [&](int k) { return value(t.b, b[k * s.n + column]); };
  if (!t.a.format) {
    auto sum = static_cast<int64_t>(value(t.c, c_bits));
    for (int k = 0; k < s.k; ++k)
      sum += static_cast<int64_t>(mode == Mode::exclusive ? std::fabs(x(k) - y(k)) : x(k) * y(k));
    if (mode == Mode::satfinite) sum = std::min<int64_t>(std::max<int64_t>(sum, INT32_MIN), INT32_MAX);
    return static_cast<uint32_t>(sum);
  }
  const exact::Format& in_sums = t.a.bits == 64 ? exact::f64 : exact::f32;
  exact::Number sum = exact::decode(*t.c.format, c_bits);
  for (int k = 0; k < s.k; ++k) {
    const exact::Number product = exact::multiply(exact::number(x(k)), exact::number(y(k)));
    sum = exact::decode(in_sums, exact::encode(in_sums, exact::add(product, sum)));
  }
  return exact::encode(*t.d.format, sum);
}

void check_tensor(const std::string& variant, const TensorShape& s, const Types& t, Mode mode = Mode::plain) {
  const int register_bits = t.a.bits == 64 ? 64 : 32;
  TensorCase tensor(variant, static_cast<uint8_t>(register_bits / 8));
  const bool wmma_halves = variant[0] == 'w' && t.a.name == "f16";
  const auto registers = [&](const Element& type, int elements) {
    return static_cast<size_t>(elements * type.bits / (warp_size * register_bits));
  };
  const size_t a_registers = wmma_halves ? 8 : registers(t.a, s.m * s.k);
  const size_t b_registers = wmma_halves ? 8 : registers(t.b, s.k * s.n);
  const size_t c_registers = registers(t.c, s.m * s.n), d_registers = registers(t.d, s.m * s.n);
  std::mt19937_64 random(7);
  for (int round = 0; round < 12; ++round) {
    const bool ordinary = round < 8;
    const auto matrix = [&](const Element& type, int rows, int columns) {
      std::vector<uint64_t> out(static_cast<size_t>(rows * columns));
      for (uint64_t& x : out) x = random_pattern(type, random, ordinary || random() % 8 != 0);
      // Sums of integers near the ends of their range.
      if (type.name == "s32" && round % 2 == 1)
        for (uint64_t& x : out) x = (random() & 1 ? 0x7fffff00 : 0x80000000) + random() % 256;
      return out;
    };
    const auto a = matrix(t.a, s.m, s.k), b = matrix(t.b, s.k, s.n), c = matrix(t.c, s.m, s.n);
    Registers inputs = fill(t.a, s.a, a_registers, s.k, register_bits, a);
    for (const auto& r : fill(t.b, s.b, b_registers, s.n, register_bits, b)) inputs.push_back(r);
    for (const auto& r : fill(t.c, s.c, c_registers, s.n, register_bits, c)) inputs.push_back(r);
    const Registers out = tensor.run(d_registers, inputs);
    REQUIRE(tensor.fault.empty());
    const int per = register_bits / t.d.bits;
    for (size_t r = 0; r < d_registers; ++r)
      for (int l = 0; l < warp_size; ++l)
        for (int e = 0; e < per; ++e) {
          const Place at = s.c(l, static_cast<int>(r) * per + e);
          const uint64_t got = (out[r][l] >> (per > 1 ? e * t.d.bits : 0)) & (~uint64_t{0} >> (64 - t.d.bits));
          const uint64_t want = expected(t, mode, s, at.row, at.column, a, b, c);
          const bool both_nan =
              t.d.bits == 64 && std::isnan(from_bits<double>(want)) && std::isnan(from_bits<double>(got));
          if (got == want || both_nan) continue;
          const std::string message =
              fmt::format("{} row {} column {}: {:#x}, expected {:#x}", variant, at.row, at.column, got, want);
          FAIL_CHECK(message);
          return;
        }
  }
  CHECK(tensor.known(d_registers + a_registers + b_registers + c_registers));
  CHECK(!tensor.known(d_registers + a_registers + b_registers + c_registers + 1));
}

std::string mma(const TensorShape& s, const Types& t, const char* before = "", const char* after = "") {
  return fmt::format("mma.sync.aligned.{}.row.col{}.{}.{}.{}.{}{}", s.name, before, t.d.name, t.a.name, t.b.name,
                     t.c.name, after);
}

TEST_CASE("tensor: mma of floats") {
  for (const TensorShape& s : {m16_short(2, "m16n8k8"), m16_long(2, "m16n8k16")}) {
    for (const Element& c : {f16, f32}) check_tensor(mma(s, {c, f16, f16, c}), s, {c, f16, f16, c});
    check_tensor(mma(s, {f32, bf16, bf16, f32}), s, {f32, bf16, bf16, f32});
  }
  for (const TensorShape& s : {m16_short(1, "m16n8k4"), m16_long(1, "m16n8k8")}) {
    check_tensor(mma(s, {f32, tf32, tf32, f32}), s, {f32, tf32, tf32, f32});
    check_tensor(mma(s, {f64, f64, f64, f64}), s, {f64, f64, f64, f64});
  }
  for (const TensorShape& s : {m8(1, "m8n8k4"), f64_k16})
    check_tensor(mma(s, {f64, f64, f64, f64}), s, {f64, f64, f64, f64});
  for (const TensorShape& s : {m16_short(4, "m16n8k16"), m16_long(4, "m16n8k32")})
    for (const Element& a : {fp8_4, fp8_5})
      for (const Element& b : {fp8_4, fp8_5})
        for (const Element& c : {f16, f32}) check_tensor(mma(s, {c, a, b, c}), s, {c, a, b, c});
}

TEST_CASE("tensor: mma of integers") {
  const auto check = [](const TensorShape& s, const Element& a, const Element& b) {
    const Types t{s32, a, b, s32};
    check_tensor(mma(s, t), s, t);
    check_tensor(mma(s, t, ".satfinite"), s, t, Mode::satfinite);
  };
  for (const TensorShape& s : {m8(4, "m8n8k16"), m16_short(4, "m16n8k16"), m16_long(4, "m16n8k32")})
    for (const Element& a : {s8, u8})
      for (const Element& b : {s8, u8}) check(s, a, b);
  for (const TensorShape& s : {m8(8, "m8n8k32"), m16_short(8, "m16n8k32"), m16_long(8, "m16n8k64")})
    for (const Element& a : {s4, u4})
      for (const Element& b : {s4, u4}) check(s, a, b);
  const Types bits{s32, b1, b1, s32};
  for (const TensorShape& s : {m8(32, "m8n8k128"), m16_short(32, "m16n8k128"), m16_long(32, "m16n8k256")}) {
    check_tensor(mma(s, bits, "", ".xor.popc"), s, bits, Mode::exclusive);
    check_tensor(mma(s, bits, "", ".and.popc"), s, bits);
  }
}

TEST_CASE("tensor: wmma") {
  const auto check = [](const char* name, int m, int n, int k, const Types& t, const char* layouts,
                        Mode mode = Mode::plain) {
    // D's layout is C's whatever its type is.
    const TensorShape s = wmma_shape(name, m, n, k, t.a, t.c);
    const std::string types =
        t.a.name == "f16" ? t.d.name + "." + t.c.name : t.d.name + "." + t.a.name + "." + t.b.name + "." + t.c.name;
    check_tensor(fmt::format("wmma.mma{}.sync.aligned.{}.{}.{}{}", t.a.bits == 1 ? ".xor.popc" : "", layouts, name,
                             types, mode == Mode::satfinite ? ".satfinite" : ""),
                 s, t, mode);
  };
  struct Size {
    const char* name;
    int m, n;
  };
  for (const auto& [name, m, n] : {Size{"m16n16k16", 16, 16}, Size{"m8n32k16", 8, 32}, Size{"m32n8k16", 32, 8}}) {
    for (const Element& d : {f16, f32})
      for (const Element& c : {f16, f32}) check(name, m, n, 16, {d, f16, f16, c}, "row.col");
    check(name, m, n, 16, {f32, f16, f16, f32}, "col.row");
    check(name, m, n, 16, {f32, bf16, bf16, f32}, "row.row");
    for (const Element& ab : {s8, u8}) {
      check(name, m, n, 16, {s32, ab, ab, s32}, "row.col");
      check(name, m, n, 16, {s32, ab, ab, s32}, "col.col", Mode::satfinite);
    }
  }
  check("m16n16k8", 16, 16, 8, {f32, tf32, tf32, f32}, "row.col");
  check("m8n8k4", 8, 8, 4, {f64, f64, f64, f64}, "row.col");
  for (const Element& ab : {s4, u4}) check("m8n8k32", 8, 8, 32, {s32, ab, ab, s32}, "row.col");
  check("m8n8k128", 8, 8, 128, {s32, b1, b1, s32}, "row.col", Mode::exclusive);
}

TEST_CASE("tensor: a fragment holds every element, equally often") {
  for (const char* shape : {"m16n16k16", "m8n32k16", "m32n8k16", "m16n16k8", "m8n8k4", "m8n8k32", "m8n8k128"})
    for (const Matrix matrix : {Matrix::a, Matrix::b, Matrix::c})
      for (const char* type : {"f16", "bf16", "tf32", "s8", "u8", "s4", "u4", "b1", "f32", "s32", "f64"}) {
        const auto fragment = wmma_fragment(matrix, shape, type);
        if (!fragment) continue;
        std::multiset<std::pair<int, int>> places;
        for (int l = 0; l < warp_size; ++l)
          for (int r = 0; r < fragment->registers; ++r)
            for (int e = 0; e < fragment->per_register(); ++e) {
              const Place at = fragment->place(l, r, e);
              places.emplace(at.row, at.column);
            }
        const size_t elements = static_cast<size_t>(fragment->rows() * fragment->columns());
        for (int row = 0; row < fragment->rows(); ++row)
          for (int column = 0; column < fragment->columns(); ++column)
            if (places.count({row, column}) * elements != places.size())
              FAIL_CHECK(shape << " " << type << " row " << row << " column " << column);
      }
  CHECK(wmma_fragment(Matrix::a, "m8n32k16", "f16")->registers == 8);
  CHECK(wmma_fragment(Matrix::a, "m16n16k16", "bf16")->registers == 4);
  CHECK(wmma_fragment(Matrix::b, "m32n8k16", "u8")->registers == 1);
  CHECK(wmma_fragment(Matrix::c, "m16n16k16", "f16")->registers == 4);
  CHECK(wmma_fragment(Matrix::c, "m16n16k16", "f32")->registers == 8);
  CHECK(!wmma_fragment(Matrix::a, "m16n16k16", "tf32"));
  CHECK(!wmma_fragment(Matrix::c, "m16n16k8", "s32"));
}

TEST_CASE("tensor: all lanes have to take part") {
  TensorCase tensor("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64", 8);
  tensor.run(2, Registers(4), 0x7fffffff);
  CHECK(tensor.fault == "a tensor instruction needs all 32 lanes of the warp");
}

TEST_CASE("tensor: unknown variants are refused") {
  struct Unknown {
    const char* variant;
    size_t operands;
    uint8_t bytes;
  };
  for (const auto& [variant, operands, bytes] :
       {Unknown{"mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32", 14, 4},
        Unknown{"mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16", 10, 4},
        Unknown{"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f16", 12, 4},
        Unknown{"mma.sync.m16n8k16.row.col.f32.f16.f16.f32", 14, 4},
        Unknown{"mma.sync.aligned.m16n8k32.row.col.satfinite.f32.e4m3.e4m3.f32", 14, 4},
        Unknown{"mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.popc", 6, 4},
        Unknown{"mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 13, 4},
        Unknown{"mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.e4m3.e4m3.f32", 14, 4},
        Unknown{"mma.sync.aligned.m16n16k16.row.col.f32.bf16.bf16.f32", 24, 4},
        Unknown{"wmma.mma.sync.aligned.row.col.m16n8k16.f32.f32", 14, 4},
        Unknown{"wmma.mma.sync.aligned.row.col.m8n8k4.rz.f64.f64.f64.f64", 6, 8}}) {
    CAPTURE(variant);
    CHECK(!TensorCase(variant, bytes).known(operands));
  }
}

}  // namespace
}  // namespace gpusim
