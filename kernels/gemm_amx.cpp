#include "kernels/gemm_amx.h"

#if defined(__AMX_BF16__)
#include <algorithm>
#include <cstring>

#include "kernels/gemm_amx_blocks.h"

namespace lightcone::kernels::gemm::tiled {
namespace {

// Up to 16 elements, zeros behind them.
template <class P>
Parts<P> load16(const float* x, int64_t n) {
  return split<P>(_mm512_maskz_loadu_ps(first(n), x));
}
template <class P>
Parts<P> load16(const bf16* x, int64_t n) {
  return {_mm256_maskz_loadu_epi16(first(n), x)};
}

__m512 load16_ps(const float* x, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, x); }
__m512 load16_ps(const bf16* x, __mmask16 mask) { return widen(_mm256_maskz_loadu_epi16(mask, x)); }
void store16(__m512 v, float* x, __mmask16 mask) { _mm512_mask_storeu_ps(x, mask, v); }
void store16(__m512 v, bf16* x, __mmask16 mask) { _mm256_mask_storeu_epi16(x, mask, (__m256i)_mm512_cvtneps_pbh(v)); }

// Words (p / 2, j) of rows p, p + 1 of b, for 16 columns from j, to out + part * step; rows past k are zeros.
template <class P, class In>
void words(const In* b, int64_t row, int64_t k, int64_t p, int64_t cols, __m512i* out, int64_t step) {
  const Parts<P> even = load16<P>(b + (p < k ? p * row : 0), p < k ? cols : 0),
                 odd = load16<P>(b + (p + 1 < k ? (p + 1) * row : 0), p + 1 < k ? cols : 0);
  for (int s = 0; s < parts<P>; ++s) _mm512_storeu_si512(out + s * step, pair(even.part[s], odd.part[s]));
}

// A tile, 16 x 16 words, transposed.
void transpose(const __m512i* r, __m512i* out) {
  __m512i t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(_mm512_loadu_si512(r + i), _mm512_loadu_si512(r + i + 1));
    t[i + 1] = _mm512_unpackhi_epi32(_mm512_loadu_si512(r + i), _mm512_loadu_si512(r + i + 1));
  }
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(u[i], u[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(u[i], u[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(u[i + 8], u[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(u[i + 8], u[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_si512(out + i, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_si512(out + i + 8, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
  }
}

__m512i* at(bf16* tile) { return reinterpret_cast<__m512i*>(tile); }

// The parts of one tile whose row i holds k = [p, p + 32) of column j + i of b [k, cols].
template <class P, class In>
void turned_tile(const In* b, int64_t row, int64_t k, int64_t p, int64_t cols, bf16* tile) {
  __m512i r[parts<P>][16];
  for (int i = 0; i < 16; ++i) words<P>(b, row, k, p + 2 * i, cols, r[0] + i, 16);
  for (int s = 0; s < parts<P>; ++s) transpose(r[s], at(tile + s * tile_elements));
}
// The parts of one tile whose row i holds k = [p, p + 32) of row i of a, `step` apart.
template <class P, class In>
void straight_tile(const In* a, int64_t row, int64_t rows, int64_t k, bf16* tile, int64_t step) {
  for (int64_t i = 0; i < 16; ++i, tile += 32) {
    const bool there = i < rows;
    const In* x = there ? a + i * row : a;
    const Parts<P> lower = load16<P>(x, there ? k : 0), upper = load16<P>(x + 16, there ? k - 16 : 0);
    for (int s = 0; s < parts<P>; ++s) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + s * step), lower.part[s]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + s * step + 16), upper.part[s]);
    }
  }
}

}  // namespace

template <class P, class In>
void pack_left(int64_t rows, int64_t k, const In* a, bf16* out) {
  for (int64_t i = 0; i < blocks(rows, 32) * 32; i += 16)
    for (int64_t p = 0; p < k; p += 32, out += parts<P> * tile_elements)
      straight_tile<P>(a + i * k + p, k, rows - i, k - p, out, tile_elements);
}

template <class P, class In>
void pack_left_transposed(int64_t rows, int64_t k, const In* a, bf16* out) {
  for (int64_t i = 0; i < blocks(rows, 32) * 32; i += 16)
    for (int64_t p = 0; p < k; p += 32, out += parts<P> * tile_elements)
      turned_tile<P>(a + i, rows, k, p, rows - i, out);
}

template <class P, class In>
void pack_right(int64_t cols, int64_t k, const In* b, bf16* out) {
  for (int64_t j = 0; j < cols; j += 32)
    for (int64_t p = 0; p < k; p += 32, out += 2 * parts<P> * tile_elements)
      for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 16; ++i)
          words<P>(b + j + half * 16, cols, k, p + 2 * i, cols - j - half * 16, at(out + half * tile_elements + i * 32),
                   2 * tile_elements / 32);
}

template <class P, class In>
void pack_right_transposed(int64_t cols, int64_t k, const In* b, bf16* out) {
  for (int64_t j = 0; j < cols; j += 32)
    for (int64_t p = 0; p < k; p += 32, out += 2 * parts<P> * tile_elements) {
      // Rows of b hold pairs of k as words already: turned, they are the tiles.
      for (int half = 0; half < 2; ++half)
        straight_tile<P>(b + (j + half * 16) * k + p, k, cols - j - half * 16, k - p, out + half * tile_elements,
                         2 * tile_elements);
      for (int tile = 0; tile < 2 * parts<P>; ++tile)
        transpose(at(out + tile * tile_elements), at(out + tile * tile_elements));
    }
}

template <class P, class Out>
void multiply(int64_t rows, int64_t k, const bf16* left, const bf16* right, int64_t first, int64_t last, int64_t n,
              const float* bias, bool accumulate, Out* c) {
  const WholeTiles tiles;
  const int64_t depth = blocks(k, 32);
  // Rows of c that come next, for fetch() below.
  const int64_t pace = blocks(32, std::max<int64_t>(1, depth * (parts<P> == 1 ? 1 : 6)));
  // Where sums start, the same in every row, and where they end up before the edges of c are cut,
  // [32 rows][32 columns].
  alignas(64) float start[32] = {}, sums[32 * 32];
  finish_writes();
  for (int64_t j = first; j < last; j += 32) {
    const int64_t cols = std::min<int64_t>(32, last - j);
    if (bias)
      for (int half = 0; half < 32; half += 16)
        _mm512_store_ps(start + half, _mm512_maskz_loadu_ps(tiled::first(cols - half), bias + j + half));
    finish_writes();
    for (int64_t i = 0; i < rows; i += 32) {
      const int64_t present = std::min<int64_t>(32, rows - i);
      const bool inside = present == 32 && cols == 32;
      Out* out = c + i * n + j;
      // The lines of c that come next are fetched meanwhile, a few with every product: more would hold up its tiles.
      const bool below = i + 32 < rows;
      const Out* coming = below ? out + 32 * n : c + j + 32;
      int64_t rows_coming = std::min<int64_t>(32, below ? rows - i - 32 : j + 32 < last ? rows : 0);
      auto fetch = [&] {
        for (int64_t r = 0; r < pace && rows_coming > 0; ++r, --rows_coming, coming += n) {
          __builtin_prefetch(coming, 1);
          __builtin_prefetch(coming + 31, 1);
        }
      };
      if constexpr (std::is_same_v<Out, float>)
        if (inside) {
          accumulate ? load_sums(out, n) : bias ? load_sums(start, 0) : zero_sums();
          add_block<P>(left, right, depth, i / 32, j / 32, fetch);
          store_sums(out, n);
          continue;
        }
      bias ? load_sums(start, 0) : zero_sums();
      add_block<P>(left, right, depth, i / 32, j / 32, fetch);
      store_sums(sums, 32);
      for (int64_t r = 0; r < present; ++r, out += n)
        for (int half = 0; half < 32; half += 16) {
          const __mmask16 mask = tiled::first(cols - half);
          __m512 v = _mm512_load_ps(sums + r * 32 + half);
          if (accumulate) v = _mm512_add_ps(v, load16_ps(out + half, mask));
          store16(v, out + half, mask);
        }
    }
  }
}

#define LIGHTCONE_PACKS(P, In)                                               \
  template void pack_left<P>(int64_t, int64_t, const In*, bf16*);            \
  template void pack_left_transposed<P>(int64_t, int64_t, const In*, bf16*); \
  template void pack_right<P>(int64_t, int64_t, const In*, bf16*);           \
  template void pack_right_transposed<P>(int64_t, int64_t, const In*, bf16*);
#define LIGHTCONE_MULTIPLY(P, Out)                                                                                     \
  template void multiply<P>(int64_t, int64_t, const bf16*, const bf16*, int64_t, int64_t, int64_t, const float*, bool, \
                            Out*);
LIGHTCONE_PACKS(float, float)
LIGHTCONE_PACKS(bf16, float)
LIGHTCONE_PACKS(bf16, bf16)
LIGHTCONE_MULTIPLY(float, float)
LIGHTCONE_MULTIPLY(bf16, float)
LIGHTCONE_MULTIPLY(bf16, bf16)
#undef LIGHTCONE_PACKS
#undef LIGHTCONE_MULTIPLY

}  // namespace lightcone::kernels::gemm::tiled
#endif
