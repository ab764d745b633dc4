#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include "engine/device.h"

/// The geometric algebra of space-time, from its generators e0, e1, e2, e3 with squares +1, -1, -1, -1: tables that the
/// compiler makes, for either device. A blade is a product of different generators, bit i for e_i.
namespace lightcone::geometric_algebra {

inline constexpr int components = 16, pairs = 8;

/// The blades in the order of the references: 1, vectors 0 1 2 3, bivectors 01 02 03 12 13 23, axial vectors 012 013
/// 023 123, the pseudoscalar 0123.
inline constexpr std::array<uint8_t, components> generators = {0, 1, 2, 4, 8, 3, 5, 9, 6, 10, 12, 7, 11, 13, 14, 15};

constexpr int grade(uint8_t blade) { return std::popcount(blade); }

/// e_a e_b = sign e_(a xor b): -1 for each generator that has to pass another one, and for each square of e1, e2, e3.
constexpr int product_sign(uint8_t a, uint8_t b) {
  int swaps = std::popcount(static_cast<uint8_t>(a & b & 0b1110));
  for (int rest = a >> 1; rest; rest >>= 1) swaps += std::popcount(static_cast<uint8_t>(rest & b));
  return swaps % 2 ? -1 : 1;
}

/// The inner product <x, y> = grade 0 of (reverse of x) y counts these squares: one minus sign per spatial generator.
constexpr int metric(uint8_t blade) { return std::popcount(static_cast<uint8_t>(blade & 0b1110)) % 2 ? -1 : 1; }

/// How multivectors are stored (see geometric_algebra.h): pair p is a blade and, times a sign, its dual.
struct Stored {
  uint8_t blade;
  int sign;
};
inline constexpr std::array<std::array<Stored, 2>, pairs> stored = {{
    {{{0b0000, 1}, {0b1111, 1}}},   // 1, 0123
    {{{0b0001, 1}, {0b1110, 1}}},   // 0, 123
    {{{0b0010, 1}, {0b1101, 1}}},   // 1, 023
    {{{0b0100, 1}, {0b1011, -1}}},  // 2, -013
    {{{0b1000, 1}, {0b0111, 1}}},   // 3, 012
    {{{0b0011, 1}, {0b1100, 1}}},   // 01, 23
    {{{0b0101, 1}, {0b1010, -1}}},  // 02, -13
    {{{0b1001, 1}, {0b0110, 1}}},   // 03, 12
}};

/// Components by their place in storage, 2 pair + half.
constexpr Stored component(int place) { return stored[place / 2][place % 2]; }
constexpr int place_of(uint8_t blade) {
  int place = 0;
  while (component(place).blade != blade) ++place;
  return place;
}

/// The components that a plain tensor holds, by their place in storage: 1 + its position in the tensor, times its sign
/// in storage; 0 for others.
using Held = std::array<int8_t, components>;

/// The term of the geometric product that x's component j gives to component i of the result: sign x_j y_partner.
struct Term {
  int partner, sign;
};
constexpr Term term(int i, int j) {
  const Stored out = component(i), left = component(j);
  const auto blade = static_cast<uint8_t>(out.blade ^ left.blade);
  const int partner = place_of(blade);
  return {partner, out.sign * left.sign * component(partner).sign * product_sign(left.blade, blade)};
}

/// What x_j and y_k meet in the product, for its gradients: sign y_partner and sign x_partner in component i.
constexpr Term left_term(int j, int i) { return term(i, j); }
constexpr Term right_term(int k, int i) {
  const int j = place_of(static_cast<uint8_t>(component(i).blade ^ component(k).blade));
  return {j, term(i, j).sign};
}

/// f(std::integral_constant<int, i>) for i = 0 … n - 1, written out.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <int n, class F>
[[gnu::always_inline]] LIGHTCONE_HOST_DEVICE inline void unrolled(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(std::integral_constant<int, i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

/// sum over j of sign a[j] b[partner], the signs and partners those of terms(row, j).
template <Term (*terms)(int, int), int row, class V>
[[gnu::always_inline]] LIGHTCONE_HOST_DEVICE inline V product_row(const V* a, const V* b) {
  V sum = {};
  unrolled<components>([&](auto j) {
    constexpr Term t = terms(row, j());
    if constexpr (j == 0)
      sum = t.sign > 0 ? a[0] * b[t.partner] : -a[0] * b[t.partner];
    else if constexpr (t.sign > 0)
      sum += a[j] * b[t.partner];
    else
      sum -= a[j] * b[t.partner];
  });
  return sum;
}

}  // namespace lightcone::geometric_algebra
