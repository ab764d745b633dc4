#include "kernels/attention_cpu.h"

#include "kernels/attention_amx.h"
#include "kernels/attention_dropout.h"
#include "kernels/attention_products.h"

namespace lightcone::kernels::cpu {

namespace {
using namespace tile;

/// Whether the item's keys are those of the one before.
bool same_keys(const Plan& plan, const Item* before, const Item& item) {
  return before && before->jet == item.jet && before->head / plan.group == item.head / plan.group;
}

/// What local frames do to each view, if there are any.
template <class S, int B>
struct FramesOf {
  using Transform = std::optional<frames_math::PanelTransform<S, B>>;
  const AttentionFrames& frames;
  explicit FramesOf(std::span<const AttentionSegment> segments) : frames(segments[0].frames) {}
  Transform forward(FrameMap map) const { return make(map, false); }
  Transform backward(FrameMap map) const { return make(map, true); }

 private:
  Transform make(FrameMap map, bool backward) const {
    if (!frames.matrices.defined()) return {};
    return {{frames.reps, frames.matrices.data<S>(), map, backward}};
  }
};

template <class E, class P>
void forward(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments, double scale,
             const AttentionDropout& dropout, sum_type<E>* lse) {
  using S = typename P::S;
  constexpr int B = P::B;
  constexpr int64_t W = lanes<S>;
  const FramesOf<S, B> frames(segments);
  const Features<E, B> q(segments, &AttentionSegment::q, {}, frames.forward(FrameMap::to_global)),
      k(segments, &AttentionSegment::k, segments, frames.forward(FrameMap::to_global_lowered)),
      v(segments, &AttentionSegment::v, {}, frames.forward(FrameMap::to_global)),
      y(segments, &AttentionSegment::y, {}, frames.forward(FrameMap::to_local));
  const int64_t D = q.padded(), Dv = v.padded();
  const S log2_scale = S(scale * M_LOG2E);
  plan.for_each_chunk(ctx, [&](std::span<const Item> items) {
    [[maybe_unused]] typename P::Scope scope;
    Arena<S> arena(ctx, plan.longest * (D + Dv) + W * (std::max(D, Dv) + 2 * D + Dv), 6);
    typename P::Keys keys{k.blocks(), 0, arena.take(plan.longest * D)};
    typename P::Keys values{v.blocks(), 0, arena.take(plan.longest * Dv)};
    S *panel = arena.take(W * std::max(D, Dv)), *yt = arena.take(W * Dv);
    typename P::Queries queries(arena, q.blocks());
    alignas(64) S s[key_block * W], factors[key_block * W];
    const Item* before = nullptr;
    for (const Item& item : items) {
      const int64_t all_keys = plan.keys(item.jet), rows = plan.key_rows(item.jet);
      if (!same_keys(plan, std::exchange(before, &item), item)) {
        keys.pack(k, plan.k_ptr[item.jet], all_keys, item.head / plan.group, rows, For::dot, panel);
        values.pack(v, plan.k_ptr[item.jet], all_keys, item.head / plan.group, rows, For::weigh, panel);
      }
      for (int64_t t = item.first; t < item.last; t += W) {
        const int64_t here = std::min(W, item.last - t);
        q.load_tile(t, here, item.head, W, panel);
        queries.pack(panel, For::dot);
        std::fill_n(yt, Dv * W, S(0));
        RunningSoftmax<S> softmax;
        for (int64_t j = 0; j < all_keys; j += key_block) {
          const int64_t n = std::min(key_block, all_keys - j);
          Vector<S> top = splat(-S(INFINITY));
          P::dot(n, j, queries, keys, [&](int64_t i, Vector<S> x) {
            x *= log2_scale;
            vectors(s)[i] = x;
            top = x > top ? x : top;
          });
          softmax.add(n, top, s, Dv, yt);
          if (dropout.probability > 0) {
            draw_factors(dropout, plan, item, t, j, n, factors);
            for (int64_t i = 0; i < n; ++i) vectors(s)[i] *= vectors(factors)[i];
          }
          P::weigh(n, j, s, values, yt);
        }
        softmax.finish(Dv, yt);
        to_panel<B>(v.blocks(), yt, panel);
        y.store(t, here, item.head, 1, W, panel);
        const Vector<S> log_sum = softmax.lse();
        for (int64_t l = 0; l < here; ++l) lse[(t + l) * plan.heads + item.head] = log_sum[l];
      }
    }
  });
}

template <class E, class P>
void backward(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments,
              std::span<const AttentionGradient> gradients, double scale, const AttentionDropout& dropout,
              const sum_type<E>* lse) {
  using S = typename P::S;
  constexpr int B = P::B;
  constexpr int64_t W = lanes<S>, G = P::G;
  const FramesOf<S, B> frames(segments);
  const Features<E, B> q(segments, &AttentionSegment::q, {}, frames.forward(FrameMap::to_global)),
      k(segments, &AttentionSegment::k, segments, frames.forward(FrameMap::to_global_lowered)),
      v(segments, &AttentionSegment::v, {}, frames.forward(FrameMap::to_global)), y(segments, &AttentionSegment::y);
  const Features<E, B> dy(gradients, &AttentionGradient::dy),
      dq(gradients, &AttentionGradient::dq, {}, frames.backward(FrameMap::to_global)),
      dk(gradients, &AttentionGradient::dk, segments, frames.backward(FrameMap::to_global_lowered)),
      dv(gradients, &AttentionGradient::dv, {}, frames.backward(FrameMap::to_global));
  const auto dy_to_global = frames.backward(FrameMap::to_local);
  const int64_t D = q.padded(), Dv = v.padded(), longest = plan.longest;
  const S log2_scale = S(scale * M_LOG2E);
  Arena<S> partial(ctx, plan.partial_rows * (D + Dv) * G, 2);
  S *partial_dk = partial.take(plan.partial_rows * D * G), *partial_dv = partial.take(plan.partial_rows * Dv * G);
  auto store_sums = [&](const Item& item, S* sum_dk, S* sum_dv) {
    const int64_t first = plan.k_ptr[item.jet], n = plan.keys(item.jet), rows = plan.key_rows(item.jet);
    add_groups<B>(rows * k.blocks(), sum_dk);
    add_groups<B>(rows * v.blocks(), sum_dv);
    dk.store(first, n, item.head / plan.group, S(scale), rows, sum_dk);
    dv.store(first, n, item.head / plan.group, 1, rows, sum_dv);
  };
  plan.for_each_chunk(ctx, [&](std::span<const Item> items) {
    [[maybe_unused]] typename P::Scope scope;
    Arena<S> arena(ctx, longest * (D + Dv) * (1 + G) + 4 * W * (D + Dv), 14);
    typename P::Keys keys{k.blocks(), 0, arena.take(longest * D)};
    typename P::Keys values{v.blocks(), 0, arena.take(longest * Dv)};
    S *own_dk = arena.take(longest * D * G), *own_dv = arena.take(longest * Dv * G);
    S *panel = arena.take(W * std::max(D, Dv)), *dy_panel = arena.take(W * Dv), *dqt = arena.take(W * D);
    typename P::Queries queries(arena, q.blocks()), dys(arena, v.blocks());
    alignas(64) S p[key_block * W], ds[key_block * W], factors[key_block * W];
    const Item* before = nullptr;
    for (const Item& item : items) {
      const int64_t all_keys = plan.keys(item.jet), rows = plan.key_rows(item.jet);
      if (!same_keys(plan, std::exchange(before, &item), item)) {
        keys.pack(k, plan.k_ptr[item.jet], all_keys, item.head / plan.group, rows, For::both, panel);
        values.pack(v, plan.k_ptr[item.jet], all_keys, item.head / plan.group, rows, For::dot, panel);
      }
      S* sum_dk = item.partial < 0 ? own_dk : &partial_dk[item.partial * D * G];
      S* sum_dv = item.partial < 0 ? own_dv : &partial_dv[item.partial * Dv * G];
      std::fill_n(sum_dk, rows * D * G, S(0));
      std::fill_n(sum_dv, rows * Dv * G, S(0));
      for (int64_t t = item.first; t < item.last; t += W) {
        const int64_t here = std::min(W, item.last - t);
        dy.load_tile(t, here, item.head, W, dy_panel);
        y.load_tile(t, here, item.head, W, panel);
        // <dy, y> in the tokens' own frames: it is the same in the global one, but y would get there by an inverse that
        // g L^T g is only up to gamma^2 times rounding.
        const Vector<S> delta = row_dots<B>(v.blocks(), dy_panel, panel);
        if (dy_to_global) (*dy_to_global)(t, here, W, dy_panel);
        dys.pack(dy_panel, For::both);
        q.load_tile(t, here, item.head, W, panel);
        queries.pack(panel, For::both);
        Vector<S> shift = {};
        for (int64_t l = 0; l < here; ++l) shift[l] = S(M_LOG2E) * lse[(t + l) * plan.heads + item.head];
        std::fill_n(dqt, D * W, S(0));
        for (int64_t j = 0; j < all_keys; j += key_block) {
          const int64_t n = std::min(key_block, all_keys - j);
          P::dot(n, j, queries, keys, [&](int64_t i, Vector<S> x) {
            // Not above 1 either where scores are so large that lse is rounded by more than 1.
            const Vector<S> power = x * log2_scale - shift;
            vectors(p)[i] = vector_math::exp2<S>(power > 0 ? Vector<S>{} : power);
          });
          if (dropout.probability > 0) {
            draw_factors(dropout, plan, item, t, j, n, factors);
            P::dot(n, j, dys, values, [&](int64_t i, Vector<S> x) {
              vectors(ds)[i] = vectors(p)[i] * (vectors(factors)[i] * x - delta);
              vectors(p)[i] *= vectors(factors)[i];
            });
          } else {
            P::dot(n, j, dys, values, [&](int64_t i, Vector<S> x) { vectors(ds)[i] = vectors(p)[i] * (x - delta); });
          }
          P::spread(n, j, p, dys, rows, sum_dv);
          P::weigh(n, j, ds, keys, dqt);
          P::spread(n, j, ds, queries, rows, sum_dk);
        }
        to_panel<B>(q.blocks(), dqt, panel);
        dq.store(t, here, item.head, S(scale), W, panel);
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
    const int64_t rows = plan.key_rows(item.jet);
    store_sums(item, add_up(rows * D * G, &partial_dk[item.partial * D * G]),
               add_up(rows * Dv * G, &partial_dv[item.partial * Dv * G]));
  });
}

/// f(E, P): elements, and products in blocks of features, as few as hold a whole head, or several of 16.
template <class F>
void dispatch(std::span<const AttentionSegment> segments, Products products, F&& f) {
  int64_t q_size = 0, v_size = 0;
  for (const AttentionSegment& s : segments) q_size += s.q.size(), v_size += s.v.size();
  const int64_t size = std::max(q_size, v_size);
  dispatch_compute("attention", segments[0].q.tensor.dtype(), [&](auto type) {
    using S = sum_type<typename decltype(type)::type>;
    if constexpr (std::is_same_v<S, float>)
      if (products == Products::bf16 && size > largest_exact_head) {
#if defined(LIGHTCONE_ATTENTION_AMX)
        if (amx_available()) return f(type, Type<AmxProducts>());
#endif
        return f(type, Type<PlainProducts<float, 16, true>>());
      }
    if (size <= 4)
      f(type, Type<PlainProducts<S, 4, false>>());
    else if (size <= 8)
      f(type, Type<PlainProducts<S, 8, false>>());
    else
      f(type, Type<PlainProducts<S, 16, false>>());
  });
}
}  // namespace

void attention(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments, double scale,
               const AttentionDropout& dropout, Tensor& lse, Products products) {
  dispatch(segments, products, [&](auto type, auto kind) {
    using E = typename decltype(type)::type;
    forward<E, typename decltype(kind)::type>(ctx, plan, segments, scale, dropout, lse.data<sum_type<E>>());
  });
}

void attention_backward(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, double scale, const AttentionDropout& dropout,
                        const Tensor& lse, Products products) {
  dispatch(segments, products, [&](auto type, auto kind) {
    using E = typename decltype(type)::type;
    backward<E, typename decltype(kind)::type>(ctx, plan, segments, gradients, scale, dropout, lse.data<sum_type<E>>());
  });
}

}  // namespace lightcone::kernels::cpu
