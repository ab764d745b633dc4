#include "gpusim/machine/instructions/elementary.h"
#include "gpusim/machine/instructions/float_handlers.h"

// The .approx instructions. The machines' errors are theirs; here every result is the function's value rounded to
// nearest (but for a double rounding now and then), so within all bounds that the ISA states.

namespace gpusim {
namespace {

struct Reciprocal {
  float operator()(float a) const { return 1.0f / a; }
};
struct SquareRoot {
  float operator()(float a) const { return std::sqrt(a); }
};
struct ReciprocalRoot {
  float operator()(float a) const { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
  double operator()(double a) const { return 1.0 / std::sqrt(a); }
};
struct FullDivide {
  float operator()(float a, float b) const { return a / b; }
};
/// A divisor above 2^126 has a reciprocal of zero.
struct ApproximateDivide {
  float operator()(float a, float b) const {
    const float zero = with_sign(0.0f, b);
    return std::fabs(b) > 0x1p126f && std::fabs(b) <= std::numeric_limits<float>::max() ? a * zero : a / b;
  }
};
struct Exp2 {
  float operator()(float a) const { return static_cast<float>(exp2_of(a)); }
};
struct Log2 {
  float operator()(float a) const { return static_cast<float>(log2_of(a)); }
};
struct Tanh {
  float operator()(float a) const { return static_cast<float>(tanh_of(a)); }
};
/// The gross approximations of f64 are those of its upper word.
struct GrossReciprocal {
  double operator()(double a) const { return upper(1.0 / a); }
  static double upper(double x) { return from_bits<double>(bits_of(x) & ~uint64_t{0xffffffff}); }
};
struct GrossReciprocalRoot {
  double operator()(double a) const { return GrossReciprocal::upper(1.0 / std::sqrt(a)); }
};

/// sin (quarter 0) and cos (1).
template <int quarter, bool ftz>
void sine(Lanes& w, const Op& op) {
  const float* x = w.of<float>(op.x[1]);
  alignas(64) float result[warp_size];
  for (int l = 0; l < warp_size; ++l) {
    const float value = canonical(static_cast<float>(sine_of(ftz ? flush(x[l]) : x[l], quarter)));
    result[l] = ftz ? flush(value) : value;
  }
  int beyond = 0;
  for (int l = 0; l < warp_size; ++l) beyond += std::fabs(x[l]) <= trigonometric_limit ? 0 : 1;
  for (int l = 0; l < warp_size && beyond; ++l) {
    if (std::fabs(x[l]) <= trigonometric_limit) continue;
    const double a = x[l];
    result[l] = canonical(static_cast<float>(quarter ? std::cos(a) : std::sin(a)));
  }
  blend(w.mask, w.of<float>(op.x[0]), result);
}

template <int quarter>
Choice sine_choice(std::span<const Shape> operands, bool ftz) {
  return choice(operands, ftz ? sine<quarter, true> : sine<quarter, false>, {4, 4}, Kind::f32);
}

}  // namespace

Choice select_approximate(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  const std::string_view opcode = instruction.opcode;
  const bool full = opcode == "div" && variant.take("full");
  if (!full && !variant.take("approx")) return {};
  const bool ftz = variant.take("ftz");
  if (variant.is({"f64"})) {
    if (opcode == "rsqrt" && !ftz) return f64_choice<ReciprocalRoot, 1>(operands);
    if (opcode == "rsqrt")
      return choice(operands, float_handler<double, GrossReciprocalRoot, 1, true, false, false>, {8, 8}, Kind::f64);
    if (opcode == "rcp" && ftz)
      return choice(operands, float_handler<double, GrossReciprocal, 1, true, false, false>, {8, 8}, Kind::f64);
    return {};
  }
  if (!variant.is({"f32"})) return {};
  if (full) return f32_choice<FullDivide, 2>(operands, ftz, false);
  if (opcode == "div") return f32_choice<ApproximateDivide, 2>(operands, ftz, false);
  if (opcode == "rcp") return f32_choice<Reciprocal, 1>(operands, ftz, false);
  if (opcode == "sqrt") return f32_choice<SquareRoot, 1>(operands, ftz, false);
  if (opcode == "rsqrt") return f32_choice<ReciprocalRoot, 1>(operands, ftz, false);
  if (opcode == "ex2") return f32_choice<Exp2, 1>(operands, ftz, false);
  if (opcode == "lg2") return f32_choice<Log2, 1>(operands, ftz, false);
  if (opcode == "sin") return sine_choice<0>(operands, ftz);
  if (opcode == "cos") return sine_choice<1>(operands, ftz);
  if (opcode == "tanh" && !ftz) return f32_choice<Tanh, 1>(operands, false, false);
  return {};
}

}  // namespace gpusim
