#include "gpusim/machine/instructions/half.h"

#include "gpusim/machine/instructions/elementary.h"
#include "gpusim/machine/instructions/float_variant.h"
#include "gpusim/machine/instructions/min_max.h"

// f16, bf16 and pairs of them. Operands become floats, results are rounded once:
// - a sum or product in float, rounded again to 11 or 8 bits, is as if rounded once, since 24 ≥ 2·11 + 2 (a subnormal
//   result included: f16's are exact in float, and what is below half of bf16's smallest goes to zero either way);
// - a sum of three numbers is not, so fma rounds to odd in between.

namespace gpusim {
namespace {

struct F16 {
  static float value(uint16_t bits) { return f16_to_float(bits); }
  static uint16_t round(float x) { return float_to_f16(x); }
  /// The product is exact in float.
  static float fma(float a, float b, float c) { return odd_sum(a * b, c); }
  static constexpr uint16_t exponent = 0x7c00;
};
struct Bf16 {
  static float value(uint16_t bits) { return bf16_to_float(bits); }
  static uint16_t round(float x) { return float_to_bf16(x); }
  /// The product is exact in double, and so is the error of the sum.
  static float fma(float a, float b, float c) {
    const double product = static_cast<double>(a) * b, sum = product + c;
    const double c_part = sum - product, product_part = sum - c_part;
    const double error = (product - product_part) + (c - c_part);
    // The sum to odd in double, then in float: the same as to odd in float at once.
    const bool inexact = error > 0.0 || error < 0.0;
    const bool away = inexact && ((bits_of(error) ^ bits_of(sum)) & sign_bit<double>) != 0;
    return to_odd(from_bits<double>((bits_of(sum) - (away ? 1u : 0u)) | (inexact ? 1u : 0u)));
  }
  static constexpr uint16_t exponent = 0x7f80;
};

template <class H>
uint16_t flush_half(uint16_t x) {
  return (x & H::exponent) == 0 ? x & 0x8000 : x;
}

enum class Clamp : uint8_t { none, saturate, relu };

template <class H>
uint16_t round_half(float x) {
  return H::round(x);
}
template <class H>
uint16_t round_half(double x) {
  return H::round(to_odd(x));
}

/// One half's result.
template <class H, class F, bool ftz, Clamp clamp, class... A>
uint16_t half_result(A... x) {
  const auto operand = [](uint16_t bits) {
    const uint16_t flushed = ftz ? flush_half<H>(bits) : bits;
    const float value = H::value(flushed);
    if constexpr (requires { typename F::SeesSignOfNan; })
      return from_bits<float>((bits_of(value) & 0x7fffffff) | (flushed & 0x8000u) << 16);
    else
      return value;
  };
  auto result = F::template apply<H>(operand(x)...);
  if (clamp == Clamp::saturate) result = saturate(result);
  if (clamp == Clamp::relu) result = result <= 0 ? 0 : result;
  const uint16_t rounded = round_half<H>(result);
  return ftz ? flush_half<H>(rounded) : rounded;
}

template <class H, class F, bool ftz, Clamp clamp, class W, class... A>
W half_word(A... x) {
  const W low = half_result<H, F, ftz, clamp>(static_cast<uint16_t>(x)...);
  if constexpr (sizeof(W) == 2)
    return low;
  else
    return low | static_cast<W>(half_result<H, F, ftz, clamp>(static_cast<uint16_t>(x >> 16)...)) << 16;
}

template <class H, class F, bool ftz, Clamp clamp, class W, size_t... operand>
void half_lanes(Lanes& w, const Op& op, std::index_sequence<operand...>) {
  alignas(64) W result[warp_size];
  for (int l = 0; l < warp_size; ++l) result[l] = half_word<H, F, ftz, clamp, W>(w.of<W>(op.x[operand + 1])[l]...);
  blend(w.mask, w.of<W>(op.x[0]), result);
}

/// Flattened, as a call for each lane would keep the loop from becoming vector code.
template <class H, class F, bool ftz, Clamp clamp, class W, size_t n>
[[gnu::flatten]] void half_handler(Lanes& w, const Op& op) {
  half_lanes<H, F, ftz, clamp, W>(w, op, std::make_index_sequence<n>());
}

struct Add {
  template <class H>
  static float apply(float a, float b) {
    return a + b;
  }
};
struct Subtract {
  template <class H>
  static float apply(float a, float b) {
    return a - b;
  }
};
struct Multiply {
  template <class H>
  static float apply(float a, float b) {
    return a * b;
  }
};
struct Fuse {
  template <class H>
  static float apply(float a, float b, float c) {
    return H::fma(a, b, c);
  }
};
struct Exp2 {
  template <class H>
  static double apply(float a) {
    return exp2_of(a);
  }
};
struct Tanh {
  template <class H>
  static double apply(float a) {
    return tanh_of(a);
  }
};
struct Absolute {
  template <class H>
  static float apply(float a) {
    return std::fabs(a);
  }
};
struct Negate {
  template <class H>
  static float apply(float a) {
    return -a;
  }
};
template <bool maximum, bool nan, bool xorsign>
struct HalfMinMax {
  using SeesSignOfNan = void;  ///< .xorsign takes it from any operand
  template <class H>
  static float apply(float a, float b) {
    return MinMax<maximum, nan, xorsign>()(a, b);
  }
};

/// The Choice for F on the type that is left of the variant; .ftz and .sat are for f16 only (but for ex2).
template <class F, size_t n, bool may_ftz = true, Clamp clamp = Clamp::none>
Choice half_choice(const Variant& variant, std::span<const Shape> operands, bool ftz = false) {
  const auto answer = [&]<class H, class W>(H, W) {
    const Handler run = ftz ? half_handler<H, F, may_ftz, clamp, W, n> : half_handler<H, F, false, clamp, W, n>;
    return choice(operands, run, std::vector<uint8_t>(n + 1, sizeof(W)), Kind::half);
  };
  if (variant.is({"f16"})) return answer(F16(), uint16_t());
  if (variant.is({"f16x2"})) return answer(F16(), uint32_t());
  if (ftz || clamp == Clamp::saturate) return {};
  if (variant.is({"bf16"})) return answer(Bf16(), uint16_t());
  if (variant.is({"bf16x2"})) return answer(Bf16(), uint32_t());
  return {};
}

template <class F>
Choice select_arithmetic(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  variant.take("rn");
  const bool ftz = variant.take("ftz"), sat = variant.take("sat");
  return sat ? half_choice<F, 2, true, Clamp::saturate>(variant, operands, ftz)
             : half_choice<F, 2>(variant, operands, ftz);
}

Choice select_fma(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  if (!variant.take("rn")) return {};
  const bool ftz = variant.take("ftz"), sat = variant.take("sat"), relu = variant.take("relu");
  if (sat && relu) return {};
  if (sat) return half_choice<Fuse, 3, true, Clamp::saturate>(variant, operands, ftz);
  if (relu) return half_choice<Fuse, 3, true, Clamp::relu>(variant, operands, ftz);
  return half_choice<Fuse, 3>(variant, operands, ftz);
}

template <class F>
Choice select_sign(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  const bool ftz = variant.take("ftz");
  return half_choice<F, 1>(variant, operands, ftz);
}

template <bool maximum>
Choice select_min_max(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  const bool ftz = variant.take("ftz"), nan = variant.take("NaN"), xorsign = variant.take("xorsign");
  if (xorsign != variant.take("abs")) return {};
  if (xorsign)
    return nan ? half_choice<HalfMinMax<maximum, true, true>, 2>(variant, operands, ftz)
               : half_choice<HalfMinMax<maximum, false, true>, 2>(variant, operands, ftz);
  return nan ? half_choice<HalfMinMax<maximum, true, false>, 2>(variant, operands, ftz)
             : half_choice<HalfMinMax<maximum, false, false>, 2>(variant, operands, ftz);
}

Choice select_ex2(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  if (!variant.take("approx")) return {};
  // bf16 names .ftz and f16 must not.
  if (!variant.take("ftz"))
    return variant.is({"bf16"}) || variant.is({"bf16x2"}) ? Choice{} : half_choice<Exp2, 1>(variant, operands);
  if (variant.is({"bf16"}))
    return choice(operands, half_handler<Bf16, Exp2, true, Clamp::none, uint16_t, 1>, {2, 2}, Kind::half);
  if (variant.is({"bf16x2"}))
    return choice(operands, half_handler<Bf16, Exp2, true, Clamp::none, uint32_t, 1>, {4, 4}, Kind::half);
  return {};
}

Choice select_tanh(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  return variant.take("approx") ? half_choice<Tanh, 1, false>(variant, operands) : Choice{};
}

constexpr Family families[] = {
    {"add", select_arithmetic<Add>},
    {"sub", select_arithmetic<Subtract>},
    {"mul", select_arithmetic<Multiply>},
    {"fma", select_fma},
    {"abs", select_sign<Absolute>},
    {"neg", select_sign<Negate>},
    {"min", select_min_max<false>},
    {"max", select_min_max<true>},
    {"ex2", select_ex2},
    {"tanh", select_tanh},
};

}  // namespace

std::span<const Family> half_instructions() { return families; }

}  // namespace gpusim
