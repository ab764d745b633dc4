#include "engine/dtype.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

using namespace lightcone;

namespace {
/// A format as the standards' text gives it: value = (-1)^s * 2^(e - bias) * (1 + m / 2^M), subnormal for e = 0.
struct Format {
  int exponent, mantissa;
  bool infinity;
  int bias() const { return (1 << (exponent - 1)) - 1; }
  int sign_bit() const { return exponent + mantissa; }
  uint32_t largest() const {  // the pattern of the largest finite number
    const uint32_t all = (1u << sign_bit()) - 1;
    return infinity ? all - (1u << mantissa) : all - 1;
  }
  /// Of a pattern without sign; the one above the largest is what follows if the range went on.
  double value(uint32_t pattern) const {
    const int e = static_cast<int>(pattern >> mantissa);
    const double m = static_cast<double>(pattern & ((1u << mantissa) - 1)) / (1 << mantissa);
    return e == 0 ? std::ldexp(m, 1 - bias()) : std::ldexp(1 + m, e - bias());
  }
  /// The nearest pattern by search, ties to the even one; what lies beyond the largest becomes largest() + 1: infinity
  /// or, in e4m3, NaN.
  uint32_t nearest(double x) const {
    const uint32_t sign = std::signbit(x) ? 1u << sign_bit() : 0;
    const double magnitude = std::abs(x);
    uint32_t low = 0, high = largest() + 1;
    if (magnitude >= value(high)) return sign | high;
    while (high - low > 1) {
      const uint32_t middle = (low + high) / 2;
      (value(middle) <= magnitude ? low : high) = middle;
    }
    // Differences of neighbours are exact in double only where x is not much finer; long double covers the rest.
    const long double below = static_cast<long double>(magnitude) - value(low);
    const long double above = static_cast<long double>(value(high)) - magnitude;
    const bool up = above < below || (above == below && (low & 1));
    return sign | (up ? high : low);
  }
};

template <class T>
constexpr Format format{};
template <>
constexpr Format format<bf16>{8, 7, true};
template <>
constexpr Format format<f16>{5, 10, true};
template <>
constexpr Format format<fp8_e4m3>{4, 3, false};
template <>
constexpr Format format<fp8_e5m2>{5, 2, true};

template <class T>
T from_bits(uint32_t bits) {
  T t;
  t.bits = static_cast<decltype(t.bits)>(bits);
  return t;
}

/// Counts instead of CHECKs: millions of cases.
template <class T, class F>
int64_t mistakes(const std::vector<F>& inputs) {
  int64_t wrong = 0;
  for (F x : inputs)
    for (F signed_x : {x, -x})
      if (T(signed_x).bits != format<T>.nearest(static_cast<double>(signed_x))) {
        if (wrong++ == 0) MESSAGE("first mistake: ", static_cast<double>(signed_x), " becomes ", T(signed_x).bits);
      }
  return wrong;
}
}  // namespace

TEST_CASE_TEMPLATE("dtype: every pattern decodes to the value of the standard and encodes back", T, bf16, f16, fp8_e4m3,
                   fp8_e5m2) {
  const Format& f = format<T>;
  int64_t wrong = 0, nans = 0;
  for (uint32_t bits = 0; bits < 1u << (8 * sizeof(T)); ++bits) {
    const T t = from_bits<T>(bits);
    const float x = t;
    const uint32_t magnitude = bits & ((1u << f.sign_bit()) - 1);
    if (std::signbit(x) != static_cast<bool>(bits >> f.sign_bit())) ++wrong;
    if (magnitude <= f.largest()) {
      if (std::abs(x) != f.value(magnitude) || T(x).bits != bits || T(static_cast<double>(x)).bits != bits) ++wrong;
    } else if (f.infinity && magnitude == f.largest() + 1) {
      if (!std::isinf(x) || T(x).bits != bits) ++wrong;
    } else {
      ++nans;
      if (!std::isnan(x) || !std::isnan(static_cast<float>(T(x)))) ++wrong;
      // Quiet NaNs keep their payload; signalling ones become quiet.
      if (f.infinity && T(x).bits != (bits | 1u << (f.mantissa - 1))) ++wrong;
      if (!std::isnan(static_cast<float>(T(static_cast<double>(x))))) ++wrong;
    }
  }
  CHECK(wrong == 0);
  CHECK(nans == 2 * (f.infinity ? (1 << f.mantissa) - 1 : 1));
}

TEST_CASE_TEMPLATE("dtype: floats round to the nearest, ties to even", T, bf16, f16, fp8_e4m3, fp8_e5m2) {
  std::vector<float> inputs;
  for (uint32_t upper = 0; upper < 0x7f80; ++upper)  // all upper halves of finite floats, and around their midpoints
    for (uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      inputs.push_back(std::bit_cast<float>(upper << 16 | lower));
  for (uint32_t p = 0; p <= format<T>.largest(); ++p) {
    const float middle = static_cast<float>(0.5 * (format<T>.value(p) + format<T>.value(p + 1)));
    for (float x : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, INFINITY)})
      if (std::isfinite(x)) inputs.push_back(x);
  }
  CHECK(mistakes<T>(inputs) == 0);
}

TEST_CASE_TEMPLATE("dtype: doubles round once", T, bf16, f16, fp8_e4m3, fp8_e5m2) {
  // Next to a midpoint by less than a float can tell: rounding to float first would make a tie of it.
  std::vector<double> inputs;
  for (uint32_t p = 0; p <= format<T>.largest(); ++p) {
    const double middle = 0.5 * (format<T>.value(p) + format<T>.value(p + 1));
    for (double x : {middle, format<T>.value(p)})
      for (double y : {x, std::nextafter(x, 0.0), std::nextafter(x, INFINITY), x * (1 - 1e-12), x * (1 + 1e-12)})
        inputs.push_back(y);
  }
  for (double x : {1e-320, 1e-50, 5e-46, 1e-45, 1e39, 1e300, std::numeric_limits<double>::max()}) inputs.push_back(x);
  CHECK(mistakes<T>(inputs) == 0);
}

TEST_CASE("dtype: overflow, infinity, NaN, zero") {
  const float inf = INFINITY;
  CHECK(static_cast<float>(f16(65519.0f)) == 65504.0f);
  CHECK(static_cast<float>(f16(65520.0f)) == inf);
  CHECK(static_cast<float>(bf16(3.4028235e38f)) == inf);
  CHECK(static_cast<float>(fp8_e5m2(61440.0f)) == inf);
  CHECK(static_cast<float>(fp8_e5m2(61439.0f)) == 57344.0f);
  CHECK(static_cast<float>(fp8_e4m3(464.0f)) == 448.0f);
  CHECK(std::isnan(static_cast<float>(fp8_e4m3(464.1f))));
  CHECK(fp8_e4m3(inf).bits == 0x7f);
  CHECK(fp8_e4m3(-inf).bits == 0xff);
  CHECK(static_cast<float>(fp8_e5m2(-inf)) == -inf);
  CHECK(static_cast<float>(bf16(1e300)) == inf);
  CHECK(static_cast<float>(f16(-std::numeric_limits<double>::infinity())) == -inf);
  CHECK(bf16(-0.0f).bits == 0x8000);
  CHECK(f16(-1e-30).bits == 0x8000);
  CHECK(fp8_e4m3(-1e-30f).bits == 0x80);
  // A NaN whose payload lies only in bits that are dropped must not become infinite.
  const float low_payload = std::bit_cast<float>(0x7f800001u);
  CHECK(std::isnan(static_cast<float>(bf16(low_payload))));
  CHECK(std::isnan(static_cast<float>(f16(low_payload))));
  CHECK(std::isnan(static_cast<float>(fp8_e5m2(low_payload))));
  CHECK(static_cast<float>(bf16(int64_t{-3})) == -3.0f);
  CHECK(static_cast<float>(f16(true)) == 1.0f);
}

TEST_CASE("dtype: names, sizes and dispatch agree") {
  const std::vector<std::pair<std::string_view, size_t>> expected = {
      {"f64", 8},      {"f32", 4}, {"bf16", 2}, {"f16", 2}, {"fp8_e4m3", 1},
      {"fp8_e5m2", 1}, {"i8", 1},  {"i32", 4},  {"i64", 8}, {"bool", 1}};
  for (size_t i = 0; i < expected.size(); ++i) {
    const DType d = static_cast<DType>(i);
    CHECK(name_of(d) == expected[i].first);
    CHECK(size_of(d) == expected[i].second);
    CHECK(is_floating(d) == (i < 6));
    CHECK(dispatch_all(d, [](auto t) { return dtype_of<typename decltype(t)::type>; }) == d);
  }
  CHECK_THROWS_WITH_AS(dispatch_compute("layer_norm", DType::i8, [](auto) {}),
                       "layer_norm: dtype i8 is not supported, expected f64, f32 or bf16", Error);
}
