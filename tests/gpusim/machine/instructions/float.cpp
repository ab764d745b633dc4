#include "gpusim/machine/instructions/float_handlers.h"
#include "gpusim/machine/instructions/min_max.h"

namespace gpusim {
namespace {

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Subtract {
  template <class T>
  T operator()(T a, T b) const {
    return a - b;
  }
};
struct Multiply {
  template <class T>
  T operator()(T a, T b) const {
    return a * b;
  }
};
struct Fuse {
  template <class T>
  T operator()(T a, T b, T c) const {
    return std::fma(a, b, c);
  }
};
struct Divide {
  template <class T>
  T operator()(T a, T b) const {
    return a / b;
  }
};
struct Reciprocal {
  template <class T>
  T operator()(T a) const {
    return T{1} / a;
  }
};
struct SquareRoot {
  template <class T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct Absolute {
  template <class T>
  T operator()(T a) const {
    return std::fabs(a);
  }
};
struct Negate {
  template <class T>
  T operator()(T a) const {
    return -a;
  }
};
/// add, sub, mul, mad: {.rnd}{.ftz}{.sat}.f32, {.rnd}.f64; fma has to name its rounding.
template <class F, size_t n, bool names_rounding>
Choice select_arithmetic(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  const Round round = variant.take_rounding();
  if (names_rounding && round == Round::none) return {};
  if (variant.is({"f64"})) return f64_choice<F, n>(operands, round);
  const bool ftz = variant.take("ftz"), sat = variant.take("sat");
  return variant.is({"f32"}) ? f32_choice<F, n>(operands, ftz, sat, round) : Choice{};
}

/// div, rcp, sqrt with a rounding.
template <class F, size_t n>
Choice select_rounded(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  const Round round = variant.take_rounding();
  if (round == Round::none) return select_approximate(instruction, operands);
  if (variant.is({"f64"})) return f64_choice<F, n>(operands, round);
  const bool ftz = variant.take("ftz");
  return variant.is({"f32"}) ? f32_choice<F, n>(operands, ftz, false, round) : Choice{};
}

/// abs and neg, which only touch the sign.
template <class F>
Choice select_sign(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  if (variant.is({"f64"})) return f64_choice<F, 1>(operands);
  const bool ftz = variant.take("ftz");
  return variant.is({"f32"}) ? f32_choice<F, 1>(operands, ftz, false) : Choice{};
}

/// Bits only: a NaN stays the one it was.
template <class T>
void copy_sign(Lanes& w, const Op& op) {
  map_lanes<T>(
      w, op.x[0], [](T sign, T magnitude) { return with_sign(magnitude, sign); }, w.of<T>(op.x[1]), w.of<T>(op.x[2]));
}

Choice select_copysign(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  const Variant variant(instruction);
  if (variant.is({"f64"})) return choice(operands, copy_sign<double>, {8, 8, 8}, Kind::f64);
  return variant.is({"f32"}) ? choice(operands, copy_sign<float>, {4, 4, 4}, Kind::f32) : Choice{};
}

template <bool maximum>
Choice select_min_max(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  if (variant.is({"f64"})) return f64_choice<MinMax<maximum, false, false>, 2>(operands);
  const bool ftz = variant.take("ftz"), nan = variant.take("NaN"), xorsign = variant.take("xorsign");
  if (xorsign != variant.take("abs") || !variant.is({"f32"})) return {};
  if (xorsign)
    return nan ? f32_choice<MinMax<maximum, true, true>, 2>(operands, ftz, false)
               : f32_choice<MinMax<maximum, false, true>, 2>(operands, ftz, false);
  return nan ? f32_choice<MinMax<maximum, true, false>, 2>(operands, ftz, false)
             : f32_choice<MinMax<maximum, false, false>, 2>(operands, ftz, false);
}

enum class Class : uint8_t { finite, infinite, number, notanumber, normal, subnormal };

template <class T, Class which>
void test_property(Lanes& w, const Op& op) {
  const auto test = [](BitsOf<T> bits) {
    const auto exponent = bits & exponent_bits<T>, magnitude = bits & ~sign_bit<T>;
    switch (which) {
      case Class::finite:
        return exponent != exponent_bits<T>;
      case Class::infinite:
        return magnitude == exponent_bits<T>;
      case Class::number:
        return magnitude <= exponent_bits<T>;
      case Class::notanumber:
        return magnitude > exponent_bits<T>;
      // Zeros count as normal numbers.
      case Class::normal:
        return magnitude == 0 || (exponent != 0 && exponent != exponent_bits<T>);
      case Class::subnormal:
        return magnitude != 0 && exponent == 0;
    }
  };
  set_predicate(w, op.x[0], mask_lanes(w, test, w.of<BitsOf<T>>(op.x[1])));
}

template <class T>
Choice property_choice(const Variant& variant, std::span<const Shape> operands, std::string_view type) {
  static constexpr std::pair<std::string_view, Handler> tests[] = {
      {"finite", test_property<T, Class::finite>}, {"infinite", test_property<T, Class::infinite>},
      {"number", test_property<T, Class::number>}, {"notanumber", test_property<T, Class::notanumber>},
      {"normal", test_property<T, Class::normal>}, {"subnormal", test_property<T, Class::subnormal>}};
  for (const auto& [name, run] : tests)
    if (variant.is({name, type})) return choice(operands, run, {0, sizeof(T)}, Kind::predicate);
  return {};
}

Choice select_testp(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  const Variant variant(instruction);
  const Choice f32 = property_choice<float>(variant, operands, "f32");
  return f32.run ? f32 : property_choice<double>(variant, operands, "f64");
}

constexpr Family families[] = {
    {"add", select_arithmetic<Add, 2, false>},
    {"sub", select_arithmetic<Subtract, 2, false>},
    {"mul", select_arithmetic<Multiply, 2, false>},
    {"mad", select_arithmetic<Fuse, 3, true>},
    {"fma", select_arithmetic<Fuse, 3, true>},
    {"div", select_rounded<Divide, 2>},
    {"rcp", select_rounded<Reciprocal, 1>},
    {"sqrt", select_rounded<SquareRoot, 1>},
    {"abs", select_sign<Absolute>},
    {"neg", select_sign<Negate>},
    {"copysign", select_copysign},
    {"min", select_min_max<false>},
    {"max", select_min_max<true>},
    {"testp", select_testp},
    {"rsqrt", select_approximate},
    {"ex2", select_approximate},
    {"lg2", select_approximate},
    {"sin", select_approximate},
    {"cos", select_approximate},
    {"tanh", select_approximate},
};

}  // namespace

std::span<const Family> float_instructions() { return families; }

}  // namespace gpusim
