#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/vector.h"
#include "kernels/vector_math.h"

// The arithmetic of attention on the CPU. A tile is a few keys by as many queries as a vector register has lanes: each
// lane is one query, and everything per query (maximum, sum, log) goes straight down the lanes. Features come in blocks
// of B, a compile-time number, so that loops over them unroll. All arrays are packed, in the sum's dtype, and aligned
// to 64 bytes:
//
//     panel    [blocks][n][B]     n queries, keys or values by their features
//     columns  [blocks B][lanes]  per feature, one query a lane
//     pairs    [n][lanes]         per key (scores s, probabilities p), one query a lane
namespace lightcone::kernels::tile {

/// Keys of one tile at most: with its scores it stays in the first-level cache.
inline constexpr int64_t key_block = 64;

/// f(i, Count<k>) over [0, n) in steps of k = 8, then 4, 2 and 1, so that k sums stay in registers.
template <int k>
struct Count {
  static constexpr int value = k;
};
template <class F>
[[gnu::always_inline]] inline void in_blocks(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) f(i, Count<8>{});
  if (n & 4) f(i, Count<4>{}), i += 4;
  if (n & 2) f(i, Count<2>{}), i += 2;
  if (n & 1) f(i, Count<1>{});
}

/// finish(j, sum over features of a b[j]) for j < n, with a in columns and b the rows from `b` on of a panel of
/// `rows`.
template <int B, class S, class F>
[[gnu::always_inline]] inline void dot(int64_t n, int64_t blocks, int64_t rows, const S* a, const S* b, F&& finish) {
  in_blocks(
      n, [&](int64_t j, auto count) __attribute__((always_inline)) {
        constexpr int k = decltype(count)::value;
        Vector<S> sum[k] = {};
        for (int64_t block = 0; block < blocks; ++block) {
          const Vector<S>* in = vectors(a) + block * B;
          const S* row = b + (block * rows + j) * B;
#pragma GCC unroll 16
          for (int d = 0; d < B; ++d)
            for (int i = 0; i < k; ++i) sum[i] += in[d] * row[i * B + d];
        }
        for (int i = 0; i < k; ++i) finish(j + i, sum[i]);
      });
}

/// y += sum_j p[j] b[j] for j < n, with y in columns and b rows of a panel, as above.
template <int B, class S>
void weigh(int64_t n, int64_t blocks, int64_t rows, const S* p, const S* b, S* y) {
  // As many sums at once as hide the latency of an addition and fit the registers.
  constexpr int features = std::min(B, vector_bytes == 64 ? 16 : 8), keys = std::max(1, 8 / features);
  for (int64_t block = 0; block < blocks; ++block)
    for (int f = 0; f < B; f += features) {
      Vector<S>* out = vectors(y) + block * B + f;
      Vector<S> sum[keys][features] = {};
      for (int d = 0; d < features; ++d) sum[0][d] = out[d];
      const S* row = b + block * rows * B + f;
      int64_t j = 0;
      for (; j + keys <= n; j += keys, row += keys * B)
        for (int i = 0; i < keys; ++i) {
#pragma GCC unroll 16
          for (int d = 0; d < features; ++d) sum[i][d] += vectors(p)[j + i] * row[i * B + d];
        }
      for (; j < n; ++j, row += B)
        for (int d = 0; d < features; ++d) sum[0][d] += vectors(p)[j] * row[d];
      for (int i = 1; i < keys; ++i)
        for (int d = 0; d < features; ++d) sum[0][d] += sum[i][d];
      for (int d = 0; d < features; ++d) out[d] = sum[0][d];
    }
}

/// Where a block is narrower than a register, `spread` treats so many queries at once: a group's features lie in one
/// register as [B][group].
template <int B, class S>
inline constexpr int group = std::max<int>(1, lanes<S> / B);
/// Registers for a row of B features, or for a group of them.
template <int B, class S>
inline constexpr int wide = std::max<int>(1, B / lanes<S>);

/// All lanes from the numbers x[0 … g): x[0], …, x[g-1], x[0], ….
template <int g, class S>
Vector<S> repeat(const S* x) {
  if constexpr (g == 1) {
    return splat(*x);
  } else if constexpr (g * sizeof(S) == 8) {
    typedef int64_t Pair __attribute__((may_alias));
    return (Vector<S>)splat<int64_t>(*reinterpret_cast<const Pair*>(x));
  } else {
#if defined(__AVX512F__)
    static_assert(g * sizeof(S) == 16, "narrower registers hold no more than two blocks");
    return (Vector<S>)_mm512_maskz_broadcast_f32x4(-1, _mm_loadu_ps(reinterpret_cast<const float*>(x)));
#endif
  }
}

/// c[j] += sum over lanes of p[j][lane] rows[lane] for j < n, features along the registers. Here `rows` is what
/// to_groups() makes of a panel of queries and c is [blocks][c_rows][B group], of which c points to the first row.
template <int B, class S>
void spread(int64_t n, int64_t blocks, int64_t c_rows, const S* p, const S* rows, S* c) {
  constexpr int g = group<B, S>, w = wide<B, S>, groups = lanes<S> / g;
  for (int64_t block = 0; block < blocks; ++block)
    for (int part = 0; part < w; ++part) {
      const Vector<S>* in = vectors(rows) + block * groups * w + part;
      Vector<S>* out = vectors(c) + block * c_rows * w + part;
      in_blocks(
          n, [&](int64_t j, auto count) __attribute__((always_inline)) {
            constexpr int k = decltype(count)::value;
            Vector<S> sum[k];
            for (int i = 0; i < k; ++i) sum[i] = out[(j + i) * w];
#pragma GCC unroll 16
            for (int l = 0; l < groups; ++l)
              for (int i = 0; i < k; ++i) sum[i] += in[l * w] * repeat<g>(p + (j + i) * lanes<S> + l * g);
            for (int i = 0; i < k; ++i) out[(j + i) * w] = sum[i];
          });
    }
}

/// One perfect shuffle of n registers as one array: the element i of the first half goes to 2i, of the second to 2i+1.
/// It rotates the bits of an element's index by one, so a few of them transpose.
template <class S, int n>
void riffle(Vector<S> (&x)[n]) {
  constexpr auto low = [](int64_t i) { return i / 2 + i % 2 * lanes<S>; };
  constexpr auto high = [](int64_t i) { return lanes<S> / 2 + i / 2 + i % 2 * lanes<S>; };
  Vector<S> y[n];
#pragma GCC unroll 16
  for (int k = 0; k < n / 2; ++k) {
    y[2 * k] = shuffle<S, low>(x[k], x[k + n / 2]);
    y[2 * k + 1] = shuffle<S, high>(x[k], x[k + n / 2]);
  }
#pragma GCC unroll 16
  for (int k = 0; k < n; ++k) x[k] = y[k];
}

/// Transposes each block: a panel of as many rows as lanes to columns, and back.
template <int B, class S>
void to_columns(int64_t blocks, const S* panel, S* columns) {
  for (int64_t block = 0; block < blocks; ++block) {
    Vector<S> x[B];
    for (int k = 0; k < B; ++k) x[k] = vectors(panel)[block * B + k];
    for (int step = 1; step < lanes<S>; step *= 2) riffle<S>(x);
    for (int k = 0; k < B; ++k) vectors(columns)[block * B + k] = x[k];
  }
}
template <int B, class S>
void to_panel(int64_t blocks, const S* columns, S* panel) {
  for (int64_t block = 0; block < blocks; ++block) {
    Vector<S> x[B];
    for (int k = 0; k < B; ++k) x[k] = vectors(columns)[block * B + k];
    for (int step = 1; step < B; step *= 2) riffle<S>(x);
    for (int k = 0; k < B; ++k) vectors(panel)[block * B + k] = x[k];
  }
}

/// A panel of as many rows as lanes, in place, for spread(): [group][B] becomes [B][group] in each register.
template <int B, class S>
void to_groups(int64_t blocks, S* panel) {
  if constexpr (group < B, S >> 1) {
    constexpr auto order = [](int64_t i) { return i % group<B, S> * B + i / group<B, S>; };
    for (int64_t k = 0; k < blocks * B; ++k)
      vectors(panel)[k] = shuffle<S, order>(vectors(panel)[k], vectors(panel)[k]);
  }
}
/// What spread() summed, [n][B group] in place: the sum over each group, [n][B].
template <int B, class S>
void add_groups(int64_t n, S* c) {
  constexpr int g = group<B, S>;
  if constexpr (g > 1)
    for (int64_t j = 0; j < n; ++j) {
      S sum[B] = {};
      for (int i = 0; i < g; ++i)
        for (int d = 0; d < B; ++d) sum[d] += c[(j * B + d) * g + i];
      for (int d = 0; d < B; ++d) c[j * B + d] = sum[d];
    }
}

/// <a, b> of each row of two panels of as many rows as lanes.
template <int B, class S>
Vector<S> row_dots(int64_t blocks, const S* a, const S* b) {
  alignas(64) S products[B * lanes<S>];
  for (int k = 0; k < B; ++k) {
    Vector<S> sum = {};
    for (int64_t block = 0; block < blocks; ++block) sum += vectors(a)[block * B + k] * vectors(b)[block * B + k];
    vectors(products)[k] = sum;
  }
  to_columns<B>(1, products, products);
  Vector<S> dots = {};
  for (int d = 0; d < B; ++d) dots += vectors(products)[d];
  return dots;
}

/// The softmax of scores in units of log 2 that arrive a few keys at a time: maximum and sum of powers so far.
template <class S>
struct RunningSoftmax {
  Vector<S> max = splat(-S(INFINITY)), sum = {};
  bool started = false;

  /// n more scores, of which `top` is the largest, become 2^(s - max). What was summed before with a smaller maximum,
  /// y among it, is rescaled.
  void add(int64_t n, Vector<S> top, S* s, int64_t size, S* y) {
    const Vector<S> before = max;
    max = top > max ? top : max;
    // -inf - -inf would be NaN while a finite score may still come.
    const Vector<S> shift = max == -S(INFINITY) ? Vector<S>{} : max;
    Vector<S> total = {};
    if (started) {
      const Vector<S> rescale = vector_math::exp2<S>(before - shift);
      for (int64_t d = 0; d < size; ++d) vectors(y)[d] *= rescale;
      total = sum * rescale;
    }
    for (int64_t j = 0; j < n; ++j) total += vectors(s)[j] = vector_math::exp2<S>(vectors(s)[j] - shift);
    sum = total;
    started = true;
  }
  /// y becomes the weighted mean. Without any key it stays 0.
  void finish(int64_t size, S* y) const {
    if (!started) return;
    const Vector<S> factor = 1 / sum;
    for (int64_t d = 0; d < size; ++d) vectors(y)[d] *= factor;
  }
  /// log of the sum of all exponentials; -inf without any.
  Vector<S> lse() const {
    Vector<S> logs;
#pragma omp simd
    for (int64_t l = 0; l < lanes<S>; ++l) logs[l] = vector_math::log(sum[l]);
    return S(M_LN2) * max + logs;
  }
};

}  // namespace lightcone::kernels::tile
