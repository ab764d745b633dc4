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

// The parts of 16 elements.
template <class P>
struct Parts {
  __m256i part[parts<P>];
};

__m512 widen(__m256i x) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16); }

// Up to 16 elements, zeros behind them.
template <class P>
Parts<P> load16(const float* x, int64_t n) {
  Parts<P> out;
  __m512 rest = _mm512_maskz_loadu_ps(first(n), x);
  for (__m256i& part : out.part) {
    part = (__m256i)_mm512_cvtneps_pbh(rest);
    if (parts < P >> 1) rest = _mm512_sub_ps(rest, widen(part));
  }
  return out;
}
template <class P>
Parts<P> load16(const bf16* x, int64_t n) {
  return {_mm256_maskz_loadu_epi16(first(n), x)};
}

__m512 load16_ps(const float* x, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, x); }
__m512 load16_ps(const bf16* x, __mmask16 mask) { return widen(_mm256_maskz_loadu_epi16(mask, x)); }
void store16(__m512 v, float* x, __mmask16 mask) { _mm512_mask_storeu_ps(x, mask, v); }
void store16(__m512 v, bf16* x, __mmask16 mask) { _mm256_mask_storeu_epi16(x, mask, (__m256i)_mm512_cvtneps_pbh(v)); }

// Columns of two rows side by side in words: pairs of consecutive k.
__m512i pair(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}
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

// Sums in tiles 0 to 3: of two tiles of the left factor and two of the right one, in tiles 4 to 7.
void load_left(const bf16* upper, const bf16* lower) {
  _tile_loadd(4, upper, 64);
  _tile_loadd(5, lower, 64);
}
void load_right(const bf16* b) {
  _tile_loadd(6, b, 64);
  _tile_loadd(7, b + tile_elements, 64);
}
void add_products() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
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
  constexpr AmxTiles::Shape whole{16, 64};
  const AmxTiles tiles({whole, whole, whole, whole, whole, whole, whole, whole});
  constexpr int64_t parts = tiled::parts<P>;
  const int64_t depth = blocks(k, 32), step = depth * parts * tile_elements;
  // Rows of c that come next, for fetch() below.
  const int64_t pace = blocks(32, std::max<int64_t>(1, depth * (parts == 1 ? 1 : 6)));
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
      for (int64_t p = 0; p < depth; ++p) {
        if constexpr (parts == 1) {
          load_left(upper, lower);
          load_right(b);
          add_products(), fetch();
        } else {
          // Parts (left, right), each loaded as seldom as eight registers allow: 11 10 20 00 01 02.
          auto left_part = [&](int s) { load_left(upper + s * tile_elements, lower + s * tile_elements); };
          auto right_part = [&](int s) { load_right(b + s * 2 * tile_elements); };
          left_part(1), right_part(1), add_products(), fetch();
          right_part(0), add_products(), fetch();
          left_part(2), add_products(), fetch();
          left_part(0), add_products(), fetch();
          right_part(1), add_products(), fetch();
          right_part(2), add_products(), fetch();
        }
        upper += parts * tile_elements, lower += parts * tile_elements, b += 2 * parts * tile_elements;
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
