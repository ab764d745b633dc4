#pragma once
#include "kernels/attention_products.cuh"
#include "kernels/attention_work.cuh"

namespace lightcone::kernels::cuda {

template <class E>
struct BackwardArguments {
  using S = sum_type<E>;
  const AttentionItem* items;
  int heads, group;        ///< query heads, and how many of them share a head of keys
  int q_chunks, v_chunks;  ///< pieces of the features, where they are more than a kernel holds
  int64_t all_keys;
  DeviceFeatures<E> q, k, v, dy, dq, dk, dv;
  const S *lse, *delta;  ///< [Tq, H]
  S scale, log2_scale;
  DeviceDropout<S> dropout;
};

/// delta[t,h] = <dy, y>: a thread has a head of a row.
template <class E>
__global__ void attention_delta_kernel(const __grid_constant__ DeviceFeatures<E> dy,
                                       const __grid_constant__ DeviceFeatures<E> y, int64_t rows, int heads,
                                       sum_type<E>* delta) {
  using S = sum_type<E>;
  for (Place item(heads); item.row < rows; item.next()) {
    S sum = 0;
    with_width<E>(dy.width < y.width ? dy.width : y.width, [&](auto width) {
      constexpr int V = decltype(width)::value;
      for (int f = 0; f < y.size; f += V) {
        const auto from_dy = dy.place(f, item.col), from_y = y.place(f, item.col);
        const auto a = load_word<V>(from_dy.at + item.row * from_dy.row);
        const auto b = load_word<V>(from_y.at + item.row * from_y.row);
#pragma unroll
        for (int k = 0; k < V; ++k) sum += S(a.at[k]) * S(b.at[k]);
      }
    });
    delta[item.row * heads + item.col] = sum;
  }
}

// A block owns queries (or, with keys_own, keys) of one head of one jet, each warp 16 of them at a time, and of their
// gradients the features of one chunk: dq, or dk and dv. Tiles of the other side come one after the other, the next
// while the last one is worked on; those of all query heads that share the keys, head by head. With `chunked` D
// features at a time are loaded. Rows behind the last one are zeros, and so are p and ds of such columns.
template <class E, class P, bool chunked, bool keys_own>
__global__ __launch_bounds__(attention_threads,
                             2) void attention_backward_kernel(const __grid_constant__ BackwardArguments<E> a) {
  using S = typename P::S;
  constexpr int stages = 2, D = P::D;
  static_assert(!(chunked && P::Own::kept), "features that change are read when they are used");
  using Memory = AttentionMemory<P, 2, stages>;
  extern __shared__ __align__(16) unsigned char shared[];
  const Memory memory{shared};
  const int own_heads = keys_own ? a.heads / a.group : a.heads, other_heads = keys_own ? a.group : 1;
  const int chunks = keys_own ? max(a.q_chunks, a.v_chunks) : a.q_chunks;
  const AttentionWork work(a.items, own_heads, chunks);
  const AttentionItem item = work.item;
  const int lane = threadIdx.x % 32, tiles_of_head = (item.other_rows + P::tile - 1) / P::tile,
            tiles = tiles_of_head * other_heads, passes = (item.own_rows + pass_rows - 1) / pass_rows;
  const bool resident = tiles <= stages;
  // Scores are <own q or k, other>, their gradients <own dy or v, other>.
  const DeviceFeatures<E>&own_score = keys_own ? a.k : a.q, &own_gradient = keys_own ? a.v : a.dy,
        &other_score = keys_own ? a.q : a.k, &other_gradient = keys_own ? a.dy : a.v;
  const int query_head = keys_own ? work.head * a.group : work.head;  // the first of them

  auto head_of = [&](int tile) { return keys_own ? query_head + tile / tiles_of_head : work.head / a.group; };
  auto start_of = [&](int tile) { return tile % tiles_of_head * P::tile; };
  auto rows_of = [&](int tile) { return min(P::tile, item.other_rows - start_of(tile)); };
  auto load_tile = [&](const DeviceFeatures<E>& from, int chunk, int tile, int stage, int which) {
    typename P::Element* to = memory.rows(stage, which);
    const int first = item.other_first + start_of(tile), n = rows_of(tile), rows = P::rows_read(n);
    if constexpr (!chunked && P::template copies<E>) {
      if (from.plain && from.width == Width::whole)
        return copy_rows<P, attention_threads>(from, head_of(tile), D, first, n, rows, threadIdx.x,
                                               [&](int row, int column) { return to + P::place(row, column); });
    }
    load_rows<P, attention_threads>(from, head_of(tile), chunk * D, D, first, n, rows, threadIdx.x,
                                    [&](int row, int column, const auto& pack) { P::put(to, row, column, pack); });
  };
  auto load_own = [&](const DeviceFeatures<E>& from, int which, int chunk, int first, int n) {
    __syncwarp();
    load_rows<P, 32>(from, work.head, chunk * D, D, item.own_first + first, n, 16, lane,
                     [&](int row, int column, const auto& pack) { P::put(memory.own_rows(which), row, column, pack); });
    __syncwarp();
  };
  auto load_numbers = [&](int tile, int stage) {
    if constexpr (keys_own) {
      for (int j = threadIdx.x; j < P::tile; j += attention_threads) {
        const int64_t at = (item.other_first + start_of(tile) + int64_t{j}) * a.heads + head_of(tile);
        const bool there = j < rows_of(tile);
        memory.numbers(stage, 0)[j] = there ? S(M_LOG2E) * a.lse[at] : S(0);
        memory.numbers(stage, 1)[j] = there ? a.delta[at] : S(0);
      }
    }
  };
  auto load = [&](int tile, int stage) {
    load_tile(other_score, 0, tile, stage, 0);
    load_tile(other_gradient, 0, tile, stage, 1);
    load_numbers(tile, stage);
  };

  int step = 0;
  if (!chunked && tiles > 0) load(0, 0);
  for (int pass = 0; pass < passes; ++pass) {
    const int first = pass * pass_rows + threadIdx.x / 32 * 16, n = min(16, item.own_rows - first);
    load_own(own_score, 0, 0, first, n);
    load_own(own_gradient, 1, 0, first, n);
    const typename P::Own own(memory.own_rows(0)), own_d(memory.own_rows(1));
    S d_score[P::rows][P::features] = {}, d_value[P::rows][P::features] = {};
    S shift[P::rows] = {}, delta[P::rows] = {};
    if constexpr (!keys_own) {
#pragma unroll
      for (int i = 0; i < P::rows; ++i)
        if (P::row(i) < n) {
          const int64_t at = (item.own_first + first + int64_t{P::row(i)}) * a.heads + query_head;
          shift[i] = S(M_LOG2E) * a.lse[at];
          delta[i] = a.delta[at];
        }
    }
    for (int tile = 0; tile < tiles; ++tile, ++step) {
      const int others = rows_of(tile), stage = chunked ? 0 : resident ? tile : step % stages;
      S s[P::rows][P::columns] = {}, ds[P::rows][P::columns] = {};
      if constexpr (chunked) {
        const int most = max(a.q_chunks, a.v_chunks);
        for (int chunk = 0; chunk < most; ++chunk) {
          __syncthreads();  // all have left the last tile
          load_tile(other_score, chunk, tile, 0, 0);
          load_tile(other_gradient, chunk, tile, 0, 1);
          if (chunk == 0) load_numbers(tile, 0);
          if (most > 1) {
            load_own(own_score, 0, chunk, first, n);
            load_own(own_gradient, 1, chunk, first, n);
          }
          __syncthreads();
          if (n <= 0) continue;
          P::dot(own, memory.rows(0, 0), others, s);
          P::dot(own_d, memory.rows(0, 1), others, ds);
        }
        if (most > 1) {
          __syncthreads();
          load_tile(other_score, work.chunk, tile, 0, 0);
          load_tile(other_gradient, work.chunk, tile, 0, 1);
          __syncthreads();
        }
      } else {
        if (pass == 0 || !resident) {
          finish_copies();
          __syncthreads();  // this tile is there, and all have left the one before
          const int next = tile + 1 < tiles ? tile + 1 : 0;
          if (next > 0 || (!resident && pass + 1 < passes)) load(next, resident ? next : (step + 1) % stages);
        }
        if (n > 0) {
          P::dot(own, memory.rows(stage, 0), others, s);
          P::dot(own_d, memory.rows(stage, 1), others, ds);
        }
      }
      if (n <= 0) continue;
#pragma unroll
      for (int m = 0; m < P::columns; ++m) {
        const int column = P::column(m);
        const S column_shift = keys_own ? memory.numbers(stage, 0)[column] : S(0),
                column_delta = keys_own ? memory.numbers(stage, 1)[column] : S(0);
#pragma unroll
        for (int i = 0; i < P::rows; ++i) {
          // Not above 1 either where scores are so large that lse is rounded by more than 1.
          const S power = s[i][m] * a.log2_scale - (keys_own ? column_shift : shift[i]);
          S p = power_of_two(power > 0 ? S(0) : power), factor = 1;
          if (a.dropout.on && P::row(i) < n && column < others) {
            const int64_t own_row = item.own_first + first + P::row(i),
                          other_row = item.other_first + start_of(tile) + column, t = keys_own ? other_row : own_row,
                          j = keys_own ? own_row : other_row, head = keys_own ? head_of(tile) : query_head;
            factor = a.dropout.factor((t * a.heads + head) * a.all_keys + j);
          }
          ds[i][m] = column < others ? p * (factor * ds[i][m] - (keys_own ? column_delta : delta[i])) : S(0);
          s[i][m] = column < others ? p * factor : S(0);
        }
      }
      if constexpr (keys_own) P::weigh(s, memory.rows(stage, 1), others, memory.scratch(), d_value);
      P::weigh(ds, memory.rows(stage, 0), others, memory.scratch(), d_score);
    }
    if (n <= 0) continue;
    const int64_t to = item.own_first + first;
    store_results<P>(memory, d_score, keys_own ? a.dk : a.dq, work.head, work.chunk * D, to, n, a.scale);
    if constexpr (keys_own) store_results<P>(memory, d_value, a.dv, work.head, work.chunk * D, to, n, S(1));
  }
}

}  // namespace lightcone::kernels::cuda
