#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "gpusim/tests/float_reference.h"

namespace gpusim {
namespace {

using exact::Number;
using exact::Rounding;

struct Type {
  const char* name;
  int bits;
  bool is_signed;               // integers
  const exact::Format* format;  // floats
};
constexpr Type types[] = {
    {"u8", 8, false, nullptr},        {"s8", 8, true, nullptr},       {"u16", 16, false, nullptr},
    {"s16", 16, true, nullptr},       {"u32", 32, false, nullptr},    {"s32", 32, true, nullptr},
    {"u64", 64, false, nullptr},      {"s64", 64, true, nullptr},     {"f16", 16, true, &exact::f16},
    {"bf16", 16, true, &exact::bf16}, {"f32", 32, true, &exact::f32}, {"f64", 64, true, &exact::f64}};
const exact::Format& f16 = exact::f16;
const exact::Format& bf16 = exact::bf16;
const exact::Format& f32 = exact::f32;

uint64_t ones(int bits) { return ~uint64_t{0} >> (64 - bits); }

struct Conversion {
  const Type* to;
  const Type* from;
  std::optional<Rounding> rounding;
  bool ftz = false, sat = false, relu = false, satfinite = false;
};

/// What a bit pattern of a type is; exact.
Number read(const Type& type, uint64_t bits) {
  if (type.format) return exact::decode(*type.format, bits);
  const bool negative = type.is_signed && (bits >> (type.bits - 1) & 1) != 0;
  return {Number::Kind::finite, negative, negative ? (0 - bits) & ones(type.bits) : bits, 0};
}

uint64_t integer(const Conversion& c, const Number& x) {
  const int bits = c.to->bits;
  const uint64_t top = uint64_t{1} << (bits - 1);
  if (x.is_nan()) return c.from->bits == 64 || bits == 64 ? top : 0;
  const uint64_t high = c.to->is_signed ? top - 1 : ones(bits), low = c.to->is_signed ? top : 0;
  const Number largest{Number::Kind::finite, false, high, 0}, least{Number::Kind::finite, true, low, 0};
  const Number value = c.rounding ? exact::integral(x, *c.rounding) : x;
  if (exact::compare(value, largest) > 0) return high;
  if (exact::compare(value, least) < 0) return low;
  const auto size = static_cast<uint64_t>(value.mantissa << std::max(value.exponent, 0));
  return (value.negative ? 0 - size : size) & ones(bits);
}

/// Float formats' largest number instead of infinity.
uint64_t finite(const exact::Format& format, uint64_t bits) {
  return (bits & (format.sign() - 1)) == format.infinity() ? bits - 1 : bits;
}

uint64_t convert(const Conversion& c, uint64_t bits) {
  if (c.ftz && c.from->format == &f32) bits = exact::flush(f32, bits);
  const Number x = read(*c.from, bits);
  if (!c.to->format) {
    if (c.from->format || c.sat) return integer(c, x);
    return (x.negative ? 0 - static_cast<uint64_t>(x.mantissa) : static_cast<uint64_t>(x.mantissa)) & ones(c.to->bits);
  }
  const exact::Format& format = *c.to->format;
  if (c.from->format == &exact::f64 && &format == &exact::f64 && x.is_nan() && !c.sat) return bits;
  const bool integral = c.from == c.to && c.rounding;
  Number value = integral ? exact::integral(x, *c.rounding) : x;
  if (!c.from->format && value.mantissa == 0) value.negative = false;
  uint64_t result = exact::encode(format, value, c.rounding.value_or(Rounding::even));
  if (c.ftz && &format == &f32) result = exact::flush(f32, result);
  if (c.satfinite) result = finite(format, result);
  if (c.relu && result & format.sign()) result = 0;
  return c.sat ? exact::saturate(format, result) : result;
}

/// Whether both are NaN, or the bits are the same; only f64 has more than one NaN.
bool same_number(const Type& type, Bits a, Bits b) {
  if (type.format != &exact::f64) return a == b;
  const bool nan = exact::decode(exact::f64, static_cast<uint64_t>(a)).is_nan();
  return nan ? exact::decode(exact::f64, static_cast<uint64_t>(b)).is_nan() : a == b;
}

std::vector<Bits> values_of(const Type& type) {
  std::vector<Bits> values;
  if (type.format) {
    values = format_edges(*type.format);
    for (const long double base : {0.5L,    1.0L,     2.5L,     127.0L,   127.5L,    128.0L,    255.0L,    255.5L,
                                   256.0L,  32767.5L, 65504.0L, 65519.0L, 65520.0L,  65535.5L,  0x1p31L,   0x1p32L,
                                   0x1p63L, 0x1p64L,  0x1p-24L, 0x1p-25L, 0x1p-133L, 0x1p-134L, 0x1p-149L, 0x1p-150L})
      for (const int step : {-1, 0, 1}) {
        const uint64_t bits = exact::encode(*type.format, exact::number(base)) + static_cast<uint64_t>(step);
        values.push_back(bits);
        values.push_back(bits ^ type.format->sign());
      }
    for (int e = -30; e < 66; ++e)  // halfway between numbers of narrower formats, and next to it
      for (const long double tail : {0x1p-11L, 0x3p-11L, 0x1p-8L, 0x3p-8L, 0x1p-24L, 0x3p-24L})
        for (const int step : {-1, 0, 1}) {
          const uint64_t bits = exact::encode(*type.format, exact::number(std::ldexp(1 + tail, e)));
          values.push_back(bits + static_cast<uint64_t>(step));
          values.push_back((bits + static_cast<uint64_t>(step)) | type.format->sign());
        }
  } else {
    for (int bit = 0; bit < type.bits; ++bit)
      for (int low = -1; low < bit; ++low)  // 2^bit + 2^low, and next to it: halves of the last place for every float
        for (const int step : {-1, 0, 1})
          for (const bool negative : {false, true}) {
            const uint64_t size =
                (uint64_t{1} << bit) + (low < 0 ? 0 : uint64_t{1} << low) + static_cast<uint64_t>(step);
            values.push_back((negative ? 0 - size : size) & ones(type.bits));
          }
  }
  return values;
}

const char* prefix(int bits) { return bits == 8 ? "%b8_" : bits == 16 ? "%h" : bits == 32 ? "%r" : "%d"; }

/// The conversion between registers of those widths.
void check_conversion(const Conversion& c, const std::string& modifiers, int to_width, int from_width) {
  Reference reference;
  reference.results = {{static_cast<uint8_t>(to_width / 8), false}};
  reference.arguments = {{static_cast<uint8_t>(from_width / 8), false}};
  reference.run = [&](const Bits* a, Bits* results, Carry&) {
    uint64_t result = convert(c, static_cast<uint64_t>(a[0]) & ones(c.from->bits));
    if (!c.to->format && c.to->is_signed && result >> (c.to->bits - 1)) result |= ~ones(c.to->bits);
    results[0] = result & ones(to_width);
  };
  CheckOptions options;
  options.values = {values_of(*c.from)};
  options.same = [&](Bits expected, Bits got) { return same_number(*c.to, expected, got); };
  check_instruction(
      fmt::format("cvt{}.{}.{} {}0, {}1;", modifiers, c.to->name, c.from->name, prefix(to_width), prefix(from_width)),
      reference, options);
}

/// Every conversion between two types as they are.
template <class F>
void each_pair(F&& f) {
  for (const Type& to : types)
    for (const Type& from : types) f(to, from);
}

TEST_CASE("conversion: integers to integers, in registers of any width") {
  each_pair([](const Type& to, const Type& from) {
    if (to.format || from.format) return;
    for (const bool sat : {false, true})
      for (int to_width = std::max(to.bits, 8); to_width <= 64; to_width *= 2)
        for (int from_width = std::max(from.bits, 8); from_width <= 64; from_width *= 2)
          check_conversion({&to, &from, {}, false, sat}, sat ? ".sat" : "", to_width, from_width);
  });
}

TEST_CASE("conversion: integers to floats, in every direction") {
  each_pair([](const Type& to, const Type& from) {
    if (!to.format || from.format) return;
    for (const auto& [modifier, rounding] : roundings) {
      check_conversion({&to, &from, rounding}, modifier, to.bits, from.bits);
      if (to.format != &bf16)
        check_conversion({&to, &from, rounding, false, true}, fmt::format("{}.sat", modifier), to.bits, from.bits);
    }
    if (from.bits < 64) check_conversion({&to, &from, Rounding::even}, ".rn", 64, 64);
  });
}

TEST_CASE("conversion: floats to integers clamp") {
  each_pair([](const Type& to, const Type& from) {
    if (to.format || !from.format) return;
    for (const auto& [modifier, rounding] : roundings) {
      check_conversion({&to, &from, rounding}, fmt::format("{}i", modifier), to.bits, from.bits);
      if (from.format == &f32)
        check_conversion({&to, &from, rounding, true}, fmt::format("{}i.ftz", modifier), to.bits, from.bits);
    }
    if (from.format != &bf16)
      check_conversion({&to, &from, Rounding::zero, false, true}, ".rzi.sat", to.bits, from.bits);
    if (to.bits < 64) check_conversion({&to, &from, Rounding::even}, ".rni", 64, from.bits);
  });
}

TEST_CASE("conversion: floats to floats") {
  each_pair([](const Type& to, const Type& from) {
    if (!to.format || !from.format) return;
    const bool has_f32 = to.format == &f32 || from.format == &f32, brain = to.format == &bf16 || from.format == &bf16;
    const auto check = [&](std::optional<Rounding> rounding, const std::string& modifier) {
      for (const bool ftz : {false, true})
        for (const bool sat : {false, true})
          if ((has_f32 || !ftz) && (!brain || !sat))
            check_conversion({&to, &from, rounding, ftz, sat},
                             fmt::format("{}{}{}", modifier, ftz ? ".ftz" : "", sat ? ".sat" : ""), to.bits, from.bits);
    };
    const bool same = &to == &from, wider = to.bits > from.bits;
    if (same || wider) check({}, "");
    if (wider) return;
    for (const auto& [modifier, rounding] : roundings) check(rounding, fmt::format("{}{}", modifier, same ? "i" : ""));
  });
  // Halves in wider registers.
  check_conversion({&types[8], &types[10], Rounding::even}, ".rn", 32, 32);
  check_conversion({&types[10], &types[9], {}}, "", 32, 32);
}

TEST_CASE("conversion: .relu and .satfinite to halves") {
  for (const int to : {8, 9})
    for (const auto& [modifier, rounding] : roundings)
      for (const bool relu : {false, true})
        for (const bool satfinite : {false, true})
          check_conversion({&types[to], &types[10], rounding, false, false, relu, satfinite},
                           fmt::format("{}{}{}", modifier, relu ? ".relu" : "", satfinite ? ".satfinite" : ""), 16, 32);
}

TEST_CASE("conversion: two f32 to a pair of halves") {
  for (const int to : {8, 9})
    for (const auto& [modifier, rounding] : {roundings[0], roundings[1]})
      for (const bool relu : {false, true})
        for (const bool satfinite : {false, true}) {
          const Conversion c{&types[to], &types[10], rounding, false, false, relu, satfinite};
          check_instruction(
              fmt::format("cvt{}{}{}.{}x2.f32 %r0, %r1, %r2;", modifier, relu ? ".relu" : "",
                          satfinite ? ".satfinite" : "", types[to].name),
              [c](uint32_t a, uint32_t b) { return static_cast<uint32_t>(convert(c, a) << 16 | convert(c, b)); },
              {{format_edges(f32), format_edges(f32)}, {}});
        }
}

TEST_CASE("conversion: tf32") {
  constexpr exact::Format tf32{11, -126, 127, 19, 0x3ffff};
  struct Mode {
    const char* modifier;
    Rounding rounding;
  };
  for (const auto& [modifier, rounding] :
       {Mode{".rna", Rounding::away}, Mode{".rn", Rounding::even}, Mode{".rz", Rounding::zero}})
    for (const bool relu : {false, true})
      for (const bool satfinite : {false, true}) {
        if (relu && rounding == Rounding::away) continue;
        check_instruction(
            fmt::format("cvt{}{}{}.tf32.f32 %r0, %r1;", modifier, relu ? ".relu" : "", satfinite ? ".satfinite" : ""),
            [=](uint32_t a) {
              const Number x = exact::decode(f32, a);
              if (x.is_nan()) return 0x7fffffffu;
              uint64_t bits = exact::encode(tf32, x, rounding);
              if (satfinite) bits = finite(tf32, bits);
              return relu && x.negative ? 0u : static_cast<uint32_t>(bits << 13);
            },
            {{values_of(types[10])}, {}});
      }
}

/// e4m3 uses the exponent that others keep for infinities: only the last pattern is no number.
struct Fp8 {
  const char* name;
  exact::Format format;
  uint64_t largest;
};
constexpr Fp8 fp8s[] = {{"e4m3x2", {4, -6, 8, 8, 0x7f}, 0x7e}, {"e5m2x2", {3, -14, 15, 8, 0x7f}, 0x7b}};

uint64_t to_fp8(const Fp8& fp8, Number x, bool relu) {
  if (x.is_nan()) return 0x7f;
  const uint64_t sign = x.negative ? 0x80 : 0;
  if (relu && x.negative) return 0;
  x.negative = false;
  return sign | std::min(exact::encode(fp8.format, x), fp8.largest);
}

TEST_CASE("conversion: fp8 pairs") {
  for (const Fp8& fp8 : fp8s)
    for (const bool relu : {false, true}) {
      const std::string modifiers = fmt::format(".rn.satfinite{}", relu ? ".relu" : "");
      std::vector<Bits> values = values_of(types[10]);
      for (int e = -20; e < 20; ++e)
        for (int m = 64; m < 128; ++m)
          for (const int step : {-1, 0, 1})
            values.push_back(to_bits(std::ldexp(static_cast<float>(m), e)) + static_cast<Bits>(step));
      check_instruction(fmt::format("cvt{}.{}.f32 %h0, %r1, 0f3FC00000;", modifiers, fp8.name),
                        [=](uint32_t a) {
                          return static_cast<uint16_t>(to_fp8(fp8, exact::decode(f32, a), relu) << 8 |
                                                       to_fp8(fp8, exact::number(1.5), relu));
                        },
                        {{values}, {}});
      check_instruction(fmt::format("cvt{}.{}.f32 %h0, %r1, %r2;", modifiers, fp8.name),
                        [=](uint32_t a, uint32_t b) {
                          return static_cast<uint16_t>(to_fp8(fp8, exact::decode(f32, a), relu) << 8 |
                                                       to_fp8(fp8, exact::decode(f32, b), relu));
                        },
                        {{format_edges(f32), format_edges(f32)}, {}});
      for (uint32_t from = 0; from < 0x10000; from += 0x4000) {
        std::vector<Bits> halves;
        for (uint32_t x = from; x < from + 0x4000; ++x) halves.push_back(x << 16 | ((x * 7919) & 0xffff));
        check_instruction(fmt::format("cvt{}.{}.f16x2 %h0, %r1;", modifiers, fp8.name),
                          [=](uint32_t a) {
                            return static_cast<uint16_t>(to_fp8(fp8, exact::decode(f16, a >> 16), relu) << 8 |
                                                         to_fp8(fp8, exact::decode(f16, a & 0xffff), relu));
                          },
                          {{halves}, {}});
        std::vector<Bits> bytes;
        for (uint32_t x = from; x < from + 0x4000; ++x) bytes.push_back(x);
        const auto half = [=](uint32_t bits) {
          const bool nan = fp8.format.precision == 4 ? (bits & 0x7f) == 0x7f : (bits & 0x7f) > 0x7c;
          const Number x = exact::decode(fp8.format, bits);
          return nan ? uint64_t{0x7fff} : relu && x.negative ? 0 : exact::encode(f16, x);
        };
        check_instruction(fmt::format("cvt.rn{}.f16x2.{} %r0, %h1;", relu ? ".relu" : "", fp8.name),
                          [=](uint16_t a) { return static_cast<uint32_t>(half(a >> 8) << 16 | half(a & 0xff)); },
                          {{bytes}, {}});
      }
    }
}

TEST_CASE("conversion: pack") {
  struct Packed {
    const char* name;
    int bits;
    int32_t low, high;
  };
  const auto part = [](const Packed& p, int32_t x) {
    return static_cast<uint32_t>(std::min(std::max(x, p.low), p.high)) & static_cast<uint32_t>(ones(p.bits));
  };
  for (const Packed& p : {Packed{"u16", 16, 0, 65535}, Packed{"s16", 16, -32768, 32767}})
    check_instruction(fmt::format("cvt.pack.sat.{}.s32 %r0, %r1, %r2;", p.name),
                      [=](int32_t a, int32_t b) { return part(p, a) << 16 | part(p, b); });
  for (const Packed& p : {Packed{"u8", 8, 0, 255}, Packed{"s8", 8, -128, 127}, Packed{"u4", 4, 0, 15},
                          Packed{"s4", 4, -8, 7}, Packed{"u2", 2, 0, 3}, Packed{"s2", 2, -2, 1}})
    check_instruction(
        fmt::format("cvt.pack.sat.{}.s32.b32 %r0, %r1, %r2, %r3;", p.name),
        [=](int32_t a, int32_t b, uint32_t c) { return c << (2 * p.bits) | part(p, a) << p.bits | part(p, b); });
}

TEST_CASE("conversion: unknown variants are refused") {
  for (const char* text :
       {"cvt.f32.s32 %r0, %r1;", "cvt.rn.s32.f32 %r0, %r1;", "cvt.s32.f32 %r0, %r1;", "cvt.rn.f64.f32 %d0, %r1;",
        "cvt.f32.f64 %r0, %d1;", "cvt.rni.f32.f64 %r0, %d1;", "cvt.rn.u32.s32 %r0, %r1;", "cvt.u32.u64 %h0, %d1;",
        "cvt.u64.u32 %d0, %h1;", "cvt.rn.sat.bf16.f32 %h0, %r1;", "cvt.relu.f32.f16 %r0, %h1;",
        "cvt.rna.f16.f32 %h0, %r1;", "cvt.rna.relu.tf32.f32 %r0, %r1;", "cvt.rm.f16x2.f32 %r0, %r1, %r2;",
        "cvt.rn.e4m3x2.f32 %h0, %r1, %r2;", "cvt.rn.satfinite.e2m1x2.f32 %b8_0, %r1, %r2;",
        "cvt.rs.f16x2.f32 %r0, %r1, %r2, %r3;", "cvt.pack.u8.s32.b32 %r0, %r1, %r2, %r3;", "cvt.ftz.f64.f16 %d0, %h1;"})
    check_unknown(text);
}

}  // namespace
}  // namespace gpusim
