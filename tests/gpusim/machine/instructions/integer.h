#pragma once
#include "gpusim/machine/instructions/select.h"

namespace gpusim {

template <size_t bytes, bool is_signed>
struct IntegerOf;
template <>
struct IntegerOf<4, false> {
  using type = uint32_t;
};
template <>
struct IntegerOf<4, true> {
  using type = int32_t;
};
template <>
struct IntegerOf<8, false> {
  using type = uint64_t;
};
template <>
struct IntegerOf<8, true> {
  using type = int64_t;
};
template <>
struct IntegerOf<16, false> {
  using type = uint128_t;
};
template <>
struct IntegerOf<16, true> {
  using type = int128_t;
};

/// Twice as wide, with the same sign.
template <class T>
using Wide = typename IntegerOf<2 * sizeof(T), std::is_signed_v<T>>::type;

/// Where arithmetic wraps without harm: unsigned, and not so narrow that C++ would make an int of it.
template <class T>
using Unsigned = typename IntegerOf<(sizeof(T) < 4 ? 4 : sizeof(T)), false>::type;

template <class T>
T product_low(T a, T b) {
  return T(Unsigned<T>(a) * Unsigned<T>(b));
}

template <class T>
T product_high(T a, T b) {
  return T(Wide<T>(Wide<T>(a) * b) >> 8 * sizeof(T));
}

// Parts of integer_instructions() in carry.cpp.
Choice select_add_cc(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_addc(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_sub_cc(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_subc(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_mad_cc(const ptx::Instruction& instruction, std::span<const Shape> operands);
Choice select_madc(const ptx::Instruction& instruction, std::span<const Shape> operands);

}  // namespace gpusim
