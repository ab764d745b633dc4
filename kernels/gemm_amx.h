#pragma once
#include "engine/context.h"
#include "kernels/amx.h"

#if defined(__AMX_BF16__)
/// Products by AMX tiles, for gemm.cpp. A factor is P parts in bf16: one for bf16, to which others are rounded, and
/// three for f32, whose sum it is. Of the nine products of two such sums the six largest are added up; the others are
/// below 2^-26 of the whole. Both factors are cut into tiles of 1 KiB that are read whole; what is missing at the edges
/// is zeros.
///
///     left    [rows / 16][k / 32][parts] tiles [16 rows][32 of k]
///     right   [cols / 32][k / 32][parts] pairs of tiles [16 pairs of k][16 cols][2]
namespace lightcone::kernels::gemm::tiled {

template <class P>
inline constexpr int parts = std::is_same_v<P, float> ? 3 : 1;

inline int64_t blocks(int64_t n, int64_t step) { return (n + step - 1) / step; }
template <class P>
int64_t left_size(int64_t rows, int64_t k) {
  return blocks(rows, 32) * 32 * blocks(k, 32) * 32 * parts<P>;
}
template <class P>
int64_t right_size(int64_t cols, int64_t k) {
  return left_size<P>(cols, k);
}

/// P is f32, or bf16 for an In of f32 or bf16.
template <class P, class In>
void pack_left(int64_t rows, int64_t k, const In* a, bf16* out);
/// The left factor a^T for a [k, rows].
template <class P, class In>
void pack_left_transposed(int64_t rows, int64_t k, const In* a, bf16* out);
/// b [k, cols]
template <class P, class In>
void pack_right(int64_t cols, int64_t k, const In* b, bf16* out);
/// The right factor b^T for b [cols, k].
template <class P, class In>
void pack_right_transposed(int64_t cols, int64_t k, const In* b, bf16* out);

/// c[i, j] = sum over p of left(i, p) right(p, j), plus bias[j] unless null, or added to c; rows of c have n elements.
/// `first` is a multiple of 32. Out is f32, or bf16, to which sums are rounded.
template <class P, class Out>
void multiply(int64_t rows, int64_t k, const bf16* left, const bf16* right, int64_t first, int64_t last, int64_t n,
              const float* bias, bool accumulate, Out* c);

}  // namespace lightcone::kernels::gemm::tiled
#endif
