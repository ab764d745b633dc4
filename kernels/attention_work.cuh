#pragma once
#include <algorithm>
#include <vector>

#include "kernels/attention_views.cuh"

// How attention on a GPU is cut into blocks, and what every kernel of it is given.
namespace lightcone::kernels::cuda {

inline constexpr int attention_warps = 4, attention_threads = 32 * attention_warps;
/// Rows that a block owns at once, a warp 16 of them.
inline constexpr int pass_rows = attention_warps * 16;

/// Neighbouring rows of a jet that a block owns, and all rows of the jet on the other side.
struct AttentionItem {
  int own_first, own_rows, other_first, other_rows;
};

/// Items for a block each and head: the longest first, so that no long one starts when all others end. What a row gets
/// does not depend on how rows are cut.
inline std::vector<AttentionItem> attention_items(std::span<const int32_t> own, std::span<const int32_t> other,
                                                  int64_t blocks_per_item) {
  std::vector<AttentionItem> items;
  // As many rows as keep the GPU filled: a block reads the other side once.
  for (int rows = 4 * pass_rows;; rows /= 2) {
    items.clear();
    for (size_t b = 0; b + 1 < own.size(); ++b)
      for (int32_t first = own[b]; first < own[b + 1]; first += rows)
        items.push_back({first, std::min(rows, own[b + 1] - first), other[b], other[b + 1] - other[b]});
    if (rows == pass_rows || static_cast<int64_t>(items.size()) * blocks_per_item >= 512) break;
  }
  std::stable_sort(items.begin(), items.end(), [](const AttentionItem& a, const AttentionItem& b) {
    return int64_t{a.own_rows} * a.other_rows > int64_t{b.own_rows} * b.other_rows;
  });
  return items;
}

/// Dropout of probabilities: factors 0 and 1 / (1 - probability).
template <class S>
struct DeviceDropout {
  Numbers numbers;
  double probability;
  uint32_t dropped;  ///< the largest of the words that are dropped: word 2^-32 >= probability in whole numbers
  S kept;
  bool on;

  __device__ S factor(int64_t i) const {
    if (numbers.recorded) return numbers.recorded[i] >= probability ? kept : S(0);
    const auto words = philox(numbers.key, numbers.position, static_cast<uint64_t>(i) >> 2);
    const uint32_t low = i & 1 ? words[1] : words[0], high = i & 1 ? words[3] : words[2];
    return (i & 2 ? high : low) > dropped ? kept : S(0);
  }
};

/// 2^x for x <= 0; what is no normal number is 0.
__device__ inline double power_of_two(double x) { return exp2(x); }
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The item, head and share of the features of a block.
struct AttentionWork {
  AttentionItem item;
  int head, chunk;
  __device__ AttentionWork(const AttentionItem* items, int heads, int chunks) {
    const int of_item = blockIdx.x / chunks;
    chunk = blockIdx.x % chunks;
    head = of_item % heads;
    item = items[of_item / heads];
  }
};

/// Tiles that are worked on or on their way; chunks of features come one after the other.
template <bool chunked>
inline constexpr int attention_stages = chunked ? 1 : 2;

/// A block's shared memory: what each warp has for itself, and a few stages of two tiles each.
template <class P, int own_tiles, int stages>
struct AttentionMemory {
  using S = typename P::S;
  using Element = typename P::Element;
  static constexpr size_t own = sizeof(Element) * 16 * P::stride, result = sizeof(S) * 16 * P::D,
                          of_warp = std::max(own_tiles * own, result) + sizeof(S) * P::scratch,
                          tile = sizeof(Element) * P::tile * P::stride, sums = sizeof(S) * P::tile,
                          bytes = attention_warps * of_warp + stages * 2 * (tile + sums);
  static_assert(bytes <= 99 << 10, "GPUs of compute capability 8.6 and 8.9 have no more for a block");
  unsigned char* start;

  __device__ unsigned char* warp() const { return start + threadIdx.x / 32 * of_warp; }
  __device__ Element* own_rows(int which) const { return reinterpret_cast<Element*>(warp() + which * own); }
  /// Results on their way to memory; they take the place of the own rows.
  __device__ S* results() const { return reinterpret_cast<S*>(warp()); }
  /// Of a row of results; words of 16 bytes are permuted, so that what a warp writes by tiles of eight features and
  /// reads by rows, one or two words a thread, lies in different banks.
  static __device__ int result_place(int row, int feature) {
    constexpr int N = pack_size<S>, words = P::D / N;
    const int word = feature / N, turn = words == 4 ? row / 2 % 2 * 3 : (row % 4 * 2) ^ (row % 2) ^ (word / 8 % 2);
    return row * P::D + (word ^ turn) * N + feature % N;
  }
  __device__ S* scratch() const { return reinterpret_cast<S*>(warp() + of_warp - sizeof(S) * P::scratch); }
  __device__ unsigned char* tiles() const { return start + attention_warps * of_warp; }
  __device__ Element* rows(int stage, int which) const {
    return reinterpret_cast<Element*>(tiles() + (stage * 2 + which) * tile);
  }
  /// A number for each row of a tile.
  __device__ S* numbers(int stage, int which) const {
    return reinterpret_cast<S*>(tiles() + stages * 2 * tile + (stage * 2 + which) * sums);
  }
};

/// 16 rows of sums to memory, by the warp that has them.
template <class P, class Memory, class E>
__device__ void store_results(const Memory& memory, const typename P::S (&y)[P::rows][P::features],
                              const DeviceFeatures<E>& to, int head, int first_feature, int64_t first, int n,
                              typename P::S factor) {
  using S = typename P::S;
  __syncwarp();  // all have read what was there
  S* results = memory.results();
#pragma unroll
  for (int i = 0; i < P::rows; ++i)
#pragma unroll
    for (int m = 0; m < P::features; m += P::W) {
      Pack<S, P::W> pack;
#pragma unroll
      for (int w = 0; w < P::W; ++w) pack.at[w] = y[i][m + w];
      store_word(results + Memory::result_place(P::row(i), P::feature(m)), pack);
    }
  __syncwarp();
  store_rows<S, 32>(to, head, first_feature, P::D, first, n, threadIdx.x % 32, factor,
                    [&]<int V>(int row, int column, Pack<S, V>& pack) {
                      constexpr int N = std::min(V, pack_size<S>);
#pragma unroll
                      for (int k = 0; k < V; k += N) {
                        const auto word = load_word<N>(results + Memory::result_place(row, column + k));
#pragma unroll
                        for (int i = 0; i < N; ++i) pack.at[k + i] = word.at[i];
                      }
                    });
  __syncwarp();
}

}  // namespace lightcone::kernels::cuda
