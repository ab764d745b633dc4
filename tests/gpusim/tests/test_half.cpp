#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "gpusim/machine/instructions/half.h"

using namespace gpusim;

namespace {

/// A 16-bit float by the definition of its fields.
double value(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1), mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

/// All floats that matter to rounding into a format: each of its values, the middle to the next one, and the floats
/// next to both.
template <class To>
void check_rounding(int exponent_bits, To&& to) {
  const auto bits = [](float x) { return std::bit_cast<uint32_t>(x); };
  const uint16_t infinity = uint16_t(((1 << exponent_bits) - 1) << (15 - exponent_bits));
  int wrong = 0;
  const auto expect = [&](float x, uint16_t rounded) {
    wrong += to(x) != rounded;
    wrong += to(-x) != (rounded | 0x8000);
  };
  for (uint16_t h = 0; h < infinity; ++h) {
    const double low = value(h, exponent_bits);
    // Past the greatest value, round as if there were one more.
    const double high =
        h + 1 == infinity ? 2 * low - value(uint16_t(h - 1), exponent_bits) : value(uint16_t(h + 1), exponent_bits);
    const float middle = float((low + high) / 2);  // fits exactly
    const uint16_t above = uint16_t(h + 1), even = h & 1 ? above : h;
    expect(float(low), h);
    expect(middle, even);
    expect(std::bit_cast<float>(bits(middle) - 1), h);
    expect(std::bit_cast<float>(bits(middle) + 1), above);
  }
  expect(INFINITY, infinity);
  CHECK(wrong == 0);
  CHECK(to(NAN) == 0x7fff);
  CHECK(to(std::bit_cast<float>(0xff800001u)) == 0x7fff);
  CHECK(to(std::numeric_limits<float>::max()) == infinity);
}

}  // namespace

TEST_CASE("halves are exact as floats") {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double f16 = value(uint16_t(bits), 5), bf16 = value(uint16_t(bits), 8);
    const float a = f16_to_float(uint16_t(bits)), b = bf16_to_float(uint16_t(bits));
    wrong +=
        std::isnan(f16) ? std::bit_cast<uint32_t>(a) != 0x7fffffff : a != f16 || std::signbit(a) != std::signbit(f16);
    wrong += std::isnan(bf16) ? !std::isnan(b) : b != bf16 || std::signbit(b) != std::signbit(bf16);
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats round to the nearest half, ties to even") {
  check_rounding(5, float_to_f16);
  check_rounding(8, float_to_bf16);
}
