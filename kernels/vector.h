#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>

#include "engine/dtype.h"
#if defined(__AVX512DQ__)
#include <immintrin.h>
#endif

// One vector register of float or double as a type of its own (GCC's vector extensions: + - * and comparisons act on
// each lane), for kernels that keep their numbers in registers.
namespace lightcone {

#if defined(__AVX512F__)
inline constexpr int64_t vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int64_t vector_bytes = 32;
#else
inline constexpr int64_t vector_bytes = 16;
#endif

template <class S>
struct VectorOf {
  typedef S type __attribute__((vector_size(vector_bytes), may_alias));
};
template <class S>
using Vector = typename VectorOf<S>::type;
template <class S>
inline constexpr int64_t lanes = vector_bytes / sizeof(S);

template <class S>
Vector<S>* vectors(S* x) {
  return reinterpret_cast<Vector<S>*>(x);
}
template <class S>
const Vector<S>* vectors(const S* x) {
  return reinterpret_cast<const Vector<S>*>(x);
}

/// x in all lanes. (x - 0 is x, which the compiler knows; x + 0 would not be, for -0.)
template <class S>
Vector<S> splat(S x) {
  return x - Vector<S>{};
}

/// shuffle<f>(a, b): lane i is lane f(i) of a followed by b.
template <auto f, class V, size_t... i>
V shuffle(V a, V b, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, b, f(int64_t(i))...);
}
template <class S, auto f>
Vector<S> shuffle(Vector<S> a, Vector<S> b) {
  return shuffle<f>(a, b, std::make_index_sequence<lanes<S>>());
}

/// One register from memory of any alignment, and back. bf16 goes to float and is rounded to nearest, ties to even.
template <class S>
Vector<S> load(const S* x) {
  typedef Vector<S> Unaligned __attribute__((aligned(alignof(S))));
  return *reinterpret_cast<const Unaligned*>(x);
}
template <class S>
void store(Vector<S> x, S* to) {
  typedef Vector<S> Unaligned __attribute__((aligned(alignof(S))));
  *reinterpret_cast<Unaligned*>(to) = x;
}
typedef uint16_t Halves __attribute__((vector_size(vector_bytes / 2), aligned(2), may_alias));
inline Vector<float> load(const bf16* x) {
  return (Vector<float>)(__builtin_convertvector(*reinterpret_cast<const Halves*>(x), Vector<uint32_t>) << 16);
}
inline void store(Vector<float> x, bf16* to) {
  const auto bits = (Vector<uint32_t>)x;
  const Vector<uint32_t> rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, nan = bits >> 16 | 0x40u;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(x == x ? rounded : nan, Halves);
}

/// The first n <= lanes elements, zeros behind them, and back.
template <class S, class T>
Vector<S> load_some(const T* x, int64_t n) {
#if defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  const auto mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (std::is_same_v<T, float>) return (Vector<S>)_mm512_maskz_loadu_ps(mask, x);
  if constexpr (std::is_same_v<T, bf16>) {
    const __m256i some = _mm256_maskz_loadu_epi16(mask, x);
    return load(reinterpret_cast<const bf16*>(&some));
  }
#endif
  S all[lanes<S>] = {};
  for (int64_t i = 0; i < n; ++i) all[i] = static_cast<S>(x[i]);
  return load(all);
}
template <class S, class T>
void store_some(Vector<S> x, T* to, int64_t n) {
  T all[lanes<S>];
#if defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  const auto mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (std::is_same_v<T, float>) return _mm512_mask_storeu_ps(to, mask, (__m512)x);
  if constexpr (std::is_same_v<T, bf16>) {
    store(x, all);
    return _mm256_mask_storeu_epi16(to, mask, *reinterpret_cast<const __m256i*>(all));
  }
#endif
  store(x, all);
  std::copy_n(all, n, to);
}

/// The sum of all lanes: of neighbours, of neighbouring pairs, and so on.
template <class S>
[[gnu::always_inline]] inline S sum_of_lanes(Vector<S> x) {
  [&]<int... step>(std::integer_sequence<int, step...>) {
    ((x += __builtin_shuffle(x,
                             [] {
                               decltype((Vector<S>{}) == (Vector<S>{})) order{};
                               for (int64_t i = 0; i < lanes<S>; ++i) order[i] = i ^ 1 << step;
                               return order;
                             }())),
     ...);
  }
  (std::make_integer_sequence<int, std::countr_zero(static_cast<uint64_t>(lanes<S>))>());
  return x[0];
}

/// For loops over the elements of a row, a register at a time and the rest one by one: at(x) is the part of the row x
/// that it stands for, in the type of sums.
template <class S>
struct WholeRegister {
  int64_t place;
  template <class T>
  Vector<S> operator()(const T* x) const {
    return load(x + place);
  }
};
template <class S>
struct SingleElement {
  int64_t place;
  template <class T>
  S operator()(const T* x) const {
    return static_cast<S>(x[place]);
  }
};

/// out[i] = value(at) for i < n:    map_row(n, y, [&](auto at) { return at(x) * factor; })
template <class T, class F>
[[gnu::always_inline]] inline void map_row(int64_t n, T* out, F&& value) {
  using S = sum_type<T>;
  int64_t i = 0;
  for (; i + lanes<S> <= n; i += lanes<S>) store(value(WholeRegister<S>{i}), out + i);
  for (; i < n; ++i) out[i] = static_cast<T>(value(SingleElement<S>{i}));
}
/// Sum of value(at) over n elements, in an order that depends on n alone.
template <class S, class F>
[[gnu::always_inline]] inline S sum_row(int64_t n, F&& value) {
  Vector<S> even = {}, odd = {};
  int64_t i = 0;
  for (; i + 2 * lanes<S> <= n; i += 2 * lanes<S>) {
    even += value(WholeRegister<S>{i});
    odd += value(WholeRegister<S>{i + lanes<S>});
  }
  if (i + lanes<S> <= n) even += value(WholeRegister<S>{i}), i += lanes<S>;
  S sum = sum_of_lanes<S>(even + odd);
  for (; i < n; ++i) sum += value(SingleElement<S>{i});
  return sum;
}

/// n numbers in another type.
template <class From, class To>
void convert(int64_t n, const From* from, To* to) {
  map_row(n, to, [&](auto at) { return at(from); });
}

namespace vector_math {
/// Coefficients of 2^r = 1 + ... for r in [0, 1], by rising power: least largest relative error (2e-9 and 3e-18) among
/// polynomials that are exact at 0 and 1.
template <class S>
inline constexpr S exp2_coefficients[] = {1,
                                          0.6931470036506653f,
                                          0.2402295172214508f,
                                          0.05548415333032608f,
                                          0.009678063914179802f,
                                          0.0012440874706953764f,
                                          0.00021715032926294953f};
template <>
inline constexpr double exp2_coefficients<double>[] = {
    1,
    0.69314718055994596031,
    0.24022650695906154618,
    0.0555041086656353124,
    0.0096181290992458208401,
    0.0013333558645588633516,
    0.0001540351179300256657,
    0.000015253185634071136676,
    1.3208229350322061264e-6,
    1.0254321463968683333e-7,
    6.5545198184073078325e-9,
    6.273189098085480531e-10,
};

/// 2^n with n a whole number, which must lie where both halves of n have a float (or double) of their own.
template <class S>
Vector<S> power_of_two(Vector<S> x, Vector<S> n) {
  using Int = std::conditional_t<sizeof(S) == 8, int64_t, int32_t>;
  constexpr Int bias = sizeof(S) == 8 ? 1023 : 127, mantissa = sizeof(S) == 8 ? 52 : 23;
  const auto whole = __builtin_convertvector(n, Vector<Int>), half = whole >> 1;
  return x * (Vector<S>)((half + bias) << mantissa) * (Vector<S>)((whole - half + bias) << mantissa);
}

/// 2^x within 2 units of the last place, subnormal results included; 0 for -inf, inf for +inf, NaN for NaN. Exact for
/// whole x.
template <class S>
inline Vector<S> exp2(Vector<S> x) {
  constexpr auto& c = exp2_coefficients<S>;
  constexpr int degree = sizeof(c) / sizeof(S) - 1;
#if defined(__AVX512DQ__)
  // x = floor(x) + r: one instruction gives r (0 for infinities), one multiplies by 2^floor(x).
  constexpr int floor_mode = 1;
  Vector<S> r;
  if constexpr (sizeof(S) == 4)
    r = (Vector<S>)_mm512_reduce_ps((__m512)x, floor_mode);
  else
    r = (Vector<S>)_mm512_reduce_pd((__m512d)x, floor_mode);
#else
  // Beyond these the result is 0 or infinite.
  constexpr S low = sizeof(S) == 8 ? -1080 : -155, high = sizeof(S) == 8 ? 1030 : 135;
  x = x < low ? splat<S>(low) : x;
  x = x > high ? splat<S>(high) : x;
  // A number whose last place counts ones: adding it rounds. x - 1/2 to nearest is floor(x), or one less for whole x.
  constexpr S ones = sizeof(S) == 8 ? S(0x1.8p52) : S(0x1.8p23);
  const Vector<S> n = ((x - S(0.5)) + ones) - ones, r = x - n;
#endif
  Vector<S> p = splat<S>(c[degree]);
  for (int k = degree - 1; k >= 0; --k) p = p * r + c[k];
#if defined(__AVX512DQ__)
  if constexpr (sizeof(S) == 4)
    return (Vector<S>)_mm512_maskz_scalef_ps(-1, (__m512)p, (__m512)x);
  else
    return (Vector<S>)_mm512_maskz_scalef_pd(-1, (__m512d)p, (__m512d)x);
#else
  return power_of_two<S>(p, n);
#endif
}
}  // namespace vector_math

}  // namespace lightcone
