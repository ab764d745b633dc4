#pragma once
#include "kernels/attention_products.cuh"
#include "kernels/attention_work.cuh"

namespace lightcone::kernels::cuda {

template <class E>
struct ForwardArguments {
  using S = sum_type<E>;
  const AttentionItem* items;
  int heads, group;        ///< query heads, and how many of them share a head of keys
  int q_chunks, v_chunks;  ///< pieces of the features, where they are more than a kernel holds
  int64_t all_keys;
  DeviceFeatures<E> q, k, v, y;
  S* lse;
  S log2_scale;
  DeviceDropout<S> dropout;
};

template <class S, int n>
__device__ S over_team(S x, S (*combine)(S, S)) {
#pragma unroll
  for (int apart = n / 2; apart > 0; apart /= 2) x = combine(x, __shfl_xor_sync(~0u, x, apart));
  return x;
}

// A block owns queries of one head of one jet, each warp 16 of them at a time, and of their y the features of one chunk;
// tiles of keys and values come one after the other, the next while the last one is worked on. Where all of a jet's keys
// fit, they are loaded once. With `chunked` D features at a time are loaded. Queries and keys behind the last one are
// zeros; such keys have a score of -inf.
template <class E, class P, bool chunked>
__global__ __launch_bounds__(attention_threads,
                             2) void attention_kernel(const __grid_constant__ ForwardArguments<E> a) {
  using S = typename P::S;
  constexpr int stages = 2, D = P::D;
  static_assert(!(chunked && P::Own::kept), "features that change are read when they are used");
  using Memory = AttentionMemory<P, 1, stages>;
  extern __shared__ __align__(16) unsigned char shared[];
  const Memory memory{shared};
  const AttentionWork work(a.items, a.heads, a.v_chunks);
  const AttentionItem item = work.item;
  const int head = work.head, key_head = head / a.group, lane = threadIdx.x % 32;
  const int tiles = (item.other_rows + P::tile - 1) / P::tile, passes = (item.own_rows + pass_rows - 1) / pass_rows;
  const bool resident = tiles <= stages;

  auto rows_of = [&](int tile) { return min(P::tile, item.other_rows - tile * P::tile); };
  auto load_tile = [&](const DeviceFeatures<E>& from, int chunk, int tile, int stage, int which) {
    typename P::Element* to = memory.rows(stage, which);
    const int first = item.other_first + tile * P::tile, n = rows_of(tile), rows = P::rows_read(n);
    if constexpr (!chunked && P::template copies<E>) {
      if (from.plain && from.width == Width::whole)
        return copy_rows<P, attention_threads>(from, key_head, D, first, n, rows, threadIdx.x,
                                               [&](int row, int column) { return to + P::place(row, column); });
    }
    load_rows<P, attention_threads>(from, key_head, chunk * D, D, first, n, rows, threadIdx.x,
                                    [&](int row, int column, const auto& pack) { P::put(to, row, column, pack); });
  };
  auto load_own = [&](int chunk, int first, int n) {
    __syncwarp();
    load_rows<P, 32>(a.q, head, chunk * D, D, item.own_first + first, n, 16, lane,
                     [&](int row, int column, const auto& pack) { P::put(memory.own_rows(0), row, column, pack); });
    __syncwarp();
  };
  auto load = [&](int tile, int stage) {
    load_tile(a.k, 0, tile, stage, 0);
    load_tile(a.v, 0, tile, stage, 1);
  };

  int step = 0;
  if (!chunked && tiles > 0) load(0, 0);
  for (int pass = 0; pass < passes; ++pass) {
    const int first = pass * pass_rows + threadIdx.x / 32 * 16, n = min(16, item.own_rows - first);
    load_own(0, first, n);
    const typename P::Own own(memory.own_rows(0));
    S y[P::rows][P::features] = {}, top[P::rows], sum[P::rows] = {};
#pragma unroll
    for (int i = 0; i < P::rows; ++i) top[i] = -S(INFINITY);
    for (int tile = 0; tile < tiles; ++tile, ++step) {
      const int keys = rows_of(tile), stage = chunked ? 0 : resident ? tile : step % stages;
      S s[P::rows][P::columns] = {};
      if constexpr (chunked) {
        for (int chunk = 0; chunk < a.q_chunks; ++chunk) {
          __syncthreads();  // all have left the last tile
          load_tile(a.k, chunk, tile, 0, 0);
          if (chunk == 0) load_tile(a.v, work.chunk, tile, 0, 1);
          if (a.q_chunks > 1) load_own(chunk, first, n);
          __syncthreads();
          if (n > 0) P::dot(own, memory.rows(0, 0), keys, s);
        }
      } else {
        if (pass == 0 || !resident) {
          finish_copies();
          __syncthreads();  // this tile is there, and all have left the one before
          const int next = tile + 1 < tiles ? tile + 1 : 0;
          if (next > 0 || (!resident && pass + 1 < passes)) load(next, resident ? next : (step + 1) % stages);
        }
        if (n > 0) P::dot(own, memory.rows(stage, 0), keys, s);
      }
      if (n <= 0) continue;
#pragma unroll
      for (int i = 0; i < P::rows; ++i) {
        S highest = -S(INFINITY);
#pragma unroll
        for (int m = 0; m < P::columns; ++m) {
          s[i][m] = P::column(m) < keys ? s[i][m] * a.log2_scale : -S(INFINITY);
          highest = s[i][m] > highest ? s[i][m] : highest;
        }
        highest = over_team<S, P::team>(highest, [](S x, S y) { return x > y ? x : y; });
        const S before = top[i];
        top[i] = highest > before ? highest : before;
        // -inf - -inf would be NaN while a finite score may still come.
        const S shift = top[i] == -S(INFINITY) ? S(0) : top[i], rescale = power_of_two(before - shift);
        S total = 0;
#pragma unroll
        for (int m = 0; m < P::columns; ++m) total += s[i][m] = power_of_two(s[i][m] - shift);
        sum[i] = sum[i] * rescale + total;
#pragma unroll
        for (int m = 0; m < P::features; ++m) y[i][m] *= rescale;
        if (a.dropout.on) {
          const int64_t t = item.own_first + first + P::row(i);
#pragma unroll
          for (int m = 0; m < P::columns; ++m)
            if (P::row(i) < n && P::column(m) < keys)
              s[i][m] *= a.dropout.factor((t * a.heads + head) * a.all_keys + item.other_first + tile * P::tile +
                                          P::column(m));
        }
      }
      P::weigh(s, memory.rows(stage, 1), keys, memory.scratch(), y);
    }
    if (n <= 0) continue;
#pragma unroll
    for (int i = 0; i < P::rows; ++i) {
      sum[i] = over_team<S, P::team>(sum[i], [](S x, S y) { return x + y; });
      const S factor = tiles > 0 ? 1 / sum[i] : S(0);
#pragma unroll
      for (int m = 0; m < P::features; ++m) y[i][m] *= factor;
      if (work.chunk == 0 && lane % P::team == 0 && P::row(i) < n)
        a.lse[(item.own_first + first + P::row(i)) * int64_t{a.heads} + head] =
            tiles > 0 ? S(M_LN2) * top[i] + log(sum[i]) : -S(INFINITY);
    }
    store_results<P>(memory, y, a.y, head, work.chunk * D, item.own_first + first, n, S(1));
  }
}

}  // namespace lightcone::kernels::cuda
