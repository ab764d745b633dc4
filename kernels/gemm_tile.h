#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "kernels/vector.h"

/// The innermost loop of matrix products in f32 and f64: one tile of c stays in vector registers while k runs.
namespace lightcone::kernels::gemm {

#if defined(__AVX512F__)
inline constexpr int tile_vectors = 4;
/// Rows of a tile that is 1, 2, … vectors wide: sums, the vectors of b and a factor fit 32 registers.
inline constexpr std::array<int, tile_vectors> tile_rows = {12, 12, 8, 6};
#else
inline constexpr int tile_vectors = 2;
inline constexpr std::array<int, tile_vectors> tile_rows = {6, 6};  // of 16 registers
#endif
inline constexpr int most_rows = tile_rows[0];

/// Columns of a tile, and of a panel of b.
template <class T>
inline constexpr int tile_cols = tile_vectors* lanes<T>;
/// So many of k go through a tile at once that their part of a panel of b stays in the first-level cache.
inline constexpr int64_t tile_depth = 128;

template <class T>
struct UnalignedVectorOf {
  typedef T type __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));
};
template <class T>
using UnalignedVector = typename UnalignedVectorOf<T>::type;

/// Where a tile ends up: c[i * row + j] = sum, plus what it was if `accumulate`, plus bias[j] unless null; j < cols.
/// Meanwhile `lines` cache lines from `next` on, which later tiles read, come closer.
template <class T>
struct TileResult {
  T* c;
  int64_t row, cols;
  const T* bias;
  bool accumulate;
  const T* next = nullptr;
  int64_t lines = 0;
};

/// sum over p of a(i, p) panel[p, j], p in order, for R rows and V vectors of columns; a(i, p) = a[i * row + p], or a[i
/// + p * row] if `transposed`.
template <class T, bool transposed, int V, int R>
void tile(int64_t k, const T* a, int64_t row, const T* panel, const TileResult<T>& out) {
  using Vector = UnalignedVector<T>;
  Vector sum[R][V] = {};
  int64_t p = 0, line = 0;
  for (int64_t next = 0; next <= R; ++next) {
    // The lines of c come from far away while the sums are computed, a row at a time so that they do not hold up b.
    if (next < R)
      for (int v = 0; v < V; ++v) __builtin_prefetch(out.c + next * out.row + v * lanes<T>, 1);
    for (const int64_t end = out.lines * (next + 1) / (R + 1); line < end; ++line)
      __builtin_prefetch(out.next + line * (64 / sizeof(T)), 0, 2);
    for (const int64_t end = next < R ? k / R * (next + 1) : k; p < end; ++p, panel += V * lanes<T>) {
      Vector b[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) b[v] = *reinterpret_cast<const Vector*>(panel + v * lanes<T>);
#pragma GCC unroll 12
      for (int i = 0; i < R; ++i) {
        const T factor = transposed ? a[p * row + i] : a[i * row + p];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[i][v] += factor * b[v];
      }
    }
  }
  if (out.cols == V * lanes<T>) {
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        auto& c = *reinterpret_cast<Vector*>(out.c + i * out.row + v * lanes<T>);
        Vector value = sum[i][v];
        if (out.accumulate) value += c;
        if (out.bias) value += *reinterpret_cast<const Vector*>(out.bias + v * lanes<T>);
        c = value;
      }
    return;
  }
  for (int i = 0; i < R; ++i) {
    T row_of_sums[V * lanes<T>];
    for (int v = 0; v < V; ++v) *reinterpret_cast<Vector*>(row_of_sums + v * lanes<T>) = sum[i][v];
    for (int64_t j = 0; j < out.cols; ++j) {
      T& c = out.c[i * out.row + j];
      T value = row_of_sums[j];
      if (out.accumulate) value += c;
      if (out.bias) value += out.bias[j];
      c = value;
    }
  }
}

template <class T>
using Tile = void (*)(int64_t, const T*, int64_t, const T*, const TileResult<T>&);

/// The tiles of V vectors, by rows - 1.
template <class T, bool transposed, int V, int... R>
constexpr std::array<Tile<T>, most_rows> tiles_by_rows(std::integer_sequence<int, R...>) {
  return {tile<T, transposed, V, R + 1>...};
}

/// The tile of `rows` rows, 1 to tile_rows[vectors - 1].
template <class T, bool transposed>
void tile_of(int vectors, int64_t rows, int64_t k, const T* a, int64_t row, const T* panel, const TileResult<T>& out) {
  static constexpr auto tiles = []<int... V>(std::integer_sequence<int, V...>) {
    return std::array{tiles_by_rows<T, transposed, V + 1>(std::make_integer_sequence<int, tile_rows[V]>())...};
  }
  (std::make_integer_sequence<int, tile_vectors>());
  tiles[vectors - 1][rows - 1](k, a, row, panel, out);
}

}  // namespace lightcone::kernels::gemm
