#include "gpusim/tests/exact_float.h"

#include <cmath>
#include <utility>

namespace gpusim::exact {
namespace {

using Kind = Number::Kind;

int length(Mantissa m) {
  int bits = 0;
  for (; m != 0; m >>= 1) ++bits;
  return bits;
}

/// m / 2^by, with what falls off kept in the last bit.
Mantissa shift_right(Mantissa m, int by) {
  if (by >= 128) return m != 0 ? 1 : 0;
  const Mantissa kept = m >> by;
  return by > 0 && (m & ((Mantissa{1} << by) - 1)) != 0 ? kept | 1 : kept;
}

/// Moved up so that the mantissa has 126 bits.
Number normal(Number x) {
  const int by = 126 - length(x.mantissa);
  x.mantissa = by >= 0 ? x.mantissa << by : shift_right(x.mantissa, -by);
  x.exponent -= by;
  return x;
}

Number nan() { return {Kind::nan, false, 0, 0}; }

/// Whether a mantissa cut at its bit `by` goes to the next one up.
bool rounds_up(Mantissa m, int by, bool negative, Rounding rounding) {
  if (by <= 0) return false;
  const Mantissa lost = by >= 128 ? m : m & ((Mantissa{1} << by) - 1);
  const Mantissa half = by >= 128 ? ~Mantissa{0} : Mantissa{1} << (by - 1);
  const bool odd = by < 128 && (m >> by & 1) != 0;
  switch (rounding) {
    case Rounding::even:
      return lost > half || (lost == half && odd);
    case Rounding::away:
      return lost >= half;
    case Rounding::zero:
      return false;
    case Rounding::down:
      return negative && lost != 0;
    case Rounding::up:
      return !negative && lost != 0;
  }
  return false;
}

}  // namespace

Number decode(const Format& format, uint64_t bits) {
  Number x;
  x.negative = (bits & format.sign()) != 0;
  const uint64_t magnitude = bits & (format.sign() - 1);
  const uint64_t fraction = magnitude & ((uint64_t{1} << (format.precision - 1)) - 1);
  const int field = static_cast<int>(magnitude >> (format.precision - 1));
  if (magnitude >= format.infinity()) {
    x.kind = magnitude == format.infinity() ? Kind::infinite : Kind::nan;
    return x;
  }
  x.mantissa = field == 0 ? fraction : fraction | uint64_t{1} << (format.precision - 1);
  x.exponent = (field == 0 ? 1 : field) - 1 + format.least - (format.precision - 1);
  return x;
}

Number number(long double x) {
  Number n;
  n.negative = std::signbit(x);
  if (std::isnan(x)) return nan();
  if (std::isinf(x)) {
    n.kind = Kind::infinite;
  } else if (x != 0) {
    const long double fraction = std::frexp(std::fabs(x), &n.exponent);
    n.mantissa = static_cast<uint64_t>(std::ldexp(fraction, 64));
    n.exponent -= 64;
  }
  return n;
}

uint64_t encode(const Format& format, const Number& x, Rounding rounding) {
  const uint64_t sign = x.negative ? format.sign() : 0;
  if (x.is_nan()) return format.nan;
  if (x.kind == Kind::infinite) return sign | format.infinity();
  if (x.mantissa == 0) return sign;
  // The last place of the result: precision bits below the leading one, but not below the subnormals'.
  const int top = length(x.mantissa) + x.exponent - 1;
  const int place = (top < format.least ? format.least : top) - (format.precision - 1);
  const int by = place - x.exponent;
  Mantissa kept = by <= 0 ? x.mantissa << -by : by >= 128 ? 0 : x.mantissa >> by;
  if (rounds_up(x.mantissa, by, x.negative, rounding)) ++kept;
  if (kept == 0) return sign;
  const int exponent = length(kept) + place - 1;
  if (exponent > format.most) {
    const bool to_infinity = rounding == Rounding::even || rounding == Rounding::away ||
                             (x.negative ? rounding == Rounding::down : rounding == Rounding::up);
    return sign | (to_infinity ? format.infinity() : format.infinity() - 1);
  }
  if (length(kept) > format.precision) kept >>= 1;  // a carry; the bit is zero
  const bool subnormal = length(kept) < format.precision;
  const uint64_t fraction = static_cast<uint64_t>(kept) & ((uint64_t{1} << (format.precision - 1)) - 1);
  return sign | (subnormal ? 0 : static_cast<uint64_t>(exponent - format.least + 1) << (format.precision - 1)) |
         fraction;
}

Number add(const Number& a, const Number& b, Rounding rounding) {
  if (a.is_nan() || b.is_nan()) return nan();
  if (a.kind == Kind::infinite || b.kind == Kind::infinite) {
    if (a.kind == b.kind && a.negative != b.negative) return nan();
    return a.kind == Kind::infinite ? a : b;
  }
  if (a.is_zero() && b.is_zero()) {
    Number zero = a;
    if (a.negative != b.negative) zero.negative = rounding == Rounding::down;
    return zero;
  }
  if (a.is_zero()) return b;
  if (b.is_zero()) return a;
  Number large = normal(a), small = normal(b);
  if (large.exponent < small.exponent) std::swap(large, small);
  // No operand has more than 106 bits, so what a shift loses is far below the last place of any result.
  small.mantissa = shift_right(small.mantissa, large.exponent - small.exponent);
  if (large.negative == small.negative) {
    large.mantissa += small.mantissa;
  } else if (large.mantissa == small.mantissa) {
    return {Kind::finite, rounding == Rounding::down, 0, 0};
  } else if (large.mantissa > small.mantissa) {
    large.mantissa -= small.mantissa;
  } else {
    large.mantissa = small.mantissa - large.mantissa;
    large.negative = small.negative;
  }
  return large;
}

Number multiply(const Number& a, const Number& b) {
  if (a.is_nan() || b.is_nan()) return nan();
  Number product{Kind::finite, a.negative != b.negative, 0, 0};
  if (a.kind == Kind::infinite || b.kind == Kind::infinite) {
    if (a.is_zero() || b.is_zero()) return nan();
    product.kind = Kind::infinite;
    return product;
  }
  product.mantissa = a.mantissa * b.mantissa;
  product.exponent = a.exponent + b.exponent;
  return product;
}

Number divide(const Number& a, const Number& b) {
  if (a.is_nan() || b.is_nan()) return nan();
  Number quotient{Kind::finite, a.negative != b.negative, 0, 0};
  if (a.kind == Kind::infinite || b.is_zero()) {
    if (a.kind == b.kind && (a.kind == Kind::infinite || a.is_zero())) return nan();
    quotient.kind = Kind::infinite;
    return quotient;
  }
  if (b.kind == Kind::infinite || a.is_zero()) return quotient;
  const Number n = normal(a);
  quotient.mantissa = n.mantissa / b.mantissa;
  if (n.mantissa % b.mantissa != 0) quotient.mantissa |= 1;
  quotient.exponent = n.exponent - b.exponent;
  return quotient;
}

Number square_root(const Number& a) {
  if (a.is_nan() || a.is_zero()) return a;
  if (a.negative) return nan();
  if (a.kind == Kind::infinite) return a;
  Number n = normal(a);
  if (n.exponent % 2 != 0) {
    n.mantissa >>= 1;  // a zero: no operand has more than 64 bits
    ++n.exponent;
  }
  Mantissa root = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const Mantissa larger = root | Mantissa{1} << bit;
    if (larger * larger <= n.mantissa) root = larger;
  }
  Number result{Kind::finite, false, root, n.exponent / 2};
  if (root * root != n.mantissa) {  // two more bits make room for a last one that means "more"
    result.mantissa = root << 2 | 1;
    result.exponent -= 2;
  }
  return result;
}

Number negate(Number a) {
  a.negative = !a.negative;
  return a;
}

Number integral(const Number& a, Rounding rounding) {
  if (a.kind != Kind::finite || a.exponent >= 0) return a;
  const int by = -a.exponent;
  Number result{Kind::finite, a.negative, by >= 128 ? 0 : a.mantissa >> by, 0};
  if (rounds_up(a.mantissa, by, a.negative, rounding)) ++result.mantissa;
  return result;
}

int compare(const Number& a, const Number& b) {
  const Number difference =
      a.kind == Kind::infinite && b.kind == Kind::infinite && a.negative == b.negative ? Number{} : add(a, negate(b));
  if (difference.is_zero()) return 0;
  return difference.negative ? -1 : 1;
}

uint64_t flush(const Format& format, uint64_t bits) {
  const uint64_t magnitude = bits & (format.sign() - 1);
  return magnitude >> (format.precision - 1) == 0 ? bits & format.sign() : bits;
}

uint64_t saturate(const Format& format, uint64_t bits) {
  const Number x = decode(format, bits), one{Kind::finite, false, 1, 0};
  if (x.is_nan() || x.negative) return 0;
  return x.kind == Kind::infinite || compare(x, one) > 0 ? encode(format, one) : bits;
}

}  // namespace gpusim::exact
