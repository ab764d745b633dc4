#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "gpusim/tests/float_reference.h"

namespace gpusim {
namespace {

using exact::Number;
using exact::Rounding;

const auto sum = [](const Number& a, const Number& b, Rounding r) { return exact::add(a, b, r); };
const auto difference = [](const Number& a, const Number& b, Rounding r) { return exact::add(a, exact::negate(b), r); };
const auto product = [](const Number& a, const Number& b, Rounding) { return exact::multiply(a, b); };
const auto fused = [](const Number& a, const Number& b, const Number& c, Rounding r) {
  return exact::add(exact::multiply(a, b), c, r);
};
const auto quotient = [](const Number& a, const Number& b, Rounding) { return exact::divide(a, b); };
const auto reciprocal = [](const Number& a, Rounding) { return exact::divide(exact::number(1), a); };
const auto root = [](const Number& a, Rounding) { return exact::square_root(a); };

constexpr const char* no_or_ftz[] = {"", ".ftz"};
constexpr const char* no_or_sat[] = {"", ".sat"};

uint32_t bits32(float x) { return std::bit_cast<uint32_t>(x); }
uint64_t bits64(double x) { return std::bit_cast<uint64_t>(x); }

/// f64 keeps NaN payloads, which are not said further: any NaN will do.
CheckOptions f64_options(size_t operands) {
  CheckOptions options = with_edges(exact::f64, operands);
  options.same = [](Bits expected, Bits got) {
    const bool nan = exact::decode(exact::f64, static_cast<uint64_t>(expected)).is_nan();
    return nan ? exact::decode(exact::f64, static_cast<uint64_t>(got)).is_nan() : expected == got;
  };
  return options;
}

template <class F>
void check1(const std::string& name, const FloatRules& rules, F f) {
  if (rules.format == &exact::f32)
    check_instruction(
        name + " %r0, %r1;", [=](float a) { return uint32_t(apply(rules, f, bits32(a))); }, with_edges(exact::f32, 1));
  else
    check_instruction(
        name + " %d0, %d1;", [=](double a) { return apply(rules, f, bits64(a)); }, f64_options(1));
}
template <class F>
void check2(const std::string& name, const FloatRules& rules, F f) {
  if (rules.format == &exact::f32)
    check_instruction(
        name + " %r0, %r1, %r2;", [=](float a, float b) { return uint32_t(apply(rules, f, bits32(a), bits32(b))); },
        with_edges(exact::f32, 2));
  else
    check_instruction(
        name + " %d0, %d1, %d2;", [=](double a, double b) { return apply(rules, f, bits64(a), bits64(b)); },
        f64_options(2));
}
template <class F>
void check3(const std::string& name, const FloatRules& rules, F f) {
  if (rules.format == &exact::f32)
    check_instruction(
        name + " %r0, %r1, %r2, %r3;",
        [=](float a, float b, float c) { return uint32_t(apply(rules, f, bits32(a), bits32(b), bits32(c))); },
        with_edges(exact::f32, 3));
  else
    check_instruction(
        name + " %d0, %d1, %d2, %d3;",
        [=](double a, double b, double c) { return apply(rules, f, bits64(a), bits64(b), bits64(c)); }, f64_options(3));
}

/// f(name with modifiers, rules) for every rounding, .ftz and .sat of f32 and every rounding of f64.
template <class F>
void each_variant(const char* opcode, bool may_saturate, bool may_omit_rounding, F&& f) {
  std::vector<NamedRounding> all(std::begin(roundings), std::end(roundings));
  if (may_omit_rounding) all.push_back({"", Rounding::even});
  for (const auto& [modifier, rounding] : all) {
    for (const bool ftz : {false, true})
      for (const bool sat : {false, true})
        if (may_saturate || !sat)
          f(fmt::format("{}{}{}{}.f32", opcode, modifier, no_or_ftz[ftz], no_or_sat[sat]),
            FloatRules{&exact::f32, rounding, ftz, sat, false});
    f(fmt::format("{}{}.f64", opcode, modifier), FloatRules{&exact::f64, rounding, false, false, false});
  }
}

TEST_CASE("float: sums, differences and products round once, in every direction") {
  each_variant("add", true, true, [](const std::string& name, const FloatRules& r) { check2(name, r, sum); });
  each_variant("sub", true, true, [](const std::string& name, const FloatRules& r) { check2(name, r, difference); });
  each_variant("mul", true, true, [](const std::string& name, const FloatRules& r) { check2(name, r, product); });
}

TEST_CASE("float: fma and mad round once, in every direction") {
  each_variant("fma", true, false, [](const std::string& name, const FloatRules& r) { check3(name, r, fused); });
  each_variant("mad", true, false, [](const std::string& name, const FloatRules& r) { check3(name, r, fused); });
}

TEST_CASE("float: quotients and roots round in every direction") {
  each_variant("div", false, false, [](const std::string& name, const FloatRules& r) { check2(name, r, quotient); });
  each_variant("rcp", false, false, [](const std::string& name, const FloatRules& r) { check1(name, r, reciprocal); });
  each_variant("sqrt", false, false, [](const std::string& name, const FloatRules& r) { check1(name, r, root); });
}

TEST_CASE("float: a rounding mode does not outlast its instruction") {
  InstructionCase up("add.rp.f32 %r0, %r1, %r2;"), nearest("add.f32 %r0, %r1, %r2;");
  for (InstructionCase* instruction : {&up, &nearest}) {
    instruction->set_each(1, [](int) { return 1.0f; });
    instruction->set_each(2, [](int) { return 0x1p-30f; });
    instruction->run();
  }
  CHECK(from_bits<float>(up.get(0, 7)) == 1.0f + 0x1p-23f);
  CHECK(from_bits<float>(nearest.get(0, 7)) == 1.0f);
}

TEST_CASE("float: abs, neg, copysign and testp look at bits") {
  for (const bool ftz : {false, true}) {
    const auto sign_only = [ftz](bool absolute) {
      return [ftz, absolute](float a) {
        const uint32_t bits = ftz ? uint32_t(exact::flush(exact::f32, bits32(a))) : bits32(a);
        if (a != a) return 0x7fffffffu;
        return absolute ? bits & 0x7fffffff : bits ^ 0x80000000;
      };
    };
    check_instruction(fmt::format("abs{}.f32 %r0, %r1;", no_or_ftz[ftz]), sign_only(true), with_edges(exact::f32, 1));
    check_instruction(fmt::format("neg{}.f32 %r0, %r1;", no_or_ftz[ftz]), sign_only(false), with_edges(exact::f32, 1));
  }
  check_instruction(
      "abs.f64 %d0, %d1;", [](double a) { return bits64(a) & ~(uint64_t{1} << 63); }, with_edges(exact::f64, 1));
  check_instruction(
      "neg.f64 %d0, %d1;", [](double a) { return bits64(a) ^ (uint64_t{1} << 63); }, with_edges(exact::f64, 1));
  check_instruction("copysign.f32 %r0, %r1, %r2;",
                    [](float a, float b) { return (bits32(b) & 0x7fffffff) | (bits32(a) & 0x80000000); });
  check_instruction("copysign.f64 %d0, %d1, %d2;", [](double a, double b) {
    return (bits64(b) & ~(uint64_t{1} << 63)) | (bits64(a) & uint64_t{1} << 63);
  });
  check_instruction("testp.finite.f32 %p0, %r1;", [](float a) { return bool(std::isfinite(a)); });
  check_instruction("testp.infinite.f32 %p0, %r1;", [](float a) { return bool(std::isinf(a)); });
  check_instruction("testp.number.f32 %p0, %r1;", [](float a) { return !std::isnan(a); });
  check_instruction("testp.notanumber.f32 %p0, %r1;", [](float a) { return bool(std::isnan(a)); });
  check_instruction("testp.normal.f32 %p0, %r1;", [](float a) { return a == 0 || std::isnormal(a); });
  check_instruction("testp.subnormal.f32 %p0, %r1;", [](float a) { return std::fpclassify(a) == FP_SUBNORMAL; });
  check_instruction("testp.finite.f64 %p0, %d1;", [](double a) { return bool(std::isfinite(a)); });
  check_instruction("testp.infinite.f64 %p0, %d1;", [](double a) { return bool(std::isinf(a)); });
  check_instruction("testp.number.f64 %p0, %d1;", [](double a) { return !std::isnan(a); });
  check_instruction("testp.notanumber.f64 %p0, %d1;", [](double a) { return bool(std::isnan(a)); });
  check_instruction("testp.normal.f64 %p0, %d1;", [](double a) { return a == 0 || std::isnormal(a); });
  check_instruction("testp.subnormal.f64 %p0, %d1;", [](double a) { return std::fpclassify(a) == FP_SUBNORMAL; });
}

TEST_CASE("float: min and max know NaNs and the zeros' signs") {
  for (const bool maximum : {false, true}) {
    const char* opcode = maximum ? "max" : "min";
    for (const bool ftz : {false, true})
      for (const bool nan : {false, true})
        for (const bool xorsign : {false, true}) {
          const FloatRules rules{&exact::f32, Rounding::even, ftz, false, false};
          const MinMaxRules how{maximum, nan, xorsign};
          check_instruction(
              fmt::format("{}{}{}{}.f32 %r0, %r1, %r2;", opcode, no_or_ftz[ftz], nan ? ".NaN" : "",
                          xorsign ? ".xorsign.abs" : ""),
              [=](float a, float b) { return uint32_t(min_max(rules, how, bits32(a), bits32(b))); },
              with_edges(exact::f32, 2));
        }
    const FloatRules rules{&exact::f64, Rounding::even, false, false, false};
    check_instruction(
        fmt::format("{}.f64 %d0, %d1, %d2;", opcode),
        [=](double a, double b) {
          return min_max(rules, {maximum, false, false}, bits64(a), bits64(b));
        },
        f64_options(2));
  }
}

TEST_CASE("float: unknown variants are refused") {
  for (const char* text :
       {"add.rn.sat.f64 %d0, %d1, %d2;", "add.ftz.f64 %d0, %d1, %d2;", "fma.f32 %r0, %r1, %r2, %r3;",
        "div.f32 %r0, %r1, %r2;", "div.full.rn.f32 %r0, %r1, %r2;", "sqrt.approx.f64 %d0, %d1;",
        "rcp.approx.f64 %d0, %d1;", "tanh.approx.ftz.f32 %r0, %r1;", "sin.f32 %r0, %r1;", "ex2.approx.f64 %d0, %d1;",
        "min.xorsign.f32 %r0, %r1, %r2;", "min.NaN.f64 %d0, %d1, %d2;", "copysign.ftz.f32 %r0, %r1, %r2;",
        "testp.zero.f32 %p0, %r1;", "add.rna.f32 %r0, %r1, %r2;", "mul.rn.rz.f32 %r0, %r1, %r2;"})
    check_unknown(text);
}

}  // namespace
}  // namespace gpusim
