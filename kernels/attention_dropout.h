#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/attention_plan.h"
#include "kernels/attention_tile.h"

// Dropout of single probabilities: the numbers that Draw::uniform() defines, many at a time.
namespace lightcone::kernels::cpu {

/// words[i] for i < n <= tile::key_block: the random 32 bits of element first + i; draw.uniform() is their 2^-32. A
/// register of Philox counters at a time; returns the place of the first one, as counters have four words.
inline const uint32_t* draw_words(const Draw& draw, int64_t first, int64_t n, uint32_t (&words)[2 * tile::key_block]) {
  constexpr int counters = 16;
  const auto start = static_cast<uint64_t>(first) >> 2;
  for (int64_t done = 0; 4 * done < n + (first & 3); done += counters) {
    uint32_t c0[counters], c1[counters], c2[counters], c3[counters];
    for (int c = 0; c < counters; ++c) {
      c0[c] = static_cast<uint32_t>(start + done + c);
      c1[c] = static_cast<uint32_t>((start + done + c) >> 32);
      c2[c] = static_cast<uint32_t>(draw.position);
      c3[c] = static_cast<uint32_t>(draw.position >> 32);
    }
    uint32_t k0 = static_cast<uint32_t>(draw.key), k1 = static_cast<uint32_t>(draw.key >> 32);
    for (int round = 0; round < philox_rounds; ++round, k0 += philox_key_step0, k1 += philox_key_step1) {
#pragma omp simd
      for (int c = 0; c < counters; ++c) philox_round(c0[c], c1[c], c2[c], c3[c], k0, k1);
    }
    uint32_t* out = words + 4 * done;
    for (int c = 0; c < counters; ++c) {
      out[4 * c] = c0[c];
      out[4 * c + 1] = c1[c];
      out[4 * c + 2] = c2[c];
      out[4 * c + 3] = c3[c];
    }
  }
  return words + (first & 3);
}

/// Factors of a tile's probabilities under dropout: 0 or 1 / (1 - probability), [n][lanes], n <= tile::key_block.
template <class S>
void draw_factors(const AttentionDropout& dropout, const Plan& plan, const Item& item, int64_t t, int64_t j, int64_t n,
                  S* factors) {
  constexpr int64_t W = lanes<S>;
  const int64_t all_keys = plan.k_ptr[plan.jets], queries = std::min(W, item.last - t);
  const S kept = S(1 / (1 - dropout.probability));
  // word 2^-32 >= probability, in whole numbers: word > the largest one that is dropped.
  const auto dropped = static_cast<uint32_t>(std::ceil(dropout.probability * 0x1p32) - 1);
  // One query's numbers are those of consecutive elements; 16 keys at a time then turn from rows into columns.
  alignas(64) S panel[tile::key_block * W] = {};
  for (int64_t l = 0; l < queries; ++l) {
    const int64_t first = ((t + l) * plan.heads + item.head) * all_keys + plan.k_ptr[item.jet] + j;
    S row[tile::key_block] = {};
    if (dropout.draw.recorded) {
      for (int64_t i = 0; i < n; ++i) row[i] = dropout.draw.uniform(first + i) >= dropout.probability ? kept : S(0);
    } else {
      uint32_t words[2 * tile::key_block];
      const uint32_t* word = draw_words(dropout.draw, first, n, words);
      for (int64_t i = 0; i < n; ++i) row[i] = word[i] > dropped ? kept : S(0);
    }
    for (int64_t i = 0; i < tile::key_block; i += 16) std::copy_n(row + i, 16, panel + (i / 16 * W + l) * 16);
  }
  tile::to_columns<16>(tile::key_block / 16, panel, panel);
  std::copy_n(panel, n * W, factors);
}

}  // namespace lightcone::kernels::cpu
