#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "gpusim/tests/float_reference.h"

namespace gpusim {
namespace {

using exact::Number;
using exact::Rounding;

constexpr const char* no_or_ftz[] = {"", ".ftz"};

const auto sum = [](const Number& a, const Number& b, Rounding r) { return exact::add(a, b, r); };
const auto difference = [](const Number& a, const Number& b, Rounding r) { return exact::add(a, exact::negate(b), r); };
const auto product = [](const Number& a, const Number& b, Rounding) { return exact::multiply(a, b); };
const auto fused = [](const Number& a, const Number& b, const Number& c, Rounding r) {
  return exact::add(exact::multiply(a, b), c, r);
};

/// Numbers next to edges, in both halves.
std::vector<Bits> pair_edges(const exact::Format& format) {
  const std::vector<Bits> edges = format_edges(format);
  std::vector<Bits> pairs;
  for (size_t i = 0; i < edges.size(); ++i) pairs.push_back(edges[i] << 16 | edges[(i * 7 + 3) % edges.size()]);
  return pairs;
}

/// Checks an instruction on halves and on pairs of them: f(bits…) is one half's result.
template <class F>
void check_halves(const std::string& name, const exact::Format& format, size_t operands, F f) {
  const char* type = format.precision == 11 ? "f16" : "bf16";
  const auto run = [&](const std::string& registers, uint8_t bytes, const std::vector<Bits>& edges) {
    Reference reference;
    reference.results = {{bytes, false}};
    reference.arguments = std::vector<Reference::Type>(operands, {bytes, false});
    reference.run = [=](const Bits* a, Bits* results, Carry&) {
      results[0] = 0;
      for (int half = 0; half < bytes / 2; ++half) {
        uint16_t x[3] = {};
        for (size_t i = 0; i < operands; ++i) x[i] = static_cast<uint16_t>(a[i] >> 16 * half);
        results[0] |= Bits{static_cast<uint16_t>(f(x))} << 16 * half;
      }
    };
    check_instruction(registers, reference, {std::vector<std::vector<Bits>>(operands, edges), {}});
  };
  const char* const lists[2][3] = {{"%h0, %h1", "%h0, %h1, %h2", "%h0, %h1, %h2, %h3"},
                                   {"%r0, %r1", "%r0, %r1, %r2", "%r0, %r1, %r2, %r3"}};
  run(fmt::format("{}.{} {};", name, type, lists[0][operands - 1]), 2, format_edges(format));
  run(fmt::format("{}.{}x2 {};", name, type, lists[1][operands - 1]), 4, pair_edges(format));
}

TEST_CASE("half: sums, differences and products") {
  for (const char* rounding : {"", ".rn"})
    for (const exact::Format* format : {&exact::f16, &exact::bf16})
      for (const bool ftz : {false, true})
        for (const bool sat : {false, true}) {
          if (format == &exact::bf16 && (ftz || sat)) continue;
          const FloatRules rules{format, Rounding::even, ftz, sat, false};
          const std::string modifiers = fmt::format("{}{}{}", rounding, no_or_ftz[ftz], sat ? ".sat" : "");
          check_halves("add" + modifiers, *format, 2, [=](const uint16_t* x) { return apply(rules, sum, x[0], x[1]); });
          check_halves("sub" + modifiers, *format, 2,
                       [=](const uint16_t* x) { return apply(rules, difference, x[0], x[1]); });
          check_halves("mul" + modifiers, *format, 2,
                       [=](const uint16_t* x) { return apply(rules, product, x[0], x[1]); });
        }
}

TEST_CASE("half: fma rounds once") {
  for (const exact::Format* format : {&exact::f16, &exact::bf16})
    for (const bool ftz : {false, true})
      for (const char* clamp : {"", ".sat", ".relu"}) {
        const bool sat = std::string_view(clamp) == ".sat", relu = std::string_view(clamp) == ".relu";
        if (format == &exact::bf16 && (ftz || sat)) continue;
        const FloatRules rules{format, Rounding::even, ftz, sat, relu};
        check_halves(fmt::format("fma.rn{}{}", no_or_ftz[ftz], clamp), *format, 3,
                     [=](const uint16_t* x) { return apply(rules, fused, x[0], x[1], x[2]); });
      }
}

/// A product halfway between two numbers, and a summand too small for anything but the direction: rounding twice fails.
TEST_CASE("half: fma with the smallest of summands") {
  const auto check = [](const exact::Format& format, const char* text, uint16_t a, uint16_t b) {
    InstructionCase instruction(text);
    for (const uint16_t c : {uint16_t{1}, uint16_t{0x8001}, uint16_t{0}}) {
      instruction.set_each(1, [a](int) { return a; });
      instruction.set_each(2, [b](int) { return b; });
      instruction.set_each(3, [c](int) { return c; });
      instruction.run();
      CHECK(instruction.get(0, 5) == apply({&format, Rounding::even, false, false, false}, fused, a, b, c));
    }
  };
  check(exact::bf16, "fma.rn.bf16 %h0, %h1, %h2, %h3;", 0x3f81, 0x3fc0);  // (1 + 2^-7)·1.5 = 1.5 + 1.5·2^-7
  check(exact::bf16, "fma.rn.bf16 %h0, %h1, %h2, %h3;", 0x5f81, 0x5fc0);
  check(exact::f16, "fma.rn.f16 %h0, %h1, %h2, %h3;", 0x3c01, 0x3e00);
  check(exact::f16, "fma.rn.f16 %h0, %h1, %h2, %h3;", 0x5801, 0x5a00);
}

TEST_CASE("half: abs, neg, min and max") {
  for (const exact::Format* format : {&exact::f16, &exact::bf16})
    for (const bool ftz : {false, true}) {
      if (format == &exact::bf16 && ftz) continue;
      const auto magnitude = [=](uint64_t x) { return ftz ? exact::flush(*format, x) : x; };
      const auto is_nan = [=](uint64_t x) { return (x & 0x7fff) > format->infinity(); };
      check_halves(fmt::format("abs{}", no_or_ftz[ftz]), *format, 1,
                   [=](const uint16_t* x) { return is_nan(x[0]) ? format->nan : magnitude(x[0]) & 0x7fff; });
      check_halves(fmt::format("neg{}", no_or_ftz[ftz]), *format, 1,
                   [=](const uint16_t* x) { return is_nan(x[0]) ? format->nan : magnitude(x[0]) ^ 0x8000; });
      for (const bool maximum : {false, true})
        for (const bool nan : {false, true})
          for (const bool xorsign : {false, true}) {
            const FloatRules rules{format, Rounding::even, ftz, false, false};
            const MinMaxRules how{maximum, nan, xorsign};
            check_halves(fmt::format("{}{}{}{}", maximum ? "max" : "min", no_or_ftz[ftz], nan ? ".NaN" : "",
                                     xorsign ? ".xorsign.abs" : ""),
                         *format, 2, [=](const uint16_t* x) { return min_max(rules, how, x[0], x[1]); });
          }
    }
}

/// Every half there is; one unit is less than what the ISA allows.
TEST_CASE("half: ex2 and tanh of every number") {
  for (const exact::Format* format : {&exact::f16, &exact::bf16}) {
    const bool brain = format == &exact::bf16;
    const auto number = [=](uint16_t x) {
      return brain ? std::bit_cast<float>(uint32_t{x} << 16)
                   : static_cast<float>(std::copysign((x & 0x7c00) == 0x7c00 ? ((x & 0x3ff) ? NAN : INFINITY)
                                                      : (x & 0x7c00)
                                                          ? std::ldexp(1024.0 + (x & 0x3ff), ((x >> 10) & 31) - 25)
                                                          : std::ldexp(x & 0x3ff, -24),
                                                      x & 0x8000 ? -1.0 : 1.0));
    };
    const auto value = [=](uint16_t x, long double (*f)(long double), bool ftz) {
      const auto flushed = [=](uint64_t bits) { return ftz ? exact::flush(*format, bits) : bits; };
      const float argument = number(static_cast<uint16_t>(flushed(x)));
      return static_cast<uint16_t>(flushed(exact::encode(*format, exact::number(f(argument)))));
    };
    const auto exp2 = [](long double x) { return std::exp2(x); };
    const auto tanh = [](long double x) { return std::tanh(x); };
    for (uint32_t from = 0; from < 0x10000; from += 0x4000) {
      std::vector<Bits> values;
      for (uint32_t x = from; x < from + 0x4000; ++x) values.push_back(x);
      const CheckOptions options = within_units(*format, 1, values);
      check_instruction(
          brain ? "ex2.approx.ftz.bf16 %h0, %h1;" : "ex2.approx.f16 %h0, %h1;",
          [=](uint16_t x) { return value(x, exp2, brain); }, options);
      check_instruction(
          brain ? "tanh.approx.bf16 %h0, %h1;" : "tanh.approx.f16 %h0, %h1;",
          [=](uint16_t x) { return value(x, tanh, false); }, options);
    }
    const auto both = [=](auto f) {
      return
          [=](uint32_t x) { return uint32_t{f(static_cast<uint16_t>(x >> 16))} << 16 | f(static_cast<uint16_t>(x)); };
    };
    CheckOptions options;
    options.values = {pair_edges(*format)};
    options.same = [format](Bits expected, Bits got) {
      const auto same = within_units(*format, 1).same;
      return same(static_cast<uint16_t>(expected), static_cast<uint16_t>(got)) && same(expected >> 16, got >> 16);
    };
    check_instruction(brain ? "ex2.approx.ftz.bf16x2 %r0, %r1;" : "ex2.approx.f16x2 %r0, %r1;",
                      both([=](uint16_t x) { return value(x, exp2, brain); }), options);
    check_instruction(brain ? "tanh.approx.bf16x2 %r0, %r1;" : "tanh.approx.f16x2 %r0, %r1;",
                      both([=](uint16_t x) { return value(x, tanh, false); }), options);
  }
}

TEST_CASE("half: unknown variants are refused") {
  for (const char* text :
       {"add.rz.f16 %h0, %h1, %h2;", "add.ftz.bf16 %h0, %h1, %h2;", "mul.sat.bf16x2 %r0, %r1, %r2;",
        "fma.f16 %h0, %h1, %h2, %h3;", "fma.rn.sat.relu.f16 %h0, %h1, %h2, %h3;", "fma.rn.ftz.bf16 %h0, %h1, %h2, %h3;",
        "fma.rn.oob.f16 %h0, %h1, %h2, %h3;", "abs.ftz.bf16 %h0, %h1;", "min.abs.f16 %h0, %h1, %h2;",
        "ex2.approx.ftz.f16 %h0, %h1;", "ex2.approx.bf16 %h0, %h1;", "tanh.approx.ftz.f16 %h0, %h1;"})
    check_unknown(text);
}

}  // namespace
}  // namespace gpusim
