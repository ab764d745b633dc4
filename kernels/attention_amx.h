#pragma once
#include "kernels/amx.h"
#include "kernels/attention_products.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#define LIGHTCONE_ATTENTION_AMX
// The products of attention in bf16 tiles. Each instruction multiplies
//
//     c[i][l] += sum over r, h of a[i][2r + h] b[r][2l + h]        16 rows i, 16 lanes l, up to 16 pairs r
//
// so b holds pairs: two features (or queries, or keys) of each lane side by side. As in attention_tile.h lanes are
// queries and p, s are [key][query].
namespace lightcone::kernels::cpu {

struct AmxProducts {
  using S = float;
  static constexpr int B = 16, G = 1;
  static constexpr int64_t tile_size = 16 * 16;

  /// Tiles 0 to 2 are sums c; 3, 4 (a) and 6 (b) multiply over 16 features or queries, 5 (a) and 7 (b) over 32 keys.
  struct Scope {
    AmxTiles tiles{{{{16, 64}, {16, 64}, {16, 64}, {16, 32}, {16, 32}, {16, 64}, {8, 64}, {16, 64}}}};
  };

  /// Two rows of 16 numbers, one after the other.
  static __m512i rows(const float* x) {
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_load_ps(x + 16), _mm512_load_ps(x));
  }
  /// The same, side by side: x[0], x[16], x[1], x[17], …
  static __m512i pairs(const float* x) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, rows(x));
  }
  static bf16* as_bf16(float* x) { return reinterpret_cast<bf16*>(x); }

  struct Keys {
    int64_t blocks, rows_of_jet;
    float* storage;  ///< bf16: [blocks][rows][16] for dot (a), then [blocks][rows / 32][16][32] for weigh (a)
    bf16* for_dot() const { return as_bf16(storage); }
    bf16* for_weigh() const { return as_bf16(storage) + blocks * rows_of_jet * B; }

    /// `panel` is scratch for 16 rows.
    template <class F>
    void pack(const F& features, int64_t first, int64_t n, int64_t head, int64_t rows_here, For use, float* panel) {
      rows_of_jet = rows_here;
      for (int64_t j = 0; j < rows_here; j += 16) {
        features.load_tile(first + std::min(j, n), std::clamp<int64_t>(n - j, 0, 16), head, 16, panel);
        for (int64_t block = 0; block < blocks; ++block) {
          float* x = panel + block * tile_size;
          if (use != For::weigh) {
            bf16* out = for_dot() + (block * rows_here + j) * B;
            for (int r = 0; r < 16; r += 2) _mm512_store_si512(out + r * 16, rows(x + r * 16));
          }
          if (use != For::dot) {
            tile::to_columns<16>(1, x, x);
            bf16* out = for_weigh() + (block * rows_here + j / 32 * 32) * B + j % 32;
            for (int d = 0; d < 16; d += 2) {
              const __m512i two = rows(x + d * 16);
              _mm256_store_si256(reinterpret_cast<__m256i*>(out + d * 32), _mm512_maskz_extracti64x4_epi64(-1, two, 0));
              _mm256_store_si256(reinterpret_cast<__m256i*>(out + (d + 1) * 32),
                                 _mm512_maskz_extracti64x4_epi64(-1, two, 1));
            }
          }
        }
      }
    }
  };

  struct Queries {
    int64_t blocks;
    float*
        storage;  ///< bf16, by block: [8 pairs of features][16 queries] for dot (b), [8 pairs of queries][16 features] for spread (b)
    Queries(Arena<float>& arena, int64_t blocks) : blocks(blocks), storage(arena.take(blocks * tile_size)) {}
    bf16* for_dot(int64_t block) const { return as_bf16(storage) + 2 * block * tile_size; }
    bf16* for_spread(int64_t block) const { return for_dot(block) + tile_size; }

    void pack(const float* panel, For use) {
      for (int64_t block = 0; block < blocks; ++block) {
        const float* x = panel + block * tile_size;
        // A pair of features moves as one 32-bit number.
        alignas(64) float rows_in_pairs[tile_size / 2];
        for (int r = 0; r < 8; ++r) _mm512_store_si512(rows_in_pairs + r * 16, rows(x + r * 32));
        tile::to_columns<8>(1, rows_in_pairs, reinterpret_cast<float*>(for_dot(block)));
        if (use != For::dot)
          for (int r = 0; r < 8; ++r) _mm512_store_si512(for_spread(block) + r * 32, pairs(x + r * 32));
      }
    }
  };

  template <class F>
  [[gnu::always_inline]] static void dot(int64_t n, int64_t j, const Queries& q, const Keys& k, F&& finish) {
    alignas(64) float s[tile::key_block * 16];
    finish_writes();
    for (int64_t i = 0; i < n; i += 32) {
      const bool two = i + 16 < n;
      _tile_zero(0);
      _tile_zero(1);
      for (int64_t block = 0; block < k.blocks; ++block) {
        const bf16* a = k.for_dot() + (block * k.rows_of_jet + j + i) * B;
        _tile_loadd(6, q.for_dot(block), 64);
        _tile_loadd(3, a, 32);
        _tile_dpbf16ps(0, 3, 6);
        if (!two) continue;
        _tile_loadd(4, a + tile_size, 32);
        _tile_dpbf16ps(1, 4, 6);
      }
      _tile_stored(0, s + i * 16, 64);
      if (two) _tile_stored(1, s + (i + 16) * 16, 64);
    }
    for (int64_t i = 0; i < n; ++i) finish(i, vectors(s)[i]);
  }

  static void weigh(int64_t n, int64_t j, float* p, const Keys& k, float* y) {
    alignas(64) bf16 b[tile::key_block * 16];
    fill(n, 32, p);
    for (int64_t i = 0; i < (n + 31) / 32 * 32; i += 2) _mm512_store_si512(b + i * 16, pairs(p + i * 16));
    finish_writes();
    for (int64_t block = 0; block < k.blocks; ++block) {
      _tile_loadd(2, y + block * tile_size, 64);
      for (int64_t i = 0; i < n; i += 32) {
        _tile_loadd(5, k.for_weigh() + (block * k.rows_of_jet + j + i) * B, 64);
        _tile_loadd(7, b + i * 16, 64);
        _tile_dpbf16ps(2, 5, 7);
      }
      _tile_stored(2, y + block * tile_size, 64);
    }
  }

  static void spread(int64_t n, int64_t j, float* p, const Queries& q, int64_t rows_of_jet, float* c) {
    alignas(64) bf16 a[tile::key_block * 16];
    fill(n, 16, p);
    for (int64_t i = 0; i < (n + 15) / 16 * 16; i += 2) _mm512_store_si512(a + i * 16, rows(p + i * 16));
    finish_writes();
    for (int64_t block = 0; block < q.blocks; ++block) {
      _tile_loadd(6, q.for_spread(block), 64);
      for (int64_t i = 0; i < n; i += 32) {
        float* sum = c + (block * rows_of_jet + j + i) * B;
        _tile_loadd(0, sum, 64);
        _tile_loadd(3, a + i * 16, 32);
        _tile_dpbf16ps(0, 3, 6);
        _tile_stored(0, sum, 64);
        if (i + 16 >= n) continue;
        _tile_loadd(1, sum + tile_size, 64);
        _tile_loadd(4, a + (i + 16) * 16, 32);
        _tile_dpbf16ps(1, 4, 6);
        _tile_stored(1, sum + tile_size, 64);
      }
    }
  }

 private:
  /// Zeros from row n of p on, up to a whole tile.
  static void fill(int64_t n, int64_t tile, float* p) {
    for (int64_t i = n; i % tile; ++i) vectors(p)[i] = Vector<float>{};
  }
};

}  // namespace lightcone::kernels::cpu
#endif
