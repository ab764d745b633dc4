#pragma once
#include <algorithm>

#include "kernels/gemm_amx.h"

#if defined(__AMX_BF16__)
// GCC 12 warns of undefined registers inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

// Blocks of 32 x 32 of a product, for kernels that compute something from them before they go to memory.
namespace lightcone::kernels::gemm::tiled {

inline constexpr int64_t tile_elements = 16 * 32;

inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, 16)) - 1); }
inline __m512 widen(__m256i x) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16); }

/// The parts of 16 elements.
template <class P>
struct Parts {
  __m256i part[parts<P>];
};
template <class P>
Parts<P> split(__m512 rest) {
  Parts<P> out;
  for (__m256i& part : out.part) {
    part = (__m256i)_mm512_cvtneps_pbh(rest);
    if (parts < P >> 1) rest = _mm512_sub_ps(rest, widen(part));
  }
  return out;
}

/// Columns of two rows side by side in words: pairs of consecutive k.
inline __m512i pair(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

/// A left factor of which columns [32 g, 32 g + 32) of single rows come one after the other.
template <class P>
struct LeftWriter {
  bf16* tiles;
  int64_t depth;  ///< k / 32
  void put(int64_t row, int64_t g, const Parts<P>& lower, const Parts<P>& upper) const {
    bf16* to = tiles + ((row / 16 * depth + g) * parts<P> * 16 + row % 16) * 32;
    for (int s = 0; s < parts<P>; ++s, to += tile_elements) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lower.part[s]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), upper.part[s]);
    }
  }
};

/// A right factor of which rows come in pairs, first an even one, columns [32 g, 32 g + 32) of them at a time.
template <class P>
struct RightWriter {
  bf16* tiles;
  int64_t depth;  ///< rows / 32
  void put(int64_t row, int64_t g, const Parts<P> (&even)[2], const Parts<P> (&odd)[2]) const {
    bf16* to = tiles + (g * depth + row / 32) * 2 * parts<P> * tile_elements + row % 32 / 2 * 32;
    for (int s = 0; s < parts<P>; ++s)
      for (int half = 0; half < 2; ++half, to += tile_elements)
        _mm512_storeu_si512(to, pair(even[half].part[s], odd[half].part[s]));
  }
};

/// The shapes of tiles in all functions of this file.
struct WholeTiles : AmxTiles {
  static constexpr Shape whole{16, 64};
  WholeTiles() : AmxTiles({whole, whole, whole, whole, whole, whole, whole, whole}) {}
};

// Sums in tiles 0 to 3: of two tiles of the left factor and two of the right one, in tiles 4 to 7.
inline void load_left(const bf16* upper, const bf16* lower) {
  _tile_loadd(4, upper, 64);
  _tile_loadd(5, lower, 64);
}
inline void load_right(const bf16* b) {
  _tile_loadd(6, b, 64);
  _tile_loadd(7, b + tile_elements, 64);
}
inline void add_products() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}
/// Into tiles 0 to 3 a block of 32 rows, `row` elements apart; 0: the same 32 columns in every row.
inline void load_sums(const float* block, int64_t row) {
  _tile_loadd(0, block, row * 4);
  _tile_loadd(1, block + 16, row * 4);
  _tile_loadd(2, block + 16 * row, row * 4);
  _tile_loadd(3, block + 16 * row + 16, row * 4);
}
inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
inline void store_sums(float* block, int64_t row) {
  _tile_stored(0, block, row * 4);
  _tile_stored(1, block + 16, row * 4);
  _tile_stored(2, block + 16 * row, row * 4);
  _tile_stored(3, block + 16 * row + 16, row * 4);
}

/// Adds to tiles 0 to 3 the product of rows [32 i, 32 i + 32) of `left` and columns [32 j, 32 j + 32) of `right`, of
/// `depth` tiles each. meanwhile() is called after every four products: what it does costs little beside them.
template <class P, class F>
[[gnu::always_inline]] inline void add_block(const bf16* left, const bf16* right, int64_t depth, int64_t i, int64_t j,
                                             F&& meanwhile) {
  constexpr int64_t parts = tiled::parts<P>;
  const bf16 *upper = left + 2 * i * depth * parts * tile_elements, *lower = upper + depth * parts * tile_elements,
             *b = right + 2 * j * depth * parts * tile_elements;
  for (int64_t p = 0; p < depth; ++p) {
    if constexpr (parts == 1) {
      load_left(upper, lower);
      load_right(b);
      add_products(), meanwhile();
    } else {
      // Parts (left, right), each loaded as seldom as eight registers allow: 11 10 20 00 01 02.
      auto left_part = [&](int s) { load_left(upper + s * tile_elements, lower + s * tile_elements); };
      auto right_part = [&](int s) { load_right(b + s * 2 * tile_elements); };
      left_part(1), right_part(1), add_products(), meanwhile();
      right_part(0), add_products(), meanwhile();
      left_part(2), add_products(), meanwhile();
      left_part(0), add_products(), meanwhile();
      right_part(1), add_products(), meanwhile();
      right_part(2), add_products(), meanwhile();
    }
    upper += parts * tile_elements, lower += parts * tile_elements, b += 2 * parts * tile_elements;
  }
}

}  // namespace lightcone::kernels::gemm::tiled
#endif
