#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "gpusim/machine/instructions/half.h"
#include "gpusim/tests/instruction_case.h"

using namespace gpusim;

namespace {

const std::vector<std::string> of_integers{"eq", "ne", "lt", "le", "gt", "ge"};
const std::vector<std::string> of_unsigned{"lo", "ls", "hi", "hs"};
const std::vector<std::string> of_floats{"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                         "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};

template <class T>
bool compares(const std::string& how, T a, T b) {
  const bool unordered = a != a || b != b;
  if (how == "num") return !unordered;
  if (how == "nan") return unordered;
  if (how.size() == 3 && unordered) return true;
  if (how.size() == 2 && unordered) return false;
  const std::string name = how.substr(0, 2);
  if (name == "eq") return a == b;
  if (name == "ne") return a != b;
  if (name == "lt" || name == "lo") return a < b;
  if (name == "le" || name == "ls") return a <= b;
  if (name == "gt" || name == "hi") return a > b;
  return a >= b;
}

bool combines(const std::string& how, bool a, bool b) {
  return how == "and" ? a && b : how == "or" ? a || b : how == "xor" ? a != b : a;
}

/// The forms of setp for `modifiers` (CmpOp and what follows), where `compare` takes the registers' contents.
template <class T, class F>
void check_setp(const std::string& compare_op, const std::string& rest, const char* r, F compare,
                const CheckOptions& options = {}) {
  const std::string from = fmt::format("%{}2, %{}3", r, r);
  check_instruction(fmt::format("setp.{}{} %p0, {};", compare_op, rest, from), compare, options);
  const bool pairs = !rest.ends_with("f16");
  if (pairs)
    check_instruction(
        fmt::format("setp.{}{} %p0|%p1, {};", compare_op, rest, from),
        [=](T a, T b) { return std::tuple(compare(a, b), !compare(a, b)); }, options);
  for (const std::string how : {"and", "or", "xor"}) {
    const std::string opcode = fmt::format("setp.{}.{}{}", compare_op, how, rest);
    check_instruction(
        fmt::format("{} %p0, {}, %p4;", opcode, from),
        [=](T a, T b, bool c) { return combines(how, compare(a, b), c); }, options);
    if (pairs)
      check_instruction(
          fmt::format("{} %p0|%p1, {}, !%p4;", opcode, from),
          [=](T a, T b, bool c) {
            return std::tuple(combines(how, compare(a, b), !c), combines(how, !compare(a, b), !c));
          },
          options);
  }
}

template <class T>
void check_integers(const std::string& type, const char* r, const std::vector<std::string>& relations) {
  for (const std::string& how : relations)
    check_setp<T>(how, "." + type, r, [how](T a, T b) { return compares(how, a, b); });
}

/// Values of a 16-bit format: all classes and signs, ones next to each other, and random ones.
std::vector<Bits> half_values(uint32_t infinity) {
  std::vector<Bits> values;
  const uint32_t least_normal = infinity & (~infinity + 1);
  for (const uint32_t sign : {0u, 0x8000u})
    for (const uint32_t magnitude : {0u, 1u, least_normal - 1, least_normal, least_normal + 1, 0x3c00u, 0x3f80u,
                                     0x4248u, infinity - 1, infinity, infinity + 1, 0x7fffu})
      values.push_back(sign | magnitude);
  return values;
}

/// Both halves of a word from such values.
std::vector<Bits> packed_values(const std::vector<Bits>& values) {
  std::vector<Bits> packed;
  for (size_t i = 0; i < values.size(); ++i)
    for (const size_t step : {0, 1, 5, 11}) packed.push_back(values[(i + step) % values.size()] << 16 | values[i]);
  return packed;
}

float flushed_f16(uint16_t x) { return (x & 0x7fff) < 0x0400 ? 0.0f : f16_to_float(x); }

struct HalfFormat {
  std::string name;
  std::string ftz;
  float (*value)(uint16_t);
  uint32_t infinity;
};
const HalfFormat half_formats[] = {
    {"f16", "", f16_to_float, 0x7c00}, {"f16", ".ftz", flushed_f16, 0x7c00}, {"bf16", "", bf16_to_float, 0x7f80}};

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? 0.0f : x; }

/// The types that set writes for a true comparison, and what it writes.
struct SetResult {
  std::string type;
  uint32_t yes;
};
const SetResult words[] = {{"u32", 0xffffffff}, {"s32", 0xffffffff}, {"f32", 0x3f800000}};

template <class R, class T, class F>
void check_set(const std::string& compare_op, const std::string& rest, const char* d, const char* r, uint32_t yes,
               F compare, const CheckOptions& options = {}) {
  check_instruction(
      fmt::format("set.{}{} %{}0, %{}1, %{}2;", compare_op, rest, d, r, r),
      [=](T a, T b) { return R(compare(a, b) ? yes : 0); }, options);
  for (const std::string how : {"and", "or", "xor"})
    check_instruction(
        fmt::format("set.{}.{}{} %{}0, %{}1, %{}2, !%p3;", compare_op, how, rest, d, r, r),
        [=](T a, T b, bool c) { return R(combines(how, compare(a, b), !c) ? yes : 0); }, options);
}

}  // namespace

TEST_CASE("setp compares integers") {
  check_integers<uint16_t>("b16", "h", {"eq", "ne"});
  check_integers<uint32_t>("b32", "r", {"eq", "ne"});
  check_integers<uint64_t>("b64", "d", {"eq", "ne"});
  check_integers<int16_t>("s16", "h", of_integers);
  check_integers<int32_t>("s32", "r", of_integers);
  check_integers<int64_t>("s64", "d", of_integers);
  for (const auto& relations : {of_integers, of_unsigned}) {
    check_integers<uint16_t>("u16", "h", relations);
    check_integers<uint32_t>("u32", "r", relations);
    check_integers<uint64_t>("u64", "d", relations);
  }
  check_instruction("setp.lt.s32 %p0, %r1, -5;", [](int32_t a) { return a < -5; });
  check_instruction("setp.gt.u64 %p0, %d1, 4294967296;", [](uint64_t a) { return a > 4294967296; });
  check_instruction("setp.eq.s16 %p0|_, %h1, 3;", [](int16_t a) { return std::tuple(a == 3, false); });
  check_instruction("setp.eq.and.s16 _|%p1, %h1, 3, %p2;",
                    [](int16_t a, bool c) { return std::tuple(false, a != 3 && c); });
}

TEST_CASE("setp compares floats") {
  for (const std::string& how : of_floats) {
    check_setp<float>(how, ".f32", "r", [how](float a, float b) { return compares(how, a, b); });
    check_setp<float>(how, ".ftz.f32", "r", [how](float a, float b) { return compares(how, flushed(a), flushed(b)); });
    check_setp<double>(how, ".f64", "d", [how](double a, double b) { return compares(how, a, b); });
    for (const HalfFormat& format : half_formats) {
      const auto value = format.value;
      const auto values = half_values(format.infinity);
      check_setp<uint16_t>(how, fmt::format("{}.{}", format.ftz, format.name), "h",
                           [=](uint16_t a, uint16_t b) { return compares(how, value(a), value(b)); },
                           {{values, values}, {}});
    }
  }
  check_instruction("setp.geu.f64 %p0, %d1, 0d7FF0000000000000;", [](double a) { return !(a < INFINITY); });
}

TEST_CASE("setp compares both halves of a word") {
  for (const std::string& how : of_floats)
    for (const HalfFormat& format : half_formats) {
      const auto value = format.value;
      const auto values = packed_values(half_values(format.infinity));
      const CheckOptions options{{values, values}, {}};
      const auto compare = [=](uint32_t a, uint32_t b, int half) {
        return compares(how, value(uint16_t(a >> 16 * half)), value(uint16_t(b >> 16 * half)));
      };
      check_instruction(
          fmt::format("setp.{}{}.{}x2 %p0|%p1, %r2, %r3;", how, format.ftz, format.name),
          [=](uint32_t a, uint32_t b) { return std::tuple(compare(a, b, 0), compare(a, b, 1)); }, options);
      for (const std::string combine : {"and", "or", "xor"})
        check_instruction(
            fmt::format("setp.{}.{}{}.{}x2 %p0|%p1, %r2, %r3, %p4;", how, combine, format.ftz, format.name),
            [=](uint32_t a, uint32_t b, bool c) {
              return std::tuple(combines(combine, compare(a, b, 0), c), combines(combine, compare(a, b, 1), c));
            },
            options);
    }
}

TEST_CASE("set writes ones for what is true") {
  for (const SetResult& to : words) {
    for (const std::string& how : of_integers) {
      const auto rest = [&](const char* type) { return fmt::format(".{}.{}", to.type, type); };
      const auto with = [how]<class T>(T a, T b) { return compares(how, a, b); };
      check_set<uint32_t, uint16_t>(how, rest("u16"), "r", "h", to.yes, with);
      check_set<uint32_t, int16_t>(how, rest("s16"), "r", "h", to.yes, with);
      check_set<uint32_t, uint32_t>(how, rest("u32"), "r", "r", to.yes, with);
      check_set<uint32_t, int32_t>(how, rest("s32"), "r", "r", to.yes, with);
      check_set<uint32_t, uint64_t>(how, rest("u64"), "r", "d", to.yes, with);
      check_set<uint32_t, int64_t>(how, rest("s64"), "r", "d", to.yes, with);
    }
    for (const std::string& how : of_floats) {
      const auto with = [how]<class T>(T a, T b) { return compares(how, a, b); };
      check_set<uint32_t, float>(how, fmt::format(".{}.f32", to.type), "r", "r", to.yes, with);
      check_set<uint32_t, double>(how, fmt::format(".{}.f64", to.type), "r", "d", to.yes, with);
      check_set<uint32_t, float>(how, fmt::format(".ftz.{}.f32", to.type), "r", "r", to.yes,
                                 [how](float a, float b) { return compares(how, flushed(a), flushed(b)); });
    }
  }
  check_set<uint32_t, uint16_t>("ne", ".u32.b16", "r", "h", ~0u, [](uint16_t a, uint16_t b) { return a != b; });
  check_set<uint32_t, uint64_t>("hi", ".f32.u64", "r", "d", 0x3f800000, [](uint64_t a, uint64_t b) { return a > b; });
  check_set<uint16_t, int32_t>("lt", ".f16.s32", "h", "r", 0x3c00, [](int32_t a, int32_t b) { return a < b; });
  check_set<uint16_t, float>("ltu", ".bf16.f32", "h", "r", 0x3f80, [](float a, float b) { return !(a >= b); });
}

TEST_CASE("set compares halves") {
  for (const std::string& how : of_floats)
    for (const HalfFormat& format : half_formats) {
      const auto value = format.value;
      const auto values = half_values(format.infinity), packed = packed_values(values);
      const CheckOptions single{{values, values}, {}}, both{{packed, packed}, {}};
      const uint32_t one = format.infinity == 0x7c00 ? 0x3c00 : 0x3f80;
      const auto compare = [=](uint16_t a, uint16_t b) { return compares(how, value(a), value(b)); };
      const auto rest = [&](const std::string& to) { return fmt::format("{}.{}.{}", format.ftz, to, format.name); };
      check_set<uint16_t, uint16_t>(how, rest(format.name), "h", "h", one, compare, single);
      for (const char* type : {"u16", "s16"})
        check_set<uint16_t, uint16_t>(how, rest(type), "h", "h", 0xffff, compare, single);
      for (const char* type : {"u32", "s32"})
        check_set<uint32_t, uint16_t>(how, rest(type), "r", "h", ~0u, compare, single);
      for (const std::string& type : {format.name + "x2", std::string("u32"), std::string("s32")}) {
        const uint32_t yes = type.ends_with("x2") ? one : 0xffff;
        const std::string end = fmt::format("{}.{}.{}x2 %r0, %r1, %r2", format.ftz, type, format.name);
        const auto halves = [=](uint32_t a, uint32_t b, auto combine) {
          const bool low = combine(compare(uint16_t(a), uint16_t(b)));
          const bool high = combine(compare(uint16_t(a >> 16), uint16_t(b >> 16)));
          return (high ? yes << 16 : 0) + (low ? yes : 0);
        };
        check_instruction(
            fmt::format("set.{}{};", how, end),
            [=](uint32_t a, uint32_t b) { return halves(a, b, [](bool hit) { return hit; }); }, both);
        for (const std::string combine : {"and", "or", "xor"})
          check_instruction(
              fmt::format("set.{}.{}{}, %p3;", how, combine, end),
              [=](uint32_t a, uint32_t b, bool c) {
                return halves(a, b, [&](bool hit) { return combines(combine, hit, c); });
              },
              both);
      }
    }
}

TEST_CASE("comparisons that PTX does not have are refused") {
  check_unknown("setp.lo.s32 %p0, %r1, %r2;");
  check_unknown("setp.lt.b32 %p0, %r1, %r2;");
  check_unknown("setp.ltu.u32 %p0, %r1, %r2;");
  check_unknown("setp.num.s32 %p0, %r1, %r2;");
  check_unknown("setp.lou.f32 %p0, %r1, %r2;");
  check_unknown("setp.numu.f32 %p0, %r1, %r2;");
  check_unknown("setp.lt.ftz.f64 %p0, %d1, %d2;");
  check_unknown("setp.lt.ftz.s32 %p0, %r1, %r2;");
  check_unknown("setp.lt.ftz.bf16 %p0, %h1, %h2;");
  check_unknown("setp.lt.nand.s32 %p0, %r1, %r2, %p3;");
  check_unknown("setp.lt.and.s32 %p0, %r1, %r2;");
  check_unknown("setp.lt.f16x2 %p0, %r1, %r2;");
  check_unknown("setp.lt.bf16 %p0|%p1, %h2, %h3;");
  check_unknown("set.lt.u16.s32 %h0, %r1, %r2;");
  check_unknown("set.lt.f32.f16 %r0, %h1, %h2;");
  check_unknown("set.lt.f64.s32 %d0, %r1, %r2;");
  check_unknown("set.lt.f16x2.bf16x2 %r0, %r1, %r2;");
  check_unknown("set.lt.f32.f16x2 %r0, %r1, %r2;");
}
