// Loads, stores and atomics: every variant that some PTX has is run from its name, against what the name says.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "gpusim/error.h"
#include "gpusim/machine/instructions/half.h"
#include "gpusim/tests/instruction_case.h"
#include "gpusim/tests/kernel_case.h"

using namespace gpusim;

namespace {

/// A name taken apart, independently of the decoder.
struct Access {
  std::string variant, space, type, operation;
  int bytes = 0, count = 1;
  bool is_signed = false;
};

Access access_of(const std::string& variant) {
  Access a{.variant = variant, .space = "", .type = "", .operation = ""};
  size_t at = 0;
  while (at <= variant.size()) {
    const size_t dot = std::min(variant.find('.', at), variant.size());
    const std::string part = variant.substr(at, dot - at);
    at = dot + 1;
    for (const char* space : {"global", "shared", "local", "const", "param"})
      if (part == space || part == std::string(space) + "::cta") a.space = space;
    for (const char* operation : {"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"})
      if (part == operation) a.operation = operation;
    if (part == "v2" || part == "v4") a.count = part[1] - '0';
    const size_t digits = part.find_first_of("0123456789");
    const std::string kind = part.substr(0, digits);
    if (digits != std::string::npos && (kind == "u" || kind == "s" || kind == "b" || kind == "f" || kind == "bf")) {
      const size_t x = part.find('x');
      a.bytes = std::stoi(part.substr(digits)) / 8 * (x == std::string::npos ? 1 : part[x + 1] - '0');
      a.type = part;
      a.is_signed = kind == "s";
    }
  }
  return a;
}

const char* register_of(int bytes) {
  return bytes == 1 || bytes == 2 ? "%h" : bytes == 4 ? "%r" : bytes == 8 ? "%d" : "%q";
}

std::string list(const char* name, int count, int first = 0) {
  std::string text;
  for (int e = 0; e < count; ++e) text += fmt::format("{}{}{}", e ? ", " : "", name, first + e);
  return count > 1 ? "{" + text + "}" : text;
}

/// Puts the address of this lane's `size` bytes within a space, filled from `in`, into %d30.
std::string prepare(const Access& a, int size, KernelCase& kernel, const std::vector<uint8_t>& in) {
  const std::string to_lane = fmt::format("mul.wide.u32 %d29, %lane, {};\n", size);
  // Byte by byte, from %in + %d29 to %d30.
  const std::string fill = [&] {
    std::string text = "add.s64 %d28, %in, %d29;\n";
    const std::string space = a.space == "shared" ? "shared" : "local";
    for (int b = 0; b < size; ++b)
      text += fmt::format("ld.global.u8 %h31, [%d28+{}];\nst.{}.u8 [%d30+{}], %h31;\n", b, space, b);
    return text;
  }();
  if (a.space == "global" || a.space.empty()) return to_lane + "add.s64 %d30, %in, %d29;\n";
  if (a.space == "shared") {
    kernel.module += fmt::format(".shared .align 16 .b8 mem[{}];\n", 32 * size);
    return to_lane + "mov.u64 %d30, mem;\nadd.s64 %d30, %d30, %d29;\n" + fill;
  }
  if (a.space == "local")
    return fmt::format(".local .align 16 .b8 mem[{}];\n", size) + to_lane + "mov.u64 %d30, mem;\n" + fill;
  if (a.space == "const") {
    std::string bytes;
    for (uint8_t b : in) bytes += fmt::format("{}{}", bytes.empty() ? "" : ", ", b);
    kernel.module += fmt::format(".const .align 16 .b8 mem[{}] = {{{}}};\n", in.size(), bytes);
    return to_lane + "mov.u64 %d30, mem;\nadd.s64 %d30, %d30, %d29;\n";
  }
  kernel.parameter = in;
  return to_lane + "mov.u64 %d30, extra;\nadd.s64 %d30, %d30, %d29;\n";
}

void check_load(const std::string& variant) {
  const Access a = access_of(variant);
  const int size = a.bytes * a.count;
  const std::vector<uint8_t> in = random_bytes(32 * size, 3);
  // Into registers of the type's width, and wider ones.
  for (int width = std::max(2, a.bytes); width <= (a.count > 1 ? std::max(2, a.bytes) : std::max(8, a.bytes));
       width *= 2) {
    INFO(variant, " into registers of ", width, " bytes");
    KernelCase kernel;
    kernel.body = prepare(a, size, kernel, in);
    kernel.body += fmt::format("{} {}, [%d30];\n", variant, list(register_of(width), a.count));
    kernel.body += fmt::format("mul.wide.u32 %d29, %lane, {};\nadd.s64 %d29, %out, %d29;\n", width * a.count);
    for (int e = 0; e < a.count; ++e)
      kernel.body += fmt::format("st.global.b{} [%d29+{}], {}{};\n", 8 * width, width * e, register_of(width), e);
    const std::vector<uint8_t> out = run_kernel(kernel, in, 32 * width * a.count);
    int wrong = 0;
    for (int k = 0; k < 32 * a.count; ++k) {
      std::vector<uint8_t> expected(in.begin() + k * a.bytes, in.begin() + (k + 1) * a.bytes);
      expected.resize(width, a.is_signed && expected.back() >= 128 ? 0xff : 0);
      wrong += !std::equal(expected.begin(), expected.end(), out.begin() + k * width);
    }
    CHECK(wrong == 0);
  }
}

void check_store(const std::string& variant) {
  const Access a = access_of(variant);
  const int size = a.bytes * a.count, width = std::max(2, a.bytes);
  INFO(variant);
  std::vector<uint8_t> in = random_bytes(32 * width * a.count, 5);
  Access target = a;
  if (a.space == "global" || a.space.empty()) target.space = "out";
  KernelCase kernel;
  std::string place;
  if (target.space == "out") {
    place = fmt::format("mul.wide.u32 %d29, %lane, {};\nadd.s64 %d30, %out, %d29;\n", size);
  } else if (a.space == "param") {
    kernel.body += fmt::format(".param .align 16 .b8 mem[{}];\n", size);
    place = "";
  } else {
    std::vector<uint8_t> other = random_bytes(32 * size, 6);
    place = prepare(a, size, kernel, other);
  }
  kernel.body += place;
  kernel.body += fmt::format("mul.wide.u32 %d29, %lane, {};\nadd.s64 %d28, %in, %d29;\n", width * a.count);
  for (int e = 0; e < a.count; ++e)
    kernel.body += fmt::format("ld.global.b{} {}{}, [%d28+{}];\n", 8 * width, register_of(width), e, width * e);
  kernel.body +=
      fmt::format("{} [{}], {};\n", variant, a.space == "param" ? "mem" : "%d30", list(register_of(width), a.count));
  if (target.space != "out") {
    kernel.body += fmt::format("mul.wide.u32 %d29, %lane, {};\nadd.s64 %d28, %out, %d29;\n", size);
    for (int b = 0; b < size; ++b)
      kernel.body += fmt::format("ld.{}.u8 %h31, [{}+{}];\nst.global.u8 [%d28+{}], %h31;\n", a.space,
                                 a.space == "param" ? "mem" : "%d30", b, b);
  }
  const std::vector<uint8_t> out = run_kernel(kernel, in, 32 * size);
  int wrong = 0;
  for (int k = 0; k < 32 * a.count; ++k)
    wrong += !std::equal(out.begin() + k * a.bytes, out.begin() + (k + 1) * a.bytes, in.begin() + k * width);
  CHECK(wrong == 0);
}

/// old op b (op c) as the ISA has it, on the bits of one element.
uint64_t updated(const Access& a, uint64_t old, uint64_t b, uint64_t c) {
  const uint64_t all = a.bytes == 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * a.bytes) - 1;
  const auto sign = [&](uint64_t v) { return static_cast<int64_t>(v << (64 - 8 * a.bytes)) >> (64 - 8 * a.bytes); };
  if (a.operation == "exch") return b;
  if (a.operation == "cas") return old == b ? c : old;
  if (a.operation == "and") return old & b;
  if (a.operation == "or") return old | b;
  if (a.operation == "xor") return old ^ b;
  if (a.operation == "inc") return old >= b ? 0 : old + 1;
  if (a.operation == "dec") return old == 0 || old > b ? b : old - 1;
  if (a.operation == "min" || a.operation == "max") {
    const bool less = a.is_signed ? sign(b) < sign(old) : b < old;
    return (a.operation == "min") == less ? b : old;
  }
  if (a.type == "f32")
    return std::bit_cast<uint32_t>(std::bit_cast<float>(static_cast<uint32_t>(old)) +
                                   std::bit_cast<float>(static_cast<uint32_t>(b)));
  if (a.type == "f64") return std::bit_cast<uint64_t>(std::bit_cast<double>(old) + std::bit_cast<double>(b));
  auto half = [&](uint64_t x, uint64_t y) -> uint64_t {
    if (a.type.starts_with("bf16"))
      return float_to_bf16(bf16_to_float(static_cast<uint16_t>(x)) + bf16_to_float(static_cast<uint16_t>(y)));
    return float_to_f16(f16_to_float(static_cast<uint16_t>(x)) + f16_to_float(static_cast<uint16_t>(y)));
  };
  if (a.type == "f16" || a.type == "bf16") return half(old & 0xffff, b & 0xffff);
  if (a.type == "f16x2" || a.type == "bf16x2") return half(old & 0xffff, b & 0xffff) | half(old >> 16, b >> 16) << 16;
  return (old + b) & all;
}

// Lanes l and l + 4, l + 8 … meet in one element, and take turns in their order.
void check_atomic(const std::string& variant) {
  const Access a = access_of(variant);
  const bool returns = variant.starts_with("atom"), compares = a.operation == "cas";
  INFO(variant);
  // 4 elements, then b and c of each lane; small numbers that meet one another, and for floats finite ones.
  std::vector<uint8_t> in = random_bytes((4 + 64) * a.bytes, 7);
  for (size_t k = 0; k < in.size(); ++k) {
    const int byte = static_cast<int>(k % a.bytes), half = a.type.find("16") != std::string::npos ? byte % 2 : byte;
    const bool top = a.type[0] != 'f' && a.type[0] != 'b'
                         ? false
                         : half == (a.type.find("16") != std::string::npos ? 1 : a.bytes - 1);
    if (a.type.find('f') != std::string::npos && top) in[k] = static_cast<uint8_t>(0x3c + in[k] % 4);
    if (a.type.find('f') == std::string::npos && byte > 0 && a.operation != "add")
      in[k] = in[k] & 1 && byte == a.bytes - 1 ? 0xff : 0;
    if (a.operation == "cas") in[k] = byte ? 0 : in[k] % 4;
  }
  KernelCase kernel;
  const char* reg = register_of(a.bytes);
  const int bits = 8 * a.bytes;
  std::string body = "and.b32 %r31, %lane, 3;\n";
  if (a.space == "shared") {
    kernel.module = fmt::format(".shared .align 16 .b8 mem[{}];\n", 4 * a.bytes);
    body += "mov.u64 %d27, mem;\n";
  } else {
    body += "mov.u64 %d27, %out;\n";
  }
  const std::string space = a.space == "shared" ? "shared" : "global";
  body += fmt::format("mad.wide.u32 %d30, %r31, {}, %d27;\nmad.wide.u32 %d28, %lane, {}, %in;\n", a.bytes, a.bytes);
  body += fmt::format(
      "setp.lt.u32 %p0, %lane, 4;\n@%p0 ld.global.b{} {}9, [%d28];\n@%p0 st.{}.b{} [%d30], {}9;\nbar.sync 0;\n", bits,
      reg, space, bits, reg);
  body += fmt::format("ld.global.b{} {}1, [%d28+{}];\nld.global.b{} {}2, [%d28+{}];\n", bits, reg, 4 * a.bytes, bits,
                      reg, (4 + 32) * a.bytes);
  body += fmt::format("{} {}[%d30], {}1{};\n", variant, returns ? fmt::format("{}0, ", reg) : "", reg,
                      compares ? fmt::format(", {}2", reg) : "");
  body += "bar.sync 0;\n";
  // out: 4 elements, then what each lane got.
  if (a.space == "shared")
    body += fmt::format(
        "mad.wide.u32 %d29, %lane, {}, %out;\n@%p0 ld.shared.b{} {}9, [%d30];\n@%p0 st.global.b{} [%d29], {}9;\n",
        a.bytes, bits, reg, bits, reg);
  if (returns)
    body += fmt::format("mad.wide.u32 %d29, %lane, {}, %out;\nst.global.b{} [%d29+{}], {}0;\n", a.bytes, bits,
                        4 * a.bytes, reg);
  kernel.body = body;
  const std::vector<uint8_t> out = run_kernel(kernel, in, 36 * a.bytes);
  auto at = [&](const std::vector<uint8_t>& from, int k) {
    uint64_t v = 0;
    std::memcpy(&v, from.data() + k * a.bytes, a.bytes);
    return v;
  };
  uint64_t value[4];
  for (int k = 0; k < 4; ++k) value[k] = at(in, k);
  int wrong = 0;
  for (int l = 0; l < 32; ++l) {
    if (returns) wrong += at(out, 4 + l) != value[l % 4];
    value[l % 4] = updated(a, value[l % 4], at(in, 4 + l), at(in, 36 + l));
  }
  for (int k = 0; k < 4; ++k) wrong += at(out, k) != value[k];
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("loads") {
  for (const char* space : {".global", ".shared", ".local", ".const", ".param", "", ".volatile.global",
                            ".relaxed.gpu.global", ".acquire.gpu.global", ".global.nc", ".global.ca", ".global.cg",
                            ".global.L1::no_allocate", ".volatile.shared", ".weak.global", ".volatile"})
    for (const char* type :
         {".u8",     ".s8",     ".b8",     ".u16",    ".s16",    ".b16",    ".u32",   ".s32",    ".b32",
          ".f32",    ".u64",    ".s64",    ".b64",    ".f64",    ".v2.u8",  ".v4.u8", ".v2.u16", ".v4.u16",
          ".v2.u32", ".v4.u32", ".v4.f32", ".v2.f32", ".v2.u64", ".v2.f64", ".v4.b16"})
      check_load(std::string("ld") + space + type);
}

TEST_CASE("stores") {
  for (const char* space : {".global", ".shared", ".local", "", ".volatile.global", ".relaxed.gpu.global",
                            ".release.gpu.global", ".global.cs", ".global.wt", ".volatile.shared"})
    for (const char* type : {".u8",     ".s8",     ".b8",     ".u16",    ".b16",    ".u32",    ".b32",    ".s32",
                             ".f32",    ".u64",    ".b64",    ".f64",    ".v2.u8",  ".v4.u8",  ".v2.u16", ".v4.u16",
                             ".v2.u32", ".v4.u32", ".v4.f32", ".v2.f32", ".v2.u64", ".v2.f64", ".v4.b16"})
      check_store(std::string("st") + space + type);
}

TEST_CASE("atomics and reductions") {
  for (const char* opcode : {"atom", "red"})
    for (const char* space :
         {".global", ".shared", "", ".relaxed.gpu.global", ".acq_rel.gpu.global", ".release.gpu.global"})
      for (const char* what :
           {".add.u32",        ".add.s32",         ".add.u64",          ".add.f32", ".add.f64", ".add.noftz.f16",
            ".add.noftz.bf16", ".add.noftz.f16x2", ".add.noftz.bf16x2", ".min.u32", ".min.s32", ".max.u32",
            ".max.s32",        ".min.u64",         ".max.s64",          ".and.b32", ".or.b32",  ".xor.b32",
            ".and.b64",        ".or.b64",          ".xor.b64",          ".inc.u32", ".dec.u32", ".exch.b32",
            ".exch.b64",       ".cas.b32",         ".cas.b64",          ".cas.b16"}) {
        const std::string variant = std::string(opcode) + space + what;
        if (variant.starts_with("red") &&
            (variant.find("exch") != std::string::npos || variant.find("cas") != std::string::npos))
          continue;
        check_atomic(variant);
      }
}

TEST_CASE("memory instructions that are not known are refused by name") {
  for (const char* text :
       {"ld.global.v3.u32 {%r0, %r1, %r2}, [%in];", "ld.global.frob.u32 %r0, [%in];",
        "atom.global.mul.u32 %r0, [%in], %r1;",
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%d0], [%in], %r0, [%d1];",
        "ld.global.u64 %r0, [%in];"}) {
    INFO(text);
    CHECK_THROWS_WITH_AS(run_kernel({.module = "", .body = text, .parameter = {}}, random_bytes(64, 1), 64),
                         doctest::Contains("line"), Error);
  }
}

// The names come from the PTX itself, so that whatever a compiler emits is run.
TEST_CASE("loads, stores and atomics of all PTX in this program") {
  for (const std::string& v : variants_in_file("/proc/self/exe")) {
    const bool load = v.starts_with("ld."), store = v.starts_with("st."),
               atomic = v.starts_with("atom.") || v.starts_with("red.");
    if (tested_variants().contains(v)) continue;
    if (load) check_load(v);
    if (store) check_store(v);
    if (atomic) check_atomic(v);
  }
}
