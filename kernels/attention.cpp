#include "kernels/attention.h"

#include <algorithm>
#include <vector>

#include "engine/check.h"
#include "kernels/attention_plan.h"
#include "kernels/attention_tile.h"
#include "kernels/segment.h"

namespace lightcone::kernels {

namespace cpu {
namespace {
using namespace tile;

/// Keys of one tile: with its scores it stays in the first-level cache.
constexpr int64_t key_block = 64;

/// words[i] for i < n <= key_block: the random 32 bits of element first + i; draw.uniform() is their 2^-32. A register of
/// Philox counters at a time; returns the place of the first one, as counters have four words.
const uint32_t* draw_words(const Draw& draw, int64_t first, int64_t n, uint32_t (&words)[2 * key_block]) {
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
    for (int round = 0; round < philox_rounds; ++round, k0 += philox_key_step[0], k1 += philox_key_step[1]) {
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

/// Factors of a tile's probabilities under dropout: 0 or 1 / (1 - probability), [n][lanes], n <= key_block.
template <class S>
void draw_factors(const AttentionDropout& dropout, const Plan& plan, const Item& item, int64_t t, int64_t j, int64_t n,
                  S* factors) {
  constexpr int64_t W = lanes<S>;
  const int64_t all_keys = plan.k_ptr[plan.jets], queries = std::min(W, item.last - t);
  const S kept = S(1 / (1 - dropout.probability));
  // word 2^-32 >= probability, in whole numbers: word > the largest one that is dropped.
  const auto dropped = static_cast<uint32_t>(std::ceil(dropout.probability * 0x1p32) - 1);
  // One query's numbers are those of consecutive elements; 16 keys at a time then turn from rows into columns.
  alignas(64) S panel[key_block * W] = {};
  for (int64_t l = 0; l < queries; ++l) {
    const int64_t first = ((t + l) * plan.heads + item.head) * all_keys + plan.k_ptr[item.jet] + j;
    S row[key_block] = {};
    if (dropout.draw.recorded) {
      for (int64_t i = 0; i < n; ++i) row[i] = dropout.draw.uniform(first + i) >= dropout.probability ? kept : S(0);
    } else {
      uint32_t words[2 * key_block];
      const uint32_t* word = draw_words(dropout.draw, first, n, words);
      for (int64_t i = 0; i < n; ++i) row[i] = word[i] > dropped ? kept : S(0);
    }
    for (int64_t i = 0; i < key_block; i += 16) std::copy_n(row + i, 16, panel + (i / 16 * W + l) * 16);
  }
  to_columns<16>(key_block / 16, panel, panel);
  std::copy_n(panel, n * W, factors);
}

/// Up to a tile's width of queries, the rest of the lanes filled with zeros.
template <class E, int B, class S = sum_type<E>>
void load_queries(const Features<E, B>& features, int64_t t, int64_t n, int64_t head, S scale, S* panel) {
  features.load(t, n, head, scale, lanes<S>, panel);
  for (int64_t block = 0; n < lanes<S> && block < features.blocks(); ++block)
    std::fill_n(panel + (block * lanes<S> + n) * B, (lanes<S> - n) * B, S(0));
}

template <class E, int B, class S = sum_type<E>>
void attention(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments, S scale,
               const AttentionDropout& dropout, S* lse) {
  constexpr int64_t W = lanes<S>;
  const Features<E, B> q(segments, &AttentionSegment::q), k(segments, &AttentionSegment::k, segments),
      v(segments, &AttentionSegment::v), y(segments, &AttentionSegment::y);
  const int64_t D = q.padded(), Dv = v.padded();
  plan.for_each_chunk(ctx, [&](std::span<const Item> items) {
    Arena<S> arena(ctx, plan.longest * D, plan.longest * Dv, W * std::max(D, Dv), W * D, W * Dv);
    S *keys = arena.take(plan.longest * D), *values = arena.take(plan.longest * Dv);
    S *panel = arena.take(W * std::max(D, Dv)), *qt = arena.take(W * D), *yt = arena.take(W * Dv);
    alignas(64) S s[key_block * W], factors[key_block * W];
    const Item* loaded = nullptr;
    for (const Item& item : items) {
      const int64_t all_keys = plan.keys(item.jet), kv_head = item.head / plan.group;
      if (!loaded || loaded->jet != item.jet || loaded->head / plan.group != kv_head) {
        k.load(plan.k_ptr[item.jet], all_keys, kv_head, 1, all_keys, keys);
        v.load(plan.k_ptr[item.jet], all_keys, kv_head, 1, all_keys, values);
        loaded = &item;
      }
      for (int64_t t = item.first; t < item.last; t += W) {
        const int64_t queries = std::min(W, item.last - t);
        load_queries(q, t, queries, item.head, scale * S(M_LOG2E), panel);
        to_columns<B>(q.blocks(), panel, qt);
        std::fill_n(yt, Dv * W, S(0));
        RunningSoftmax<S> softmax;
        for (int64_t j = 0; j < all_keys; j += key_block) {
          const int64_t n = std::min(key_block, all_keys - j);
          Vector<S> top = splat(-S(INFINITY));
          dot<B>(n, q.blocks(), all_keys, qt, keys + j * B, [&](int64_t i, Vector<S> x) {
            vectors(s)[i] = x;
            top = x > top ? x : top;
          });
          softmax.add(n, top, s, Dv, yt);
          if (dropout.probability > 0) {
            draw_factors(dropout, plan, item, t, j, n, factors);
            for (int64_t i = 0; i < n; ++i) vectors(s)[i] *= vectors(factors)[i];
          }
          weigh<B>(n, v.blocks(), all_keys, s, values + j * B, yt);
        }
        softmax.finish(Dv, yt);
        to_panel<B>(v.blocks(), yt, panel);
        y.store(t, queries, item.head, 1, W, panel);
        const Vector<S> log_sum = softmax.lse();
        for (int64_t l = 0; l < queries; ++l) lse[(t + l) * plan.heads + item.head] = log_sum[l];
      }
    }
  });
}

template <class E, int B, class S = sum_type<E>>
void attention_backward(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, S scale, const AttentionDropout& dropout,
                        const S* lse) {
  constexpr int64_t W = lanes<S>, G = group<B, S>;
  const Features<E, B> q(segments, &AttentionSegment::q), k(segments, &AttentionSegment::k, segments),
      v(segments, &AttentionSegment::v), y(segments, &AttentionSegment::y);
  const Features<E, B> dy(gradients, &AttentionGradient::dy), dq(gradients, &AttentionGradient::dq),
      dk(gradients, &AttentionGradient::dk, segments), dv(gradients, &AttentionGradient::dv);
  const int64_t D = q.padded(), Dv = v.padded();
  Arena<S> partial(ctx, plan.partial_rows * D * G, plan.partial_rows * Dv * G);
  S *partial_dk = partial.take(plan.partial_rows * D * G), *partial_dv = partial.take(plan.partial_rows * Dv * G);
  // s is in units of log 2, so ds q is too large by log2 e.
  auto store_sums = [&](const Item& item, S* sum_dk, S* sum_dv) {
    const int64_t first = plan.k_ptr[item.jet], n = plan.keys(item.jet), kv_head = item.head / plan.group;
    add_groups<B>(n * k.blocks(), sum_dk);
    add_groups<B>(n * v.blocks(), sum_dv);
    dk.store(first, n, kv_head, S(M_LN2), n, sum_dk);
    dv.store(first, n, kv_head, 1, n, sum_dv);
  };
  plan.for_each_chunk(ctx, [&](std::span<const Item> items) {
    const int64_t K = plan.longest;
    Arena<S> arena(ctx, K * D, K * Dv, K * D * G, K * Dv * G, W * D, W * Dv, W * D, W * Dv, W * Dv, W * D);
    S *keys = arena.take(K * D), *values = arena.take(K * Dv);
    S *own_dk = arena.take(K * D * G), *own_dv = arena.take(K * Dv * G);
    S *q_panel = arena.take(W * D), *dy_panel = arena.take(W * Dv);
    S *qt = arena.take(W * D), *dyt = arena.take(W * Dv), *yt = arena.take(W * Dv), *dqt = arena.take(W * D);
    alignas(64) S p[key_block * W], ds[key_block * W], factors[key_block * W];
    const Item* loaded = nullptr;
    for (const Item& item : items) {
      const int64_t first_key = plan.k_ptr[item.jet], all_keys = plan.keys(item.jet), kv_head = item.head / plan.group;
      if (!loaded || loaded->jet != item.jet || loaded->head / plan.group != kv_head) {
        k.load(first_key, all_keys, kv_head, 1, all_keys, keys);
        v.load(first_key, all_keys, kv_head, 1, all_keys, values);
        loaded = &item;
      }
      S* sum_dk = item.partial < 0 ? own_dk : &partial_dk[item.partial * D * G];
      S* sum_dv = item.partial < 0 ? own_dv : &partial_dv[item.partial * Dv * G];
      std::fill_n(sum_dk, all_keys * D * G, S(0));
      std::fill_n(sum_dv, all_keys * Dv * G, S(0));
      for (int64_t t = item.first; t < item.last; t += W) {
        const int64_t queries = std::min(W, item.last - t);
        load_queries(dy, t, queries, item.head, S(1), dy_panel);
        to_columns<B>(v.blocks(), dy_panel, dyt);
        Vector<S> delta = {};
        load_queries(y, t, queries, item.head, S(1), yt);
        to_columns<B>(v.blocks(), yt, yt);
        for (int64_t d = 0; d < Dv; ++d) delta += vectors(yt)[d] * vectors(dyt)[d];
        load_queries(q, t, queries, item.head, scale * S(M_LOG2E), q_panel);
        to_columns<B>(q.blocks(), q_panel, qt);
        to_groups<B>(q.blocks(), q_panel);
        to_groups<B>(v.blocks(), dy_panel);
        Vector<S> shift = {};
        for (int64_t l = 0; l < queries; ++l) shift[l] = S(M_LOG2E) * lse[(t + l) * plan.heads + item.head];
        std::fill_n(dqt, D * W, S(0));
        for (int64_t j = 0; j < all_keys; j += key_block) {
          const int64_t n = std::min(key_block, all_keys - j);
          dot<B>(n, q.blocks(), all_keys, qt, keys + j * B,
                 [&](int64_t i, Vector<S> s) { vectors(p)[i] = vector_math::exp2<S>(s - shift); });
          if (dropout.probability > 0) {
            draw_factors(dropout, plan, item, t, j, n, factors);
            dot<B>(n, v.blocks(), all_keys, dyt, values + j * B, [&](int64_t i, Vector<S> x) {
              vectors(ds)[i] = vectors(p)[i] * (vectors(factors)[i] * x - delta);
              vectors(p)[i] *= vectors(factors)[i];
            });
          } else {
            dot<B>(n, v.blocks(), all_keys, dyt, values + j * B,
                   [&](int64_t i, Vector<S> x) { vectors(ds)[i] = vectors(p)[i] * (x - delta); });
          }
          spread<B>(n, v.blocks(), all_keys, p, dy_panel, sum_dv + j * B * G);
          weigh<B>(n, q.blocks(), all_keys, ds, keys + j * B, dqt);
          spread<B>(n, q.blocks(), all_keys, ds, q_panel, sum_dk + j * B * G);
        }
        to_panel<B>(q.blocks(), dqt, q_panel);
        dq.store(t, queries, item.head, scale, W, q_panel);
      }
      if (item.partial < 0) store_sums(item, sum_dk, sum_dv);
    }
  });
  // The parts of a shared head of keys stand one after the other: first query head first.
  std::vector<Item> shared;
  for (const Item& i : plan.items)
    if (i.partial >= 0 && i.head % plan.group == 0 && i.first == plan.q_ptr[i.jet]) shared.push_back(i);
  parallel_chunks(ctx, shared.size(), 1, [&](int64_t i, int64_t, int64_t) {
    const Item& item = shared[i];
    auto add_up = [&](int64_t size, S* sum) {
      for (int64_t part = 1; part < plan.group * plan.pieces(item.jet); ++part)
        for (int64_t e = 0; e < size; ++e) sum[e] += sum[part * size + e];
      return sum;
    };
    const int64_t n = plan.keys(item.jet);
    store_sums(item, add_up(n * D * G, &partial_dk[item.partial * D * G]),
               add_up(n * Dv * G, &partial_dv[item.partial * Dv * G]));
  });
}

/// f(E, B) with features in blocks of B: as few as hold a whole head, or several of 16.
template <class F>
void dispatch_blocks(int64_t largest, F&& f) {
  if (largest <= 4)
    f(std::integral_constant<int, 4>());
  else if (largest <= 8)
    f(std::integral_constant<int, 8>());
  else
    f(std::integral_constant<int, 16>());
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

/// "q of segment 0" and so on, written out: these checks run for every call, which can be short.
enum class View { q, k, v, y, dy, dq, dk, dv };
const char* name_of(View view, size_t segment) {
#define LIGHTCONE_VIEW(name) \
  { #name " of segment 0", #name " of segment 1", #name " of segment 2", #name " of segment 3" }
  static constexpr const char* names[][4] = {LIGHTCONE_VIEW(q),  LIGHTCONE_VIEW(k),  LIGHTCONE_VIEW(v),
                                             LIGHTCONE_VIEW(y),  LIGHTCONE_VIEW(dy), LIGHTCONE_VIEW(dq),
                                             LIGHTCONE_VIEW(dk), LIGHTCONE_VIEW(dv)};
#undef LIGHTCONE_VIEW
  return names[static_cast<int>(view)][segment];
}

/// Demands that a view has these rows and heads, the size of `like`, its dtype, and lies inside of its tensor.
void check_view(const char* operation, size_t segment, View name, const HeadView& v, int64_t rows, int64_t heads,
                const HeadView& like) {
  const char* argument = name_of(name, segment);
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
    check(operation, name_of(View::q, i), s.q.tensor).dtype(q.tensor.dtype());
    check(operation, name_of(View::v, i), s.v.tensor).dtype(q.tensor.dtype());
    check_view(operation, i, View::q, s.q, q.rows, q.heads, s.q);
    check_view(operation, i, View::k, s.k, k.rows, k.heads, s.q);
    check_view(operation, i, View::v, s.v, k.rows, k.heads, s.v);
    check_view(operation, i, View::y, s.y, q.rows, q.heads, s.v);
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
    cpu::dispatch_blocks(std::max(n.q_size, n.v_size), [&](auto B) {
      cpu::attention<E, B>(ctx, plan, segments, static_cast<S>(scale), dropout, lse.data<S>());
    });
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
    check_view(name, i, View::dy, gradients[i].dy, n.q_rows, n.heads, segments[i].y);
    check_view(name, i, View::dq, gradients[i].dq, n.q_rows, n.heads, segments[i].q);
    check_view(name, i, View::dk, gradients[i].dk, n.k_rows, n.kv_heads, segments[i].k);
    check_view(name, i, View::dv, gradients[i].dv, n.k_rows, n.kv_heads, segments[i].v);
  }
  const cpu::Plan plan(q_ptr, k_ptr, n.heads, n.heads / n.kv_heads, 3 * n.q_size + 2 * n.v_size);
  const double bytes = 2. * size_of(dtype) * (n.q_rows * n.heads + n.k_rows * n.kv_heads) * (n.q_size + n.v_size);
  const auto scope = ctx.profiler().scope(name, bytes, plan.pairs * (6. * n.q_size + 4. * n.v_size + 5));
  dispatch_compute(name, dtype, [&](auto type) {
    using E = typename decltype(type)::type;
    using S = sum_type<E>;
    cpu::dispatch_blocks(std::max(n.q_size, n.v_size), [&](auto B) {
      cpu::attention_backward<E, B>(ctx, plan, segments, gradients, static_cast<S>(scale), dropout, lse.data<S>());
    });
  });
}

}  // namespace lightcone::kernels
