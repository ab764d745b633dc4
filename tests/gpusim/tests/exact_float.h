#pragma once
#include <cstdint>

namespace gpusim::exact {

// A reference for floating-point instructions that computes with integers only: numbers are taken apart, results are
// exact (or as good as exact for rounding), and rounded once. Slow and plain.

enum class Rounding : uint8_t { even, zero, down, up, away };  // .rn .rz .rm .rp .rna

/// A binary format of IEEE 754: significant bits with the leading one, and the exponents of normal numbers.
struct Format {
  int precision, least, most;
  int width;
  uint64_t nan;  ///< that a result has

  uint64_t sign() const { return uint64_t{1} << (width - 1); }
  uint64_t infinity() const { return static_cast<uint64_t>(most - least + 2) << (precision - 1); }
};
inline constexpr Format f16{11, -14, 15, 16, 0x7fff}, bf16{8, -126, 127, 16, 0x7fff},
    f32{24, -126, 127, 32, 0x7fffffff}, f64{53, -1022, 1023, 64, 0xfff8000000000000};

__extension__ using Mantissa = unsigned __int128;

/// (-1)^negative · mantissa · 2^exponent, an infinity or a NaN. The mantissa's last bit may stand for all below it.
struct Number {
  enum class Kind : uint8_t { finite, infinite, nan };
  Kind kind = Kind::finite;
  bool negative = false;
  Mantissa mantissa = 0;
  int exponent = 0;

  bool is_nan() const { return kind == Kind::nan; }
  bool is_zero() const { return kind == Kind::finite && mantissa == 0; }
};

Number decode(const Format& format, uint64_t bits);
/// A long double (or any float or integer that it holds).
Number number(long double x);
uint64_t encode(const Format& format, const Number& x, Rounding rounding = Rounding::even);

/// The rounding decides only the sign of a sum that is zero.
Number add(const Number& a, const Number& b, Rounding rounding = Rounding::even);
Number multiply(const Number& a, const Number& b);
Number divide(const Number& a, const Number& b);
Number square_root(const Number& a);
Number negate(Number a);
/// To an integer.
Number integral(const Number& a, Rounding rounding);
/// -1, 0, 1; neither may be NaN.
int compare(const Number& a, const Number& b);

/// Subnormals become zeros of their sign.
uint64_t flush(const Format& format, uint64_t bits);
/// Into [+0, 1], NaN as zero.
uint64_t saturate(const Format& format, uint64_t bits);

}  // namespace gpusim::exact
