#include "kernels/gemm_amx.h"

#if defined(__AMX_BF16__)
#include <algorithm>
#include <cstring>

// GCC 12 warns of undefined registers inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace lightcone::kernels::gemm::tiled {
namespace {

constexpr int64_t tile_elements = 16 * 32;

__mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, 16)) - 1); }

// Up to 16 elements as bf16, zeros behind them.
__m256i load16(const float* x, int64_t n) { return (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first(n), x)); }
__m256i load16(const bf16* x, int64_t n) { return _mm256_maskz_loadu_epi16(first(n), x); }

__m512 load16_ps(const float* x, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, x); }
__m512 load16_ps(const bf16* x, __mmask16 mask) {
  return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x)), 16);
}
void store16(__m512 v, float* x, __mmask16 mask) { _mm512_mask_storeu_ps(x, mask, v); }
void store16(__m512 v, bf16* x, __mmask16 mask) { _mm256_mask_storeu_epi16(x, mask, (__m256i)_mm512_cvtneps_pbh(v)); }

// Columns of two rows side by side in words: pairs of consecutive k.
__m512i pair(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}
// Words (p / 2, j) of rows p, p + 1 of b, for 16 columns from j; rows past k are zeros.
template <class In>
__m512i words(const In* b, int64_t row, int64_t k, int64_t p, int64_t cols) {
  const __m256i zero = _mm256_setzero_si256();
  return pair(p < k ? load16(b + p * row, cols) : zero, p + 1 < k ? load16(b + (p + 1) * row, cols) : zero);
}

// 16 x 16 words, transposed in place.
void transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// One tile whose row i holds k = [p, p + 32) of column j + i of b [k, cols].
template <class In>
void turned_tile(const In* b, int64_t row, int64_t k, int64_t p, int64_t cols, bf16* tile) {
  __m512i r[16];
  for (int i = 0; i < 16; ++i) r[i] = words(b, row, k, p + 2 * i, cols);
  transpose(r);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(tile + i * 32, r[i]);
}
// One tile whose row i holds k = [p, p + 32) of row i of a.
template <class In>
void straight_tile(const In* a, int64_t row, int64_t rows, int64_t k, bf16* tile) {
  for (int64_t i = 0; i < 16; ++i, tile += 32) {
    const In* x = a + i * row;
    const bool there = i < rows;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile), load16(x, there ? k : 0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + 16), load16(x + 16, there ? k - 16 : 0));
  }
}

}  // namespace

template <class In>
void pack_left(int64_t rows, int64_t k, const In* a, bf16* out) {
  for (int64_t i = 0; i < blocks(rows, 32) * 32; i += 16)
    for (int64_t p = 0; p < k; p += 32, out += tile_elements) straight_tile(a + i * k + p, k, rows - i, k - p, out);
}

template <class In>
void pack_left_transposed(int64_t rows, int64_t k, const In* a, bf16* out) {
  for (int64_t i = 0; i < blocks(rows, 32) * 32; i += 16)
    for (int64_t p = 0; p < k; p += 32, out += tile_elements) turned_tile(a + i, rows, k, p, rows - i, out);
}

template <class In>
void pack_right(int64_t cols, int64_t k, const In* b, bf16* out) {
  for (int64_t j = 0; j < cols; j += 32)
    for (int64_t p = 0; p < k; p += 32)
      for (int64_t half = j; half < j + 32; half += 16, out += tile_elements)
        for (int i = 0; i < 16; ++i)
          _mm512_storeu_si512(out + i * 32, words(b + half, cols, k, p + 2 * i, cols - half));
}

template <class In>
void pack_right_transposed(int64_t cols, int64_t k, const In* b, bf16* out) {
  for (int64_t j = 0; j < cols; j += 32)
    for (int64_t p = 0; p < k; p += 32)
      for (int64_t half = j; half < j + 32; half += 16, out += tile_elements) {
        // Rows of b hold pairs of k as words already: turned, they are the tile.
        straight_tile(b + half * k + p, k, cols - half, k - p, out);
        __m512i r[16];
        for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(out + i * 32);
        transpose(r);
        for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + i * 32, r[i]);
      }
}

template <class Out>
void multiply(int64_t rows, int64_t k, const bf16* left, const bf16* right, int64_t first, int64_t last, int64_t n,
              const float* bias, bool accumulate, Out* c) {
  constexpr AmxTiles::Shape whole{16, 64};
  const AmxTiles tiles({whole, whole, whole, whole, whole, whole, whole, whole});
  const int64_t depth = blocks(k, 32), step = depth * tile_elements;
  // Where sums start, and where they end up before the edges of c are cut: [32 rows][32 columns].
  alignas(64) float start[32 * 32], sums[32 * 32];
  finish_writes();
  for (int64_t j = first; j < last; j += 32) {
    const bf16* panel = right + j / 32 * 2 * step;
    const int64_t cols = std::min<int64_t>(32, last - j);
    if (bias)
      for (int64_t r = 0; r < 16; ++r)
        for (int half = 0; half < 32; half += 16)
          _mm512_store_ps(start + r * 32 + half, _mm512_maskz_loadu_ps(tiled::first(cols - half), bias + j + half));
    finish_writes();
    for (int64_t i = 0; i < rows; i += 32) {
      const bf16 *upper = left + i / 16 * step, *lower = upper + step, *b = panel;
      const int64_t present = std::min<int64_t>(32, rows - i);
      const bool inside = present == 32 && cols == 32;
      Out* out = c + i * n + j;
      // The lines of c come from far away while the sums are computed.
      for (int64_t r = 0; r < present; ++r) {
        __builtin_prefetch(out + r * n, 1);
        __builtin_prefetch(out + r * n + cols - 1, 1);
      }
      if (bias) {
        _tile_loadd(0, start, 128);
        _tile_loadd(1, start + 16, 128);
        _tile_loadd(2, start, 128);
        _tile_loadd(3, start + 16, 128);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      for (int64_t p = 0; p < depth; ++p, upper += tile_elements, lower += tile_elements, b += 2 * tile_elements) {
        _tile_loadd(4, upper, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + tile_elements, 64);
        _tile_loadd(5, lower, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      if constexpr (std::is_same_v<Out, float>)
        if (inside && !accumulate) {
          _tile_stored(0, out, n * 4);
          _tile_stored(1, out + 16, n * 4);
          _tile_stored(2, out + 16 * n, n * 4);
          _tile_stored(3, out + 16 * n + 16, n * 4);
          continue;
        }
      _tile_stored(0, sums, 128);
      _tile_stored(1, sums + 16, 128);
      _tile_stored(2, sums + 16 * 32, 128);
      _tile_stored(3, sums + 16 * 32 + 16, 128);
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

#define LIGHTCONE_PACKS(In)                                               \
  template void pack_left(int64_t, int64_t, const In*, bf16*);            \
  template void pack_left_transposed(int64_t, int64_t, const In*, bf16*); \
  template void pack_right(int64_t, int64_t, const In*, bf16*);           \
  template void pack_right_transposed(int64_t, int64_t, const In*, bf16*);
LIGHTCONE_PACKS(float)
LIGHTCONE_PACKS(bf16)
#undef LIGHTCONE_PACKS
template void multiply(int64_t, int64_t, const bf16*, const bf16*, int64_t, int64_t, int64_t, const float*, bool,
                       float*);
template void multiply(int64_t, int64_t, const bf16*, const bf16*, int64_t, int64_t, int64_t, const float*, bool,
                       bf16*);

}  // namespace lightcone::kernels::gemm::tiled
#endif
