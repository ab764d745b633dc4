#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "gpusim/tests/float_reference.h"

namespace gpusim {
namespace {

constexpr const char* no_or_ftz[] = {"", ".ftz"};
using Function = long double (*)(long double);

/// Arguments of all sizes and signs, and many of ordinary size.
std::vector<Bits> arguments() {
  std::vector<Bits> values = format_edges(exact::f32);
  for (int i = 0; i < 6000; ++i) {
    const auto step = static_cast<float>(i);
    for (const float x : {step * 0.00371f, std::ldexp(1.0f + step / 6000, i % 270 - 145)}) {
      values.push_back(to_bits(x));
      values.push_back(to_bits(-x));
    }
  }
  for (int i = 1; i < 50; ++i)  // next to zeros of sine and cosine
    values.push_back(to_bits(static_cast<float>(i * std::numbers::pi / 2)));
  return values;
}

uint32_t rounded(const exact::Format& format, long double x) {
  return static_cast<uint32_t>(exact::encode(format, exact::number(x)));
}

/// The function of one f32 within one unit of the last place; the ISA allows more.
void check_function(const char* opcode, Function f, bool has_ftz = true) {
  for (const bool ftz : {false, true}) {
    if (ftz && !has_ftz) continue;
    check_instruction(
        fmt::format("{}.approx{}.f32 %r0, %r1;", opcode, no_or_ftz[ftz]),
        [=](float a) {
          const auto flushed = [ftz](uint32_t bits) {
            return ftz ? static_cast<uint32_t>(exact::flush(exact::f32, bits)) : bits;
          };
          const auto x = std::bit_cast<float>(flushed(std::bit_cast<uint32_t>(a)));
          return flushed(rounded(exact::f32, f(x)));
        },
        within_units(exact::f32, 1, arguments()));
  }
}

TEST_CASE("approximate: functions of f32") {
  check_function("ex2", [](long double x) { return std::exp2(x); });
  check_function("lg2", [](long double x) { return std::log2(x); });
  check_function("sin", [](long double x) { return std::sin(x); });
  check_function("cos", [](long double x) { return std::cos(x); });
  check_function("rcp", [](long double x) { return 1 / x; });
  check_function("sqrt", [](long double x) { return std::sqrt(x); });
  check_function("rsqrt", [](long double x) { return 1 / std::sqrt(x); });
  check_function(
      "tanh", [](long double x) { return std::tanh(x); }, false);
}

/// An instruction's result on one f32.
float result_of(const char* text, float x) {
  InstructionCase instruction(text);
  instruction.set_each(1, [x](int) { return x; });
  instruction.run();
  return from_bits<float>(instruction.get(0, 31));
}

TEST_CASE("approximate: the ISA's tables of special values") {
  constexpr float infinity = std::numeric_limits<float>::infinity(), subnormal = 0x1p-130f;
  const auto nan = [](const char* text, float x) { return to_bits(result_of(text, x)) == 0x7fffffff; };
  CHECK(to_bits(result_of("ex2.approx.ftz.f32 %r0, %r1;", -infinity)) == 0);
  CHECK(result_of("ex2.approx.ftz.f32 %r0, %r1;", -subnormal) == 1.0f);
  CHECK(to_bits(result_of("ex2.approx.ftz.f32 %r0, %r1;", -126.5f)) == 0);
  CHECK(result_of("ex2.approx.f32 %r0, %r1;", -149.0f) == 0x1p-149f);
  CHECK(result_of("ex2.approx.f32 %r0, %r1;", 128.0f) == infinity);
  CHECK(result_of("lg2.approx.ftz.f32 %r0, %r1;", -subnormal) == -infinity);
  CHECK(result_of("lg2.approx.f32 %r0, %r1;", 0x1p-149f) == -149.0f);
  CHECK(nan("lg2.approx.f32 %r0, %r1;", -subnormal));
  CHECK(result_of("lg2.approx.f32 %r0, %r1;", infinity) == infinity);
  CHECK(nan("sin.approx.f32 %r0, %r1;", infinity));
  CHECK(nan("cos.approx.ftz.f32 %r0, %r1;", -infinity));
  CHECK(to_bits(result_of("sin.approx.ftz.f32 %r0, %r1;", -subnormal)) == 0x80000000);
  CHECK(result_of("cos.approx.f32 %r0, %r1;", -0.0f) == 1.0f);
  CHECK(result_of("rcp.approx.ftz.f32 %r0, %r1;", -subnormal) == -infinity);
  CHECK(to_bits(result_of("rcp.approx.ftz.f32 %r0, %r1;", -0x1.8p127f)) == 0x80000000);
  CHECK(result_of("rsqrt.approx.f32 %r0, %r1;", -0.0f) == -infinity);
  CHECK(nan("rsqrt.approx.f32 %r0, %r1;", -1.0f));
  CHECK(to_bits(result_of("sqrt.approx.ftz.f32 %r0, %r1;", -subnormal)) == 0x80000000);
  CHECK(to_bits(result_of("tanh.approx.f32 %r0, %r1;", -0.0f)) == 0x80000000);
  CHECK(result_of("tanh.approx.f32 %r0, %r1;", -infinity) == -1.0f);
}

TEST_CASE("approximate: quotients") {
  for (const bool ftz : {false, true}) {
    const auto quotient = [ftz](bool approximate) {
      return [ftz, approximate](float a, float b) {
        const FloatRules rules{&exact::f32, exact::Rounding::even, ftz, false, false};
        const auto divide = [](const exact::Number& x, const exact::Number& y, exact::Rounding) {
          return exact::divide(x, y);
        };
        if (approximate && std::fabs(b) > 0x1p126f && std::isfinite(b))
          b = std::copysign(std::numeric_limits<float>::infinity(), b);
        return static_cast<uint32_t>(apply(rules, divide, to_bits(a), to_bits(b)));
      };
    };
    CheckOptions options = within_units(exact::f32, 2);
    options.values = {format_edges(exact::f32), format_edges(exact::f32)};
    check_instruction(fmt::format("div.approx{}.f32 %r0, %r1, %r2;", no_or_ftz[ftz]), quotient(true), options);
    check_instruction(fmt::format("div.full{}.f32 %r0, %r1, %r2;", no_or_ftz[ftz]), quotient(false), options);
  }
}

TEST_CASE("approximate: f64") {
  const auto gross = [](Bits expected, Bits got) {
    const double want = from_bits<double>(expected), is = from_bits<double>(got);
    if (static_cast<uint32_t>(got) != 0) return false;
    if (std::isnan(want) || std::isinf(want) || want == 0) return std::isnan(want) ? std::isnan(is) : expected == got;
    return std::fabs(is - want) <= 0x1p-20 * std::fabs(want);
  };
  const auto flush = [](double x) {
    return from_bits<double>(exact::flush(exact::f64, static_cast<uint64_t>(to_bits(x))));
  };
  const std::vector<Bits> edges = format_edges(exact::f64);
  check_instruction("rcp.approx.ftz.f64 %d0, %d1;", [=](double a) { return flush(1 / flush(a)); }, {{edges}, gross});
  check_instruction("rsqrt.approx.ftz.f64 %d0, %d1;", [=](double a) { return flush(1 / std::sqrt(flush(a))); },
                    {{edges}, gross});
  const auto near = [](Bits expected, Bits got) {
    const double want = from_bits<double>(expected), is = from_bits<double>(got);
    return std::isnan(want) ? std::isnan(is) : (expected > got ? expected - got : got - expected) <= 2;
  };
  check_instruction("rsqrt.approx.f64 %d0, %d1;",
                    [](double a) { return static_cast<double>(1 / std::sqrt(static_cast<long double>(a))); },
                    {{edges}, near});
}

}  // namespace
}  // namespace gpusim
