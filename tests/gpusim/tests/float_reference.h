#pragma once
#include <string>
#include <vector>

#include "gpusim/tests/exact_float.h"
#include "gpusim/tests/instruction_case.h"

namespace gpusim {

// What the tests of floating-point instructions share: references over exact numbers, and values worth trying.

struct NamedRounding {
  const char* modifier;
  exact::Rounding rounding;
};
inline constexpr NamedRounding roundings[] = {{".rn", exact::Rounding::even},
                                              {".rz", exact::Rounding::zero},
                                              {".rm", exact::Rounding::down},
                                              {".rp", exact::Rounding::up}};

/// How an instruction treats operands and result.
struct FloatRules {
  const exact::Format* format = &exact::f32;
  exact::Rounding rounding = exact::Rounding::even;
  bool ftz = false, sat = false, relu = false;
};

/// f, of exact numbers and the rounding, on a format's bits.
template <class F, class... A>
uint64_t apply(const FloatRules& rules, F&& f, A... bits) {
  const exact::Format& format = *rules.format;
  const auto operand = [&](uint64_t x) { return exact::decode(format, rules.ftz ? exact::flush(format, x) : x); };
  uint64_t result = exact::encode(format, f(operand(static_cast<uint64_t>(bits))..., rules.rounding), rules.rounding);
  if (rules.ftz) result = exact::flush(format, result);
  if (rules.relu && (result & format.sign()) != 0 && result != format.nan) result = 0;
  return rules.sat ? exact::saturate(format, result) : result;
}

/// Edges for every operand: zeros, subnormals, halfway cases of sums and products, the largest, infinities and NaNs.
inline std::vector<Bits> format_edges(const exact::Format& format) {
  const int fraction = format.precision - 1;
  const auto power = [&](int e) { return static_cast<uint64_t>(e - format.least + 1) << fraction; };
  std::vector<Bits> edges;
  for (const uint64_t bits : {uint64_t{0},
                              uint64_t{1},
                              power(format.least) / 2,
                              power(format.least) - 1,
                              power(format.least),
                              power(0),
                              power(0) + 1,
                              power(0) - 1,
                              power(0) + (uint64_t{1} << (fraction - 1)),
                              power(-format.precision),
                              power(-format.precision) + 1,
                              power(fraction),
                              power(fraction) + 1,
                              power(-2) + 3,
                              power(3) - 1,
                              power(format.most),
                              format.infinity() - 1,
                              format.infinity(),
                              format.infinity() + 1,
                              format.nan & ~format.sign()}) {
    edges.push_back(bits);
    edges.push_back(bits | format.sign());
  }
  return edges;
}

inline CheckOptions with_edges(const exact::Format& format, size_t operands) {
  return {std::vector<std::vector<Bits>>(operands, format_edges(format)), {}};
}

/// min and max: equal zeros by sign, one NaN gives the other operand unless `nan`.
struct MinMaxRules {
  bool maximum = false, nan = false, xorsign = false;
};
inline uint64_t min_max(const FloatRules& rules, const MinMaxRules& how, uint64_t a, uint64_t b) {
  const exact::Format& format = *rules.format;
  if (rules.ftz) a = exact::flush(format, a), b = exact::flush(format, b);
  const uint64_t sign = (a ^ b) & format.sign();
  if (how.xorsign) a &= ~format.sign(), b &= ~format.sign();
  const exact::Number x = exact::decode(format, a), y = exact::decode(format, b);
  if ((x.is_nan() && y.is_nan()) || (how.nan && (x.is_nan() || y.is_nan()))) return format.nan;
  uint64_t result = 0;
  if (x.is_nan() || y.is_nan()) {
    result = x.is_nan() ? b : a;
  } else {
    const int order = exact::compare(x, y);
    const bool a_less = order < 0 || (order == 0 && x.negative);
    result = a_less == how.maximum ? b : a;
  }
  return how.xorsign ? (result & ~format.sign()) | sign : result;
}

/// For a result that need not be exact: NaNs and zeros have to be the same, other numbers within so many units of the
/// last place.
inline CheckOptions within_units(const exact::Format& format, uint64_t units, std::vector<Bits> values = {}) {
  CheckOptions options;
  if (!values.empty()) options.values = {std::move(values)};
  options.same = [&format, units](Bits expected, Bits got) {
    const auto a = static_cast<uint64_t>(expected), b = static_cast<uint64_t>(got);
    const bool special = a == format.nan || (a & (format.sign() - 1)) == 0;
    return special || (a & format.sign()) != (b & format.sign()) ? a == b : (a > b ? a - b : b - a) <= units;
  };
  return options;
}

}  // namespace gpusim
