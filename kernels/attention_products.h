#pragma once
#include "kernels/attention_plan.h"
#include "kernels/attention_tile.h"

// The products of attention, of two kinds with the same interface: here plain ones in the sum's dtype, in
// attention_amx.h those of bf16 tiles.
//
//     Keys     one head's keys or values of a jet, packed once
//     Queries  a tile's queries (or dy), packed once
//     dot      scores of n keys from the j-th on:                   finish(i, <query, key j + i> of each lane)
//     weigh    columns y += sum over n keys of p key
//     spread   sums c of the keys += sum over the tile's queries of p query
namespace lightcone::kernels::cpu {

/// Which products keys, or queries, are packed for.
enum class For { dot, weigh, both };

/// x rounded to bf16 (to nearest, ties to even), still as a float.
inline Vector<float> round_to_bf16(Vector<float> x) {
  const auto bits = (Vector<uint32_t>)x;
  const auto rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  return x == x ? (Vector<float>)rounded : x;
}
inline Vector<double> round_to_bf16(Vector<double> x) { return x; }

/// With `rounded`, every operand is rounded to bf16 before it is multiplied.
template <class Sum, int block, bool rounded>
struct PlainProducts {
  using S = Sum;
  static constexpr int B = block;
  /// Lanes per feature in the sums over queries; see tile::spread().
  static constexpr int G = tile::group<B, S>;

  /// What a thread needs while it multiplies.
  struct Scope {};

  struct Keys {
    int64_t blocks, rows;
    S* panel;  ///< [blocks][rows][B]
    template <class F>
    void pack(const F& features, int64_t first, int64_t n, int64_t head, int64_t rows_of_jet, For, S*) {
      rows = rows_of_jet;
      features.load(first, n, head, rows, panel);
      if constexpr (rounded)
        for (int64_t b = 0; b < blocks; ++b) round(n * B, panel + b * rows * B, panel + b * rows * B);
    }
  };

  struct Queries {
    int64_t blocks;
    S *columns, *groups;  ///< for dot and for spread, as in attention_tile.h
    Queries(Arena<S>& arena, int64_t blocks)
        : blocks(blocks), columns(arena.take(blocks * B * lanes<S>)), groups(arena.take(blocks * B * lanes<S>)) {}
    void pack(const S* panel, For) {
      const int64_t size = blocks * B * lanes<S>;
      if constexpr (rounded)
        round(size, panel, groups);
      else
        std::copy_n(panel, size, groups);
      tile::to_columns<B>(blocks, groups, columns);
      tile::to_groups<B>(blocks, groups);
    }
  };

  template <class F>
  [[gnu::always_inline]] static void dot(int64_t n, int64_t j, const Queries& q, const Keys& k, F&& finish) {
    tile::dot<B>(n, k.blocks, k.rows, q.columns, k.panel + j * B, finish);
  }
  static void weigh(int64_t n, int64_t j, const S* p, const Keys& k, S* y) {
    alignas(64) S buffer[rounded ? tile::key_block * lanes<S> : 1];
    tile::weigh<B>(n, k.blocks, k.rows, operand(n, p, buffer), k.panel + j * B, y);
  }
  /// c [blocks][rows][B G] holds the sums of a whole jet.
  static void spread(int64_t n, int64_t j, const S* p, const Queries& q, int64_t rows, S* c) {
    alignas(64) S buffer[rounded ? tile::key_block * lanes<S> : 1];
    tile::spread<B>(n, q.blocks, rows, operand(n, p, buffer), q.groups, c + j * B * G);
  }

 private:
  static void round(int64_t n, const S* in, S* out) {
    for (int64_t i = 0; i < n; i += lanes<S>) *vectors(out + i) = round_to_bf16(*vectors(in + i));
  }
  static const S* operand(int64_t n, const S* p, S* buffer) {
    if constexpr (!rounded) return p;
    round(n * lanes<S>, p, buffer);
    return buffer;
  }
};

}  // namespace lightcone::kernels::cpu
