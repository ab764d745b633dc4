#include "kernels/attention.h"

#include <algorithm>
#include <vector>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/attention_tile.h"
#include "kernels/segment.h"

namespace lightcone::kernels {

namespace cpu {
namespace {
/// Keys of one tile: with its scores it stays in the first-level cache.
constexpr int64_t key_block = 128;
/// Multiply-adds of a chunk of work items: some 10 us.
constexpr int64_t chunk_work = 1 << 18;

/// One head's features in all segments, one after the other: where they are gathered from and scattered to.
template <class E>
class Features {
 public:
  using S = sum_type<E>;
  /// The views that `view` names in each segment (or gradient); with the signs of `metric`, if given.
  template <class Segment>
  Features(std::span<const Segment> segments, HeadView Segment::*view, std::span<const AttentionSegment> metric = {}) {
    for (size_t i = 0; i < segments.size(); ++i) {
      const HeadView& v = segments[i].*view;
      Tensor tensor = v.tensor;
      views_.push_back({tensor.data<E>() + v.offset, v.row_stride, v.head_stride, v.part_stride, v.parts, v.channels,
                        metric.empty() ? 0 : metric[i].negative_parts});
      size_ += v.size();
    }
  }
  int64_t size() const { return size_; }

  /// out[i] = features of row t + i for i < n, rows `stride` apart, zeros behind the features.
  void load(int64_t t, int64_t n, int64_t head, int64_t stride, S scale, S* out) const {
    for (int64_t i = 0; i < n; ++i, out += stride) {
      for_each_part(t + i, head, [&](const E* x, int64_t feature, int64_t channels, S sign) {
        for (int64_t c = 0; c < channels; ++c) out[feature + c] = sign * scale * S(x[c]);
      });
      std::fill(out + size_, out + stride, S(0));
    }
  }
  void store(int64_t t, int64_t n, int64_t head, int64_t stride, S scale, const S* in) const {
    for (int64_t i = 0; i < n; ++i, in += stride)
      for_each_part(t + i, head, [&](E* x, int64_t feature, int64_t channels, S sign) {
        for (int64_t c = 0; c < channels; ++c) x[c] = E(sign * scale * in[feature + c]);
      });
  }

 private:
  struct View {
    E* data;
    int64_t row, head, part, parts, channels;
    uint32_t negative;
  };
  template <class F>
  void for_each_part(int64_t t, int64_t head, F&& f) const {
    int64_t feature = 0;
    for (const View& v : views_)
      for (int64_t p = 0; p < v.parts; ++p, feature += v.channels) {
        E* x = v.data + t * v.row + head * v.head + p * v.part;
        // The next head's turn comes soon; its cache lines are a row apart, which no hardware foresees.
        for (int64_t c = 0; c < v.channels; c += 64 / sizeof(E)) __builtin_prefetch(x + v.head + c);
        f(x, feature, v.channels, v.negative >> p & 1 ? S(-1) : S(1));
      }
  }
  std::vector<View> views_;
  int64_t size_ = 0;
};

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
  std::vector<int64_t> chunks{0};  ///< first items; the last entry is the number of items
  int64_t longest = 0, partial_rows = 0;
  double pairs = 0;

  int64_t queries(int64_t b) const { return q_ptr[b + 1] - q_ptr[b]; }
  int64_t keys(int64_t b) const { return k_ptr[b + 1] - k_ptr[b]; }
  /// Queries of one item: at most 8 items, a multiple of any number of lanes.
  int64_t piece(int64_t b) const { return std::max<int64_t>(512, (queries(b) + 127) / 128 * 16); }
  int64_t pieces(int64_t b) const { return std::max<int64_t>(1, (queries(b) + piece(b) - 1) / piece(b)); }
  bool shared(int64_t b) const { return group > 1 || pieces(b) > 1; }

  Plan(const Tensor& q, const Tensor& k, int64_t heads, int64_t group, int64_t size)
      : q_ptr(q.data<int32_t>()), k_ptr(k.data<int32_t>()), jets(q.dim(0) - 1), heads(heads), group(group) {
    int64_t work = 0;
    for (int64_t b = 0; b < jets; ++b) {
      longest = std::max(longest, keys(b));
      pairs += double(queries(b)) * keys(b) * heads;
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < pieces(b); ++i) {
          const int64_t first = q_ptr[b] + i * piece(b), last = std::min<int64_t>(first + piece(b), q_ptr[b + 1]);
          items.push_back({b, h, first, last, shared(b) ? partial_rows : -1});
          if (shared(b)) partial_rows += keys(b);
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

/// Factors of a tile's probabilities under dropout: 0 or 1 / (1 - probability), [n][lanes].
template <class S>
void draw_factors(const AttentionDropout& dropout, const Plan& plan, const Item& item, int64_t t, int64_t j, int64_t n,
                  S* factors) {
  const int64_t all_keys = plan.k_ptr[plan.jets], queries = std::min(tile::lanes<S>, item.last - t);
  const S kept = S(1 / (1 - dropout.probability));
  std::fill_n(factors, n * tile::lanes<S>, S(0));
  for (int64_t l = 0; l < queries; ++l) {
    const int64_t base = ((t + l) * plan.heads + item.head) * all_keys + plan.k_ptr[item.jet] + j;
    for (int64_t i = 0; i < n; ++i)
      factors[i * tile::lanes<S> + l] = dropout.draw.uniform(base + i) >= dropout.probability ? kept : S(0);
  }
}

template <class E, class S = sum_type<E>>
void attention(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments, S scale,
               const AttentionDropout& dropout, S* lse) {
  using namespace tile;
  constexpr int64_t W = lanes<S>;
  const Features<E> q(segments, &AttentionSegment::q), k(segments, &AttentionSegment::k, segments),
      v(segments, &AttentionSegment::v), y(segments, &AttentionSegment::y);
  const int64_t D = q.size(), Dv = v.size();
  plan.for_each_chunk(ctx, [&](std::span<const Item> items) {
    auto keys = ctx.scratch<S>(plan.longest * D), values = ctx.scratch<S>(plan.longest * Dv);
    auto rows = ctx.scratch<S>(W * std::max(D, Dv)), qt = ctx.scratch<S>(D * W), yt = ctx.scratch<S>(Dv * W);
    alignas(64) S s[key_block * W], factors[key_block * W];
    const Item* loaded = nullptr;
    for (const Item& item : items) {
      const int64_t all_keys = plan.keys(item.jet), kv_head = item.head / plan.group;
      if (!loaded || loaded->jet != item.jet || loaded->head / plan.group != kv_head) {
        k.load(plan.k_ptr[item.jet], all_keys, kv_head, D, 1, keys.data());
        v.load(plan.k_ptr[item.jet], all_keys, kv_head, Dv, 1, values.data());
        loaded = &item;
      }
      for (int64_t t = item.first; t < item.last; t += W) {
        const int64_t queries = std::min(W, item.last - t);
        q.load(t, queries, item.head, D, scale, rows.data());
        to_lanes(queries, D, D, rows.data(), qt.data());
        std::fill_n(yt.data(), Dv * W, S(0));
        RunningSoftmax<S> softmax;
        for (int64_t j = 0; j < all_keys; j += key_block) {
          const int64_t n = std::min(key_block, all_keys - j);
          dot(n, D, qt.data(), &keys[j * D], s);
          softmax.add(n, s, Dv, yt.data());
          if (dropout.probability > 0) {
            draw_factors(dropout, plan, item, t, j, n, factors);
            for (int64_t i = 0; i < n; ++i) vectors(s)[i] *= vectors(factors)[i];
          }
          weigh(n, Dv, s, &values[j * Dv], yt.data());
        }
        softmax.finish(Dv, yt.data());
        to_rows(queries, Dv, Dv, yt.data(), rows.data());
        y.store(t, queries, item.head, Dv, 1, rows.data());
        for (int64_t l = 0; l < queries; ++l) lse[(t + l) * plan.heads + item.head] = softmax.lse(l);
      }
    }
  });
}

template <class E, class S = sum_type<E>>
void attention_backward(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, S scale, const AttentionDropout& dropout,
                        const S* lse) {
  using namespace tile;
  constexpr int64_t W = lanes<S>;
  const Features<E> q(segments, &AttentionSegment::q), k(segments, &AttentionSegment::k, segments),
      v(segments, &AttentionSegment::v), y(segments, &AttentionSegment::y);
  const Features<E> dy(gradients, &AttentionGradient::dy), dq(gradients, &AttentionGradient::dq),
      dk(gradients, &AttentionGradient::dk, segments), dv(gradients, &AttentionGradient::dv);
  const int64_t D = q.size(), Dv = v.size(), P = padded<S>(D), Pv = padded<S>(Dv);
  auto partial_dk = ctx.scratch<S>(plan.partial_rows * P), partial_dv = ctx.scratch<S>(plan.partial_rows * Pv);
  plan.for_each_chunk(ctx, [&](std::span<const Item> items) {
    auto keys = ctx.scratch<S>(plan.longest * D), values = ctx.scratch<S>(plan.longest * Dv);
    auto own_dk = ctx.scratch<S>(plan.longest * P), own_dv = ctx.scratch<S>(plan.longest * Pv);
    auto q_rows = ctx.scratch<S>(W * P), dy_rows = ctx.scratch<S>(W * Pv), y_rows = ctx.scratch<S>(W * Dv);
    auto qt = ctx.scratch<S>(D * W), dyt = ctx.scratch<S>(Dv * W), dqt = ctx.scratch<S>(D * W);
    alignas(64) S p[key_block * W], ds[key_block * W], factors[key_block * W], shift[W], delta[W];
    const Item* loaded = nullptr;
    for (const Item& item : items) {
      const int64_t first_key = plan.k_ptr[item.jet], all_keys = plan.keys(item.jet), kv_head = item.head / plan.group;
      if (!loaded || loaded->jet != item.jet || loaded->head / plan.group != kv_head) {
        k.load(first_key, all_keys, kv_head, D, 1, keys.data());
        v.load(first_key, all_keys, kv_head, Dv, 1, values.data());
        loaded = &item;
      }
      S* sum_dk = item.partial < 0 ? own_dk.data() : &partial_dk[item.partial * P];
      S* sum_dv = item.partial < 0 ? own_dv.data() : &partial_dv[item.partial * Pv];
      std::fill_n(sum_dk, all_keys * P, S(0));
      std::fill_n(sum_dv, all_keys * Pv, S(0));
      for (int64_t t = item.first; t < item.last; t += W) {
        const int64_t queries = std::min(W, item.last - t);
        q.load(t, queries, item.head, P, scale, q_rows.data());
        dy.load(t, queries, item.head, Pv, 1, dy_rows.data());
        y.load(t, queries, item.head, Dv, 1, y_rows.data());
        std::fill_n(&q_rows[queries * P], (W - queries) * P, S(0));
        std::fill_n(&dy_rows[queries * Pv], (W - queries) * Pv, S(0));
        to_lanes(W, D, P, q_rows.data(), qt.data());
        to_lanes(W, Dv, Pv, dy_rows.data(), dyt.data());
        for (int64_t l = 0; l < W; ++l) {
          shift[l] = l < queries ? lse[(t + l) * plan.heads + item.head] : S(0);
          delta[l] = 0;
          for (int64_t d = 0; l < queries && d < Dv; ++d) delta[l] += dy_rows[l * Pv + d] * y_rows[l * Dv + d];
        }
        std::fill_n(dqt.data(), D * W, S(0));
        for (int64_t j = 0; j < all_keys; j += key_block) {
          const int64_t n = std::min(key_block, all_keys - j);
          dot(n, D, qt.data(), &keys[j * D], p);
          exponentiate(n, shift, p);
          dot(n, Dv, dyt.data(), &values[j * Dv], ds);
          if (dropout.probability > 0) {
            draw_factors(dropout, plan, item, t, j, n, factors);
            for (int64_t i = 0; i < n; ++i) {
              vectors(ds)[i] = vectors(p)[i] * (vectors(factors)[i] * vectors(ds)[i] - *vectors(delta));
              vectors(p)[i] *= vectors(factors)[i];
            }
          } else {
            for (int64_t i = 0; i < n; ++i) vectors(ds)[i] = vectors(p)[i] * (vectors(ds)[i] - *vectors(delta));
          }
          spread(n, Pv, p, dy_rows.data(), sum_dv + j * Pv);
          weigh(n, D, ds, &keys[j * D], dqt.data());
          spread(n, P, ds, q_rows.data(), sum_dk + j * P);
        }
        to_rows(queries, D, P, dqt.data(), q_rows.data());
        dq.store(t, queries, item.head, P, scale, q_rows.data());
      }
      if (item.partial >= 0) continue;
      dk.store(first_key, all_keys, kv_head, P, 1, sum_dk);
      dv.store(first_key, all_keys, kv_head, Pv, 1, sum_dv);
    }
  });
  // The parts of a shared head of keys stand one after the other: first query head first.
  std::vector<Item> shared;
  for (const Item& i : plan.items)
    if (i.partial >= 0 && i.head % plan.group == 0 && i.first == plan.q_ptr[i.jet]) shared.push_back(i);
  parallel_chunks(ctx, shared.size(), 1, [&](int64_t i, int64_t, int64_t) {
    const Item& item = shared[i];
    const int64_t n = plan.keys(item.jet), kv_head = item.head / plan.group;
    auto add_up = [&](int64_t size, S* sum) {
      for (int64_t part = 1; part < plan.group * plan.pieces(item.jet); ++part)
        for (int64_t e = 0; e < n * size; ++e) sum[e] += sum[part * n * size + e];
    };
    add_up(P, &partial_dk[item.partial * P]);
    add_up(Pv, &partial_dv[item.partial * Pv]);
    dk.store(plan.k_ptr[item.jet], n, kv_head, P, 1, &partial_dk[item.partial * P]);
    dv.store(plan.k_ptr[item.jet], n, kv_head, Pv, 1, &partial_dv[item.partial * Pv]);
  });
}
}  // namespace
}  // namespace cpu

HeadView head_view(const Tensor& tensor, Layout layout, int64_t column, int64_t heads, int64_t channels) {
  check("attention", "a view", tensor).rank(layout == Layout::scalars ? 2 : 3);
  const int64_t columns = tensor.dim(-1);
  if (column < 0 || heads < 1 || channels < 1 || column + heads * channels > columns)
    fail("attention", "{} heads of {} channels from column {} do not fit into {} columns", heads, channels, column,
         columns);
  HeadView v{.tensor = tensor, .heads = heads, .channels = channels, .offset = column, .head_stride = channels};
  v.rows = tensor.dim(layout == Layout::multivectors ? 1 : 0);
  v.parts = layout == Layout::scalars ? 1 : tensor.dim(layout == Layout::vectors ? 1 : 0);
  v.row_stride = layout == Layout::vectors ? v.parts * columns : columns;
  v.part_stride = layout == Layout::multivectors ? v.rows * columns : columns;
  return v;
}

namespace {
struct Sizes {
  int64_t q_rows, k_rows, heads, kv_heads, q_size = 0, v_size = 0;
};

/// Demands that a view has these rows and heads, the size of `like`, its dtype, and lies inside of its tensor.
void check_view(const char* operation, size_t segment, const char* name, const HeadView& v, int64_t rows, int64_t heads,
                const HeadView& like) {
  const std::string argument = fmt::format("{} of segment {}", name, segment);
  check(operation, argument, v.tensor).dtype(like.tensor.dtype());
  if (v.rows != rows) fail(operation, "{} has {} rows, expected {} as in its ptr", argument, v.rows, rows);
  if (v.heads != heads) fail(operation, "{} has {} heads, expected {}", argument, v.heads, heads);
  if (v.parts != like.parts || v.channels != like.channels)
    fail(operation, "{} has heads of {} x {} features, expected {} x {}", argument, v.parts, v.channels, like.parts,
         like.channels);
  if (v.parts < 1 || v.parts > 32 || v.channels < 1)
    fail(operation, "{} has heads of {} x {} features, expected 1 to 32 parts of 1 channel or more", argument, v.parts,
         v.channels);
  const int64_t end = v.offset + std::max<int64_t>(0, rows - 1) * v.row_stride + (heads - 1) * v.head_stride +
                      (v.parts - 1) * v.part_stride + v.channels;
  if (std::min({v.offset, v.row_stride, v.head_stride, v.part_stride}) < 0 || (rows > 0 && end > v.tensor.numel()))
    fail(operation, "{} does not lie inside of its tensor of {} elements", argument, v.tensor.numel());
}

Sizes check_segments(const char* operation, std::span<const AttentionSegment> segments, const Tensor& q_ptr,
                     const Tensor& k_ptr, double scale, const AttentionDropout& dropout) {
  if (segments.empty() || segments.size() > 4) fail(operation, "{} segments, expected 1 to 4", segments.size());
  const HeadView &q = segments[0].q, &k = segments[0].k;
  check(operation, "q of segment 0", q.tensor).compute();
  Sizes sizes{q.rows, k.rows, q.heads, k.heads};
  const int64_t jets = check_ptr(operation, "q_ptr", q_ptr, q.rows);
  if (check_ptr(operation, "k_ptr", k_ptr, k.rows) != jets)
    fail(operation, "q_ptr has {} jets, k_ptr has {}", jets, k_ptr.dim(0) - 1);
  if (q.heads < 1 || k.heads < 1 || q.heads % k.heads)
    fail(operation, "{} heads of queries and {} of keys, expected a multiple", q.heads, k.heads);
  for (size_t i = 0; i < segments.size(); ++i) {
    const AttentionSegment& s = segments[i];
    check(operation, fmt::format("q of segment {}", i), s.q.tensor).dtype(q.tensor.dtype());
    check(operation, fmt::format("v of segment {}", i), s.v.tensor).dtype(q.tensor.dtype());
    check_view(operation, i, "q", s.q, q.rows, q.heads, s.q);
    check_view(operation, i, "k", s.k, k.rows, k.heads, s.q);
    check_view(operation, i, "v", s.v, k.rows, k.heads, s.v);
    check_view(operation, i, "y", s.y, q.rows, q.heads, s.v);
    if (s.q.parts < 32 && s.negative_parts >> s.q.parts)
      fail(operation, "negative_parts {:#b} of segment {} names more than its {} parts", s.negative_parts, i,
           s.q.parts);
    sizes.q_size += s.q.size();
    sizes.v_size += s.v.size();
  }
  if (!std::isfinite(scale)) fail(operation, "scale is {}, expected a finite number", scale);
  if (!(dropout.probability >= 0 && dropout.probability < 1))
    fail(operation, "dropout probability is {}, expected [0, 1)", dropout.probability);
  const auto& recorded = dropout.draw.recorded;
  if (dropout.probability > 0 && recorded && static_cast<int64_t>(recorded->size()) < q.rows * q.heads * k.rows)
    fail(operation, "{} recorded numbers for dropout, expected {}", recorded->size(), q.rows * q.heads * k.rows);
  return sizes;
}
}  // namespace

void attention(Context& ctx, std::span<const AttentionSegment> segments, const Tensor& q_ptr, const Tensor& k_ptr,
               double scale, const AttentionDropout& dropout, Tensor& lse) {
  const Sizes n = check_segments("attention", segments, q_ptr, k_ptr, scale, dropout);
  const DType dtype = segments[0].q.tensor.dtype();
  check("attention", "lse", lse).shape({n.q_rows, n.heads}).dtype(sum_dtype(dtype));
  const cpu::Plan plan(q_ptr, k_ptr, n.heads, n.heads / n.kv_heads, n.q_size + n.v_size);
  const double bytes = double(size_of(dtype)) * (n.q_rows * n.heads + n.k_rows * n.kv_heads) * (n.q_size + n.v_size);
  const auto scope = ctx.profiler().scope("attention", bytes, plan.pairs * (2. * n.q_size + 2. * n.v_size + 5));
  dispatch_compute("attention", dtype, [&](auto type) {
    using E = typename decltype(type)::type;
    using S = sum_type<E>;
    cpu::attention<E>(ctx, plan, segments, static_cast<S>(scale), dropout, lse.data<S>());
  });
}

void attention_backward(Context& ctx, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, const Tensor& q_ptr, const Tensor& k_ptr,
                        double scale, const AttentionDropout& dropout, const Tensor& lse) {
  const char* name = "attention_backward";
  const Sizes n = check_segments(name, segments, q_ptr, k_ptr, scale, dropout);
  const DType dtype = segments[0].q.tensor.dtype();
  check(name, "lse", lse).shape({n.q_rows, n.heads}).dtype(sum_dtype(dtype));
  if (gradients.size() != segments.size())
    fail(name, "{} segments of gradients, expected {}", gradients.size(), segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    check_view(name, i, "dy", gradients[i].dy, n.q_rows, n.heads, segments[i].y);
    check_view(name, i, "dq", gradients[i].dq, n.q_rows, n.heads, segments[i].q);
    check_view(name, i, "dk", gradients[i].dk, n.k_rows, n.kv_heads, segments[i].k);
    check_view(name, i, "dv", gradients[i].dv, n.k_rows, n.kv_heads, segments[i].v);
  }
  const cpu::Plan plan(q_ptr, k_ptr, n.heads, n.heads / n.kv_heads, 3 * n.q_size + 2 * n.v_size);
  const double bytes = 2. * size_of(dtype) * (n.q_rows * n.heads + n.k_rows * n.kv_heads) * (n.q_size + n.v_size);
  const auto scope = ctx.profiler().scope(name, bytes, plan.pairs * (6. * n.q_size + 4. * n.v_size + 5));
  dispatch_compute(name, dtype, [&](auto type) {
    using E = typename decltype(type)::type;
    using S = sum_type<E>;
    cpu::attention_backward<E>(ctx, plan, segments, gradients, static_cast<S>(scale), dropout, lse.data<S>());
  });
}

}  // namespace lightcone::kernels
