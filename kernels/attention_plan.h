#pragma once
#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "engine/threads.h"
#include "kernels/attention.h"
#include "kernels/frames_math.h"
#include "kernels/vector.h"

// How attention on the CPU is cut into work, and how the heads' features get from tensors into panels and back.
namespace lightcone::kernels::cpu {

/// Multiply-adds of a chunk of work items: some 10 us, so that one jet is shared, too.
inline int64_t chunk_work(Products products) { return int64_t{1} << (products == Products::bf16 ? 20 : 18); }

/// Some queries of one head of one jet against all keys of the jet. Where several items share a head of keys (several
/// query heads, or a long jet cut into pieces), each sums dk and dv for itself, from row `partial` on; else that is -1.
struct Item {
  int64_t jet, head, first, last, partial;
};

/// All work, cut by the jets alone; chunks of items are what threads take.
struct Plan {
  const int32_t *q_ptr, *k_ptr;
  int64_t jets, heads, group;  ///< group: query heads per head of keys
  std::vector<Item> items;
  std::vector<int64_t> chunks{0};         ///< first items; the last entry is the number of items
  int64_t longest = 0, partial_rows = 0;  ///< key_rows of the longest jet; of all items that sum for themselves

  int64_t queries(int64_t b) const { return q_ptr[b + 1] - q_ptr[b]; }
  int64_t keys(int64_t b) const { return k_ptr[b + 1] - k_ptr[b]; }
  /// Rows of a panel of the keys: a multiple of any product's tiles.
  int64_t key_rows(int64_t b) const { return (keys(b) + 31) / 32 * 32; }
  /// Queries of one item: at most 8 items, a multiple of any number of lanes.
  int64_t piece(int64_t b) const { return std::max<int64_t>(512, (queries(b) + 127) / 128 * 16); }
  int64_t pieces(int64_t b) const { return std::max<int64_t>(1, (queries(b) + piece(b) - 1) / piece(b)); }
  bool shared(int64_t b) const { return group > 1 || pieces(b) > 1; }

  Plan(const Tensor& q, const Tensor& k, int64_t heads, int64_t group, int64_t size, int64_t chunk_work)
      : q_ptr(q.data<int32_t>()), k_ptr(k.data<int32_t>()), jets(q.dim(0) - 1), heads(heads), group(group) {
    items.reserve(jets * heads);
    int64_t work = 0;
    for (int64_t b = 0; b < jets; ++b) {
      longest = std::max(longest, key_rows(b));
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < pieces(b); ++i) {
          const int64_t first = q_ptr[b] + i * piece(b), last = std::min<int64_t>(first + piece(b), q_ptr[b + 1]);
          items.push_back({b, h, first, last, shared(b) ? partial_rows : -1});
          if (shared(b)) partial_rows += key_rows(b);
          work += (last - first + 16) * (keys(b) + 16) * size;
          if (work < chunk_work) continue;
          chunks.push_back(items.size());
          work = 0;
        }
    }
    if (chunks.back() != static_cast<int64_t>(items.size())) chunks.push_back(items.size());
  }
  /// f(items of a chunk)
  template <class F>
  void for_each_chunk(Context& ctx, F&& f) const {
    parallel_chunks(ctx, chunks.size() - 1, 1, [&](int64_t c, int64_t, int64_t) {
      f(std::span(items).subspan(chunks[c], chunks[c + 1] - chunks[c]));
    });
  }
};

/// One head's features in all segments, one after the other: where they are gathered from and scattered to. In memory
/// of our own they are panels [blocks][rows][B], zeros behind the last feature.
template <class E, int B>
class Features {
 public:
  using S = sum_type<E>;
  /// The views that `view` names in each segment (or gradient); with the signs of `metric`, if given, and with what
  /// `frames` does to them between memory and panel.
  template <class Segment>
  Features(std::span<const Segment> segments, HeadView Segment::*view, std::span<const AttentionSegment> metric = {},
           std::optional<frames_math::PanelTransform<S, B>> frames = {})
      : frames_(frames) {
    for (size_t i = 0; i < segments.size(); ++i) {
      const HeadView& v = segments[i].*view;
      Tensor tensor = v.tensor;
      views_[count_++] = {tensor.data<E>() + v.offset,
                          v.row_stride,
                          v.head_stride,
                          v.part_stride,
                          v.parts,
                          v.channels,
                          metric.empty() ? 0 : metric[i].negative_parts};
      size_ += v.size();
    }
  }
  int64_t blocks() const { return (size_ + B - 1) / B; }
  int64_t padded() const { return blocks() * B; }

  /// Rows t … t + n - 1 to a panel of `rows`.
  void load(int64_t t, int64_t n, int64_t head, int64_t rows, S* panel) const {
    if (size_ % B)
      for (int64_t i = 0; i < n; ++i) std::fill_n(panel + ((blocks() - 1) * rows + i) * B, B, S(0));
    for_each_part(t, head, [&](const E* x, int64_t stride, int64_t feature, int64_t channels, S sign) {
      // The next head's turn comes soon; its cache lines are a row apart, which no hardware foresees.
      for (int64_t i = 0; i < n; ++i) __builtin_prefetch(x + i * stride + channels);
      move(feature, channels, rows, panel, [&](S* out, int64_t c, auto width) {
        for (int64_t i = 0; i < n; ++i)
          map_row(width, out + i * B, [&](auto at) { return sign * at(x + i * stride + c); });
      });
    });
    if (frames_) (*frames_)(t, n, rows, panel);
  }
  /// The same to a panel of `rows`, the rest of them zeros.
  void load_tile(int64_t t, int64_t n, int64_t head, int64_t rows, S* panel) const {
    load(t, n, head, rows, panel);
    for (int64_t block = 0; n < rows && block < blocks(); ++block)
      std::fill_n(panel + (block * rows + n) * B, (rows - n) * B, S(0));
  }
  /// Rows of a panel, times scale, to rows t … t + n - 1. Frames change the panel.
  void store(int64_t t, int64_t n, int64_t head, S scale, int64_t rows, S* panel) const {
    if (frames_) (*frames_)(t, n, rows, panel);
    for_each_part(t, head, [&](E* x, int64_t stride, int64_t feature, int64_t channels, S sign) {
      const S factor = sign * scale;
      move(feature, channels, rows, panel, [&](const S* in, int64_t c, auto width) {
        for (int64_t i = 0; i < n; ++i)
          map_row(width, x + i * stride + c, [&](auto at) { return factor * at(in + i * B); });
      });
    });
  }

 private:
  struct View {
    E* data;
    int64_t row, head, part, parts, channels;
    uint32_t negative;
  };
  /// f(first row's channels, stride of the rows, first feature, channels, sign)
  template <class F>
  void for_each_part(int64_t t, int64_t head, F&& f) const {
    int64_t feature = 0;
    for (int i = 0; i < count_; ++i) {
      const View& v = views_[i];
      for (int64_t p = 0; p < v.parts; ++p, feature += v.channels)
        f(v.data + t * v.row + head * v.head + p * v.part, v.row, feature, v.channels,
          v.negative >> p & 1 ? S(-1) : S(1));
    }
  }
  /// f(place in the panel's first row, first channel, width) for runs of channels that stay within a block; whole
  /// blocks, halves and quarters get their width as a constant.
  template <class P, class F>
  static void move(int64_t feature, int64_t channels, int64_t rows, P* panel, F&& f) {
    for (int64_t c = 0; c < channels;) {
      const int64_t at = feature + c, width = std::min(channels - c, B - at % B);
      P* place = panel + at / B * rows * B + at % B;
      auto run = [&](auto width) {
        f(place, c, width);
        c += width;
      };
      if (width == B)
        run(std::integral_constant<int64_t, B>());
      else if (width >= B / 2)
        run(std::integral_constant<int64_t, B / 2>());
      else if (width >= B / 4)
        run(std::integral_constant<int64_t, B / 4>());
      else
        run(width);
    }
  }
  std::optional<frames_math::PanelTransform<S, B>> frames_;
  View views_[4];
  int count_ = 0;
  int64_t size_ = 0;
};

/// One allocation, handed out in pieces that are aligned like vectors.
template <class S>
class Arena {
 public:
  /// `most` elements in at most `pieces`.
  Arena(Context& ctx, int64_t most, int64_t pieces) : scratch_(ctx, most + pieces * 16), next_(scratch_.data()) {}
  S* take(int64_t n) { return std::exchange(next_, next_ + (n + 15) / 16 * 16); }

 private:
  Context::Scratch<S> scratch_;
  S* next_;
};

}  // namespace lightcone::kernels::cpu
