#pragma once
#include <span>

#include "kernels/attention.h"
#include "kernels/attention_products.cuh"
#include "kernels/frames_form.h"

// One head's features in all segments, one after the other, as CUDA kernels gather them from tensors and scatter them to
// tensors. A team of threads moves rows: each thread has the same features in all rows that it moves, so that where they
// are is found once.
namespace lightcone::kernels::cuda {

/// Up to 16 bytes of neighbouring features travel together.
enum class Width : uint8_t { one, half, whole };

/// Local frames that act while features move: those of scalars and four-vectors, one after the other, from a multiple of
/// four on (`vectors_from`).
struct MovingFrames {
  const float* matrices = nullptr;
  frames_math::Form form = {};
  int vectors_from = 0;
};

template <class E>
struct DeviceFeatures {
  struct View {
    E* data;
    int64_t row, head, part;
    int parts, channels;
    uint32_t negative;
  };
  View views[4];
  int count = 0, size = 0;
  Width width = Width::whole;
  bool plain = true;  ///< nothing changes while features move
  MovingFrames frames;

  template <class Segment>
  DeviceFeatures(std::span<const Segment> segments, HeadView Segment::*view,
                 std::span<const AttentionSegment> metric = {}, MovingFrames frames = {})
      : frames(frames) {
    constexpr int64_t bytes = sizeof(E);
    int64_t fits = 16;  // what divides all distances
    for (size_t i = 0; i < 4; ++i) {
      views[i] = {};
      if (i >= segments.size()) continue;
      const HeadView& v = segments[i].*view;
      Tensor tensor = v.tensor;
      views[i] = {tensor.data<E>() + v.offset,
                  v.row_stride,
                  v.head_stride,
                  v.part_stride,
                  static_cast<int>(v.parts),
                  static_cast<int>(v.channels),
                  metric.empty() ? 0 : metric[i].negative_parts};
      size += static_cast<int>(v.size());
      ++count;
      plain = plain && !views[i].negative && !frames.matrices;
      for (int64_t distance :
           {static_cast<int64_t>(reinterpret_cast<uintptr_t>(views[i].data)), v.channels * bytes, v.row_stride * bytes,
            v.heads > 1 ? v.head_stride * bytes : 0, v.parts > 1 ? v.part_stride * bytes : 0})
        while (distance % fits) fits /= 2;
    }
    width = fits >= 16 ? Width::whole : fits >= 8 && bytes == 2 ? Width::half : Width::one;
  }

  /// Where a feature of a head is in row 0.
  struct Place {
    E* at = nullptr;  ///< null: there is none
    int64_t row = 0;
    bool negative = false;
  };
  __device__ Place place(int feature, int head) const {
    Place found;
    bool searching = feature < size;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i == count) break;
      const View& v = views[i];
      const int here = v.parts * v.channels;
      if (searching && feature < here) {
        const int part = v.parts > 1 ? feature / v.channels : 0;
        found = {v.data + head * v.head + part * v.part + (feature - part * v.channels), v.row,
                 bool(v.negative >> part & 1)};
        searching = false;
      }
      feature -= here;
    }
    return found;
  }
};

/// x becomes M x for one token's four-vector.
__device__ inline void turn(const float* frame, frames_math::Form f, float& x0, float& x1, float& x2, float& x3) {
  const float4* rows = reinterpret_cast<const float4*>(frame);
  const float4 l0 = rows[0], l1 = rows[1], l2 = rows[2], l3 = rows[3];
  if (f.right) x1 = -x1, x2 = -x2, x3 = -x3;
  float y0, y1, y2, y3;
  if (f.transposed) {
    y0 = l0.x * x0 + l1.x * x1 + l2.x * x2 + l3.x * x3;
    y1 = l0.y * x0 + l1.y * x1 + l2.y * x2 + l3.y * x3;
    y2 = l0.z * x0 + l1.z * x1 + l2.z * x2 + l3.z * x3;
    y3 = l0.w * x0 + l1.w * x1 + l2.w * x2 + l3.w * x3;
  } else {
    y0 = l0.x * x0 + l0.y * x1 + l0.z * x2 + l0.w * x3;
    y1 = l1.x * x0 + l1.y * x1 + l1.z * x2 + l1.w * x3;
    y2 = l2.x * x0 + l2.y * x1 + l2.z * x2 + l2.w * x3;
    y3 = l3.x * x0 + l3.y * x1 + l3.z * x2 + l3.w * x3;
  }
  x0 = y0;
  x1 = f.left ? -y1 : y1;
  x2 = f.left ? -y2 : y2;
  x3 = f.left ? -y3 : y3;
}
template <class S, int V>
__device__ void turn(const MovingFrames& frames, int64_t row, int feature, Pack<S, V>& x) {
  if constexpr (std::is_same_v<S, float> && V % 4 == 0)
    if (frames.matrices) {
#pragma unroll
      for (int k = 0; k < V; k += 4)
        if (feature + k >= frames.vectors_from)
          turn(frames.matrices + row * 16, frames.form, x.at[k], x.at[k + 1], x.at[k + 2], x.at[k + 3]);
    }
}

/// f(V) with the width, or `most` if that is less, as a constant.
template <class E, int most = pack_size<E>, class F>
__device__ void with_width(Width width, F&& f) {
  constexpr int whole = pack_size<E>;
  static_assert(most == whole || most == whole / 2);
  if constexpr (most == whole)
    if (width == Width::whole) return f(std::integral_constant<int, whole>());
  if constexpr (whole == 8)
    if (width != Width::one) return f(std::integral_constant<int, 4>());
  f(std::integral_constant<int, 1>());
}

/// f(row, column, place of that column in row 0) for the packs of V features [0, features) x rows of one of `team`
/// threads; with `spread`, of rows in multiples of eight, rows that come together are four apart.
template <int V, int team, bool spread = false, class E, class F>
__device__ void for_each_pack(const DeviceFeatures<E>& x, int head, int first_feature, int features, int rows,
                              int thread, F&& f) {
  const int packs = features / V, across = packs < team ? packs : team;  // powers of two
  for (int pack = thread % across; pack < packs; pack += across) {
    const auto place = x.place(first_feature + pack * V, head);
    for (int row = thread / across; row < rows; row += team / across)
      f(spread ? row / 8 * 8 + row % 2 * 4 + row % 8 / 2 : row, pack * V, place);
  }
}

/// put(row, column, pack) for rows [first, first + n) of a head and its features from first_feature on: zeros behind the
/// last one, and in the rows from n up to `rows`.
template <class P, int team, class E, class Put>
__device__ void load_rows(const DeviceFeatures<E>& x, int head, int first_feature, int features, int64_t first, int n,
                          int rows, int thread, Put&& put) {
  using S = typename P::S;
  // What a thread puts down at once is 16 bytes at most.
  with_width<E, std::min(pack_size<E>, pack_size<typename P::Element>)>(x.width, [&](auto width) {
    constexpr int V = decltype(width)::value;
    auto move = [&](int row, int column, const auto& place) {
      Pack<S, V> pack = {};
      if (place.at && row < n) {
        const Pack<E, V> in = load_word<V>(place.at + (first + row) * place.row);
#pragma unroll
        for (int k = 0; k < V; ++k) pack.at[k] = S(in.at[k]);
        turn(x.frames, first + row, first_feature + column, pack);
#pragma unroll
        for (int k = 0; k < V; ++k) pack.at[k] = place.negative ? -pack.at[k] : pack.at[k];
      }
      put(row, column, pack);
    };
    for_each_pack<V, team, P::spread>(x, head, first_feature, features, rows, thread, move);
  });
}

/// The same where the tile holds features as memory does, in words of 16 bytes that travel while threads go on:
/// at(row, column) is where a word goes. finish_copies() waits for the thread's own.
template <class P, int team, class E, class At>
__device__ void copy_rows(const DeviceFeatures<E>& x, int head, int features, int64_t first, int n, int rows,
                          int thread, At&& at) {
  constexpr int V = pack_size<E>;
  for_each_pack<V, team, P::spread>(x, head, 0, features, rows, thread, [&](int row, int column, const auto& place) {
    E* to = at(row, column);
    if (place.at && row < n)
      asm volatile(
          "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
          "l"(place.at + (first + row) * place.row)
          : "memory");
    else
      store_shared(to, Pack<E, V>{});
  });
}
__device__ inline void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// The other way: get(row, column, pack) gives neighbouring numbers, each multiplied by `factor`.
template <class S, int team, class E, class Get>
__device__ void store_rows(const DeviceFeatures<E>& x, int head, int first_feature, int features, int64_t first, int n,
                           int thread, S factor, Get&& get) {
  with_width<E>(x.width, [&](auto width) {
    constexpr int V = decltype(width)::value;
    for_each_pack<V, team>(x, head, first_feature, features, n, thread, [&](int row, int column, const auto& place) {
      if (!place.at) return;
      Pack<S, V> pack;
      get(row, column, pack);
#pragma unroll
      for (int k = 0; k < V; ++k) pack.at[k] *= place.negative ? -factor : factor;
      turn(x.frames, first + row, first_feature + column, pack);
      Pack<E, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) out.at[k] = E(pack.at[k]);
      store_word(place.at + (first + row) * place.row, out);
    });
  });
}

}  // namespace lightcone::kernels::cuda
