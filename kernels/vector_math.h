#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "engine/device.h"
#include "engine/dtype.h"

// Vector exp, log, log1p, tanh, erf and atan2 from the C library (libmvec), for loops under `#pragma omp simd`. The
// library's own header offers them only with -ffast-math, which nothing here uses; so they are declared again with
// their vector variants (x86 only). For kernels nvcc has functions of these names.
#ifndef __CUDACC__
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LIGHTCONE_VECTOR_MATH _Pragma("omp declare simd notinbranch")
#else
#define LIGHTCONE_VECTOR_MATH
#endif
extern "C" {
LIGHTCONE_VECTOR_MATH float expf(float) noexcept;
LIGHTCONE_VECTOR_MATH double exp(double) noexcept;
LIGHTCONE_VECTOR_MATH float logf(float) noexcept;
LIGHTCONE_VECTOR_MATH double log(double) noexcept;
LIGHTCONE_VECTOR_MATH float log1pf(float) noexcept;
LIGHTCONE_VECTOR_MATH double log1p(double) noexcept;
LIGHTCONE_VECTOR_MATH float tanhf(float) noexcept;
LIGHTCONE_VECTOR_MATH double tanh(double) noexcept;
LIGHTCONE_VECTOR_MATH float erff(float) noexcept;
LIGHTCONE_VECTOR_MATH double erf(double) noexcept;
LIGHTCONE_VECTOR_MATH float atan2f(float, float) noexcept;
LIGHTCONE_VECTOR_MATH double atan2(double, double) noexcept;
}
#undef LIGHTCONE_VECTOR_MATH
#endif

namespace lightcone::vector_math {

LIGHTCONE_HOST_DEVICE inline float exp(float x) { return ::expf(x); }
LIGHTCONE_HOST_DEVICE inline double exp(double x) { return ::exp(x); }
LIGHTCONE_HOST_DEVICE inline float log(float x) { return ::logf(x); }
LIGHTCONE_HOST_DEVICE inline double log(double x) { return ::log(x); }
LIGHTCONE_HOST_DEVICE inline float log1p(float x) { return ::log1pf(x); }
LIGHTCONE_HOST_DEVICE inline double log1p(double x) { return ::log1p(x); }
LIGHTCONE_HOST_DEVICE inline float tanh(float x) { return ::tanhf(x); }
LIGHTCONE_HOST_DEVICE inline double tanh(double x) { return ::tanh(x); }
LIGHTCONE_HOST_DEVICE inline float erf(float x) { return ::erff(x); }
LIGHTCONE_HOST_DEVICE inline double erf(double x) { return ::erf(x); }
LIGHTCONE_HOST_DEVICE inline float atan2(float y, float x) { return ::atan2f(y, x); }
LIGHTCONE_HOST_DEVICE inline double atan2(double y, double x) { return ::atan2(y, x); }

/// map() works on blocks of this many elements.
inline constexpr int64_t block = 64;

/// Up to `block` numbers in the type of their sums, the rest of the block filled with the first.
template <class T>
struct PaddedBlock {
  sum_type<T> values[block];
  PaddedBlock(const T* source, int64_t count) {
    for (int64_t k = 0; k < count; ++k) values[k] = static_cast<sum_type<T>>(source[k]);
    for (int64_t k = count; k < block; ++k) values[k] = values[0];
  }
};

/// y[i] = f(x[i], …) for i < n; y may be one of the x; f gets bf16 elements as float. The vector functions differ from
/// the scalar ones in the last bits, so the rest of n after whole blocks goes through a padded block and not through
/// scalar code: an element's value does not depend on its place.
template <class Out, class F, class... In>
void map(int64_t n, Out* y, F f, const In*... x) {
  int64_t i = 0;
  if constexpr ((std::is_floating_point_v<In> && ... && std::is_floating_point_v<Out>))
    for (; i + block <= n; i += block) {
#pragma omp simd
      for (int64_t k = 0; k < block; ++k) y[i + k] = Out(f(x[i + k]...));
    }
  // A conversion from or to bf16 would keep the loop over f from being vectorised, so it has its own.
  for (; i < n; i += block) {
    const int64_t count = std::min(block, n - i);
    [&](const PaddedBlock<In>&... padded) {
      decltype(f(padded.values[0]...)) out[block];
#pragma omp simd
      for (int64_t k = 0; k < block; ++k) out[k] = f(padded.values[k]...);
      for (int64_t k = 0; k < count; ++k) y[i + k] = Out(out[k]);
    }(PaddedBlock<In>(x + i, count)...);
  }
}

/// (y1[i], y2[i]) = f(x[i], …), a pair, as map().
template <class Out, class F, class... In>
void map_pair(int64_t n, Out* y1, Out* y2, F f, const In*... x) {
  int64_t i = 0;
  if constexpr ((std::is_floating_point_v<In> && ... && std::is_floating_point_v<Out>))
    for (; i + block <= n; i += block) {
#pragma omp simd
      for (int64_t k = 0; k < block; ++k) {
        const auto pair = f(x[i + k]...);
        y1[i + k] = pair.first;
        y2[i + k] = pair.second;
      }
    }
  for (; i < n; i += block) {
    const int64_t count = std::min(block, n - i);
    [&](const PaddedBlock<In>&... padded) {
      decltype(f(padded.values[0]...).first) out1[block], out2[block];
#pragma omp simd
      for (int64_t k = 0; k < block; ++k) {
        const auto pair = f(padded.values[k]...);
        out1[k] = pair.first;
        out2[k] = pair.second;
      }
      for (int64_t k = 0; k < count; ++k) y1[i + k] = Out(out1[k]), y2[i + k] = Out(out2[k]);
    }(PaddedBlock<In>(x + i, count)...);
  }
}

}  // namespace lightcone::vector_math
