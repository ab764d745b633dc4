#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/vector_math.h"

// The arithmetic of attention on the CPU. A tile is a few keys by as many queries as a vector register has lanes: each
// lane is one query, and everything per query (maximum, sum, log) goes straight down the lanes. All arrays are packed,
// in the sum's dtype, and aligned to 64 bytes.
//
//     [n][lanes]   per key (scores s, probabilities p) or per feature (q, y transposed), one query a lane
//     [n][size]    keys or values, read element by element
namespace lightcone::kernels::tile {

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
int64_t padded(int64_t n) {
  return (n + lanes<S> - 1) / lanes<S> * lanes<S>;
}
template <class S>
Vector<S>* vectors(S* x) {
  return reinterpret_cast<Vector<S>*>(x);
}
template <class S>
const Vector<S>* vectors(const S* x) {
  return reinterpret_cast<const Vector<S>*>(x);
}

/// f(i, Count<k>) over [0, n) in steps of k = 8, then 4, 2 and 1, so that k sums stay in registers.
template <int k>
struct Count {
  static constexpr int value = k;
};
template <class F>
void in_blocks(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) f(i, Count<8>{});
  if (n & 4) f(i, Count<4>{}), i += 4;
  if (n & 2) f(i, Count<2>{}), i += 2;
  if (n & 1) f(i, Count<1>{});
}

/// s[j] = sum_d a[d] b[j][d]    for j < n, d < size
template <class S>
void dot(int64_t n, int64_t size, const S* a, const S* b, S* s) {
  in_blocks(n, [&](int64_t j, auto count) {
    constexpr int k = decltype(count)::value;
    const Vector<S>* in = vectors(a);
    const S* row = b + j * size;
    Vector<S> sum[k] = {};
    for (int64_t d = 0; d < size; ++d)
      for (int i = 0; i < k; ++i) sum[i] += in[d] * row[i * size + d];
    for (int i = 0; i < k; ++i) vectors(s)[j + i] = sum[i];
  });
}

/// y[d] += sum_j p[j] b[j][d]    for j < n, d < size
template <class S>
void weigh(int64_t n, int64_t size, const S* p, const S* b, S* y) {
  in_blocks(size, [&](int64_t d, auto count) {
    constexpr int k = decltype(count)::value;
    Vector<S> sum[k];
    for (int i = 0; i < k; ++i) sum[i] = vectors(y)[d + i];
    for (int64_t j = 0; j < n; ++j)
      for (int i = 0; i < k; ++i) sum[i] += vectors(p)[j] * b[j * size + d + i];
    for (int i = 0; i < k; ++i) vectors(y)[d + i] = sum[i];
  });
}

/// c[j][d] += sum over lanes of p[j][lane] rows[lane][d]    for j < n, d < size, a multiple of the lanes: here the
/// vector runs over features
template <class S>
void spread(int64_t n, int64_t size, const S* p, const S* rows, S* c) {
  const int64_t wide = size / lanes<S>;
  for (int64_t d = 0; d < wide; ++d)
    in_blocks(n, [&](int64_t j, auto count) {
      constexpr int k = decltype(count)::value;
      Vector<S>* out = vectors(c) + j * wide + d;
      Vector<S> sum[k];
      for (int i = 0; i < k; ++i) sum[i] = out[i * wide];
      for (int64_t l = 0; l < lanes<S>; ++l)
        for (int i = 0; i < k; ++i) sum[i] += vectors(rows)[l * wide + d] * p[(j + i) * lanes<S> + l];
      for (int i = 0; i < k; ++i) out[i * wide] = sum[i];
    });
}

/// columns[d][lane] = rows[lane][d] for d < size, rows `stride` apart; lanes without a row are 0.
template <class S>
void to_lanes(int64_t rows, int64_t size, int64_t stride, const S* in, S* columns) {
  if (rows < lanes<S>) std::fill_n(columns, size * lanes<S>, S(0));
  for (int64_t l = 0; l < rows; ++l)
    for (int64_t d = 0; d < size; ++d) columns[d * lanes<S> + l] = in[l * stride + d];
}
template <class S>
void to_rows(int64_t rows, int64_t size, int64_t stride, const S* columns, S* out) {
  for (int64_t l = 0; l < rows; ++l)
    for (int64_t d = 0; d < size; ++d) out[l * stride + d] = columns[d * lanes<S> + l];
}

/// s[j] = exp(s[j] - shift)    for j < n
template <class S>
void exponentiate(int64_t n, const S* shift, S* s) {
  for (int64_t j = 0; j < n; ++j) {
    S* x = s + j * lanes<S>;
#pragma omp simd
    for (int64_t l = 0; l < lanes<S>; ++l) x[l] = vector_math::exp(x[l] - shift[l]);
  }
}

/// The softmax of scores that arrive a few keys at a time: maximum and sum of exponentials so far.
template <class S>
struct RunningSoftmax {
  alignas(64) S max[lanes<S>], sum[lanes<S>];
  bool started = false;

  /// The scores of n more keys become exp(s - max). What was summed before with a smaller maximum, y among it, is
  /// rescaled.
  void add(int64_t n, S* s, int64_t size, S* y) {
    Vector<S> top = vectors(s)[0];
    for (int64_t j = 1; j < n; ++j) top = vectors(s)[j] > top ? vectors(s)[j] : top;
    alignas(64) S shift[lanes<S>], rescale[lanes<S>];
    if (started) {
      top = *vectors(max) > top ? *vectors(max) : top;
      *vectors(rescale) = *vectors(max);
    }
    *vectors(max) = top;
    // exp(-inf - -inf) would be NaN while a finite score may still come.
    for (int64_t l = 0; l < lanes<S>; ++l) shift[l] = max[l] == -INFINITY ? S(0) : max[l];
    exponentiate(n, shift, s);
    Vector<S> total = vectors(s)[0];
    for (int64_t j = 1; j < n; ++j) total += vectors(s)[j];
    if (started) {
      exponentiate(1, shift, rescale);
      total += *vectors(sum) * *vectors(rescale);
      for (int64_t d = 0; d < size; ++d) vectors(y)[d] *= *vectors(rescale);
    }
    *vectors(sum) = total;
    started = true;
  }
  /// y becomes the weighted mean. Without any key it stays 0.
  void finish(int64_t size, S* y) const {
    if (!started) return;
    const Vector<S> factor = 1 / *vectors(sum);
    for (int64_t d = 0; d < size; ++d) vectors(y)[d] *= factor;
  }
  S lse(int64_t lane) const { return started ? max[lane] + std::log(sum[lane]) : S(-INFINITY); }
};

}  // namespace lightcone::kernels::tile
