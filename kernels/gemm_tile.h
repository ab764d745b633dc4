#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

/// The innermost loop of matrix products in f32 and f64: one tile of c stays in vector registers while k runs.
namespace lightcone::kernels::gemm {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, tile_rows = 14;  // 28 sums, two vectors of b and a factor: 31 of 32 registers
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32, tile_rows = 6;  // 12 + 2 + 1 of 16
#else
inline constexpr int vector_bytes = 16, tile_rows = 6;
#endif
inline constexpr int tile_vectors = 2;

template <class T>
inline constexpr int lanes = vector_bytes / sizeof(T);
/// Columns of a tile, and of a panel of b.
template <class T>
inline constexpr int tile_cols = tile_vectors* lanes<T>;

template <class T>
struct UnalignedVector {
  typedef T type __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename UnalignedVector<T>::type;

/// Where a tile ends up: c[i * row + j] = sum + bias[j] (bias may be null), or with `accumulate` c += sum; j < cols.
template <class T>
struct TileResult {
  T* c;
  int64_t row, cols;
  const T* bias;
  bool accumulate;
};

/// sum over p of a(i, p) panel[p, j], p in order, for R rows and V vectors of columns; a(i, p) = a[i * row + p], or a[i
/// + p * tile_rows] of packed rows.
template <class T, bool packed, int V, int R>
void tile(int64_t k, const T* a, int64_t row, const T* panel, const TileResult<T>& out) {
  Vector<T> sum[R][V] = {};
  for (int64_t p = 0; p < k; ++p, panel += V * lanes<T>) {
    Vector<T> b[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) b[v] = *reinterpret_cast<const Vector<T>*>(panel + v * lanes<T>);
#pragma GCC unroll 14
    for (int i = 0; i < R; ++i) {
      const T factor = packed ? a[p * tile_rows + i] : a[i * row + p];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[i][v] += factor * b[v];
    }
  }
  if (out.cols == V * lanes<T>) {
#pragma GCC unroll 14
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        auto& c = *reinterpret_cast<Vector<T>*>(out.c + i * out.row + v * lanes<T>);
        if (out.accumulate)
          c += sum[i][v];
        else if (out.bias)
          c = sum[i][v] + *reinterpret_cast<const Vector<T>*>(out.bias + v * lanes<T>);
        else
          c = sum[i][v];
      }
    return;
  }
  for (int i = 0; i < R; ++i) {
    T row_of_sums[V * lanes<T>];
    for (int v = 0; v < V; ++v) *reinterpret_cast<Vector<T>*>(row_of_sums + v * lanes<T>) = sum[i][v];
    for (int64_t j = 0; j < out.cols; ++j) {
      T& c = out.c[i * out.row + j];
      c = row_of_sums[j] + (out.accumulate ? c : out.bias ? out.bias[j] : T(0));
    }
  }
}

/// The tile of `rows` rows, 1 to tile_rows, and as many vectors as `cols` needs.
template <class T, bool packed>
void tile_of(int64_t rows, int64_t k, const T* a, int64_t row, const T* panel, const TileResult<T>& out) {
  using Tile = void (*)(int64_t, const T*, int64_t, const T*, const TileResult<T>&);
  static constexpr auto tiles = []<int... R>(std::integer_sequence<int, R...>) {
    return std::array<std::array<Tile, tile_rows>, 2>{{{tile<T, packed, 1, R + 1>...}, {tile<T, packed, 2, R + 1>...}}};
  }
  (std::make_integer_sequence<int, tile_rows>());
  tiles[out.cols > lanes<T>][rows - 1](k, a, row, panel, out);
}

}  // namespace lightcone::kernels::gemm
