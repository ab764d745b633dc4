#include "kernels/lorentz_norm.cuh"
#include "kernels/lorentz_norm_cuda.h"
#include "kernels/norm_types.h"

namespace lightcone::kernels {

namespace {

using namespace lorentz;

// A team owns one group of one token, whose channels it reads again from the first-level cache after the sum. yv and ys
// may be v and s: an element is read and written by one thread.
template <int V, class X, class Y, class S>
__global__ void lorentz_norm_kernel(Team team, Groups<V> all, S eps, const X* v, const X* s, Y* yv, Y* ys) {
  const Group<V> group(all, team.index() / all.groups, team.index() % all.groups);
  const S r = inverse_norm(team, all, group, eps, v, s);
  auto scale = [&](const Channels<V>& channels, const X* x, Y* y, int64_t c) {
    const auto in = channels.load(x, c);
    Pack<Y, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = Y(S(in.at[k]) * r);
    channels.store(y, c, out);
  };
  team.each(group.vectors, [&](int64_t c) {
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const int64_t at = group.at_v + p * group.part;
      scale(group.vectors, v + at, yv + at, c);
    }
  });
  team.each(group.scalars, [&](int64_t c) { scale(group.scalars, s + group.at_s, ys + group.at_s, c); });
}

// As above; dv and ds may be any of the operands of their shape. dyv null: zeros; add_v, add_s null: none.
template <int V, class X, class S>
__global__ void lorentz_norm_backward_kernel(Team team, Groups<V> all, S eps, const X* dyv, const X* dys, const X* v,
                                             const X* s, const X* add_v, const X* add_s, X* dv, X* ds) {
  const Group<V> group(all, team.index() / all.groups, team.index() % all.groups);
  const S r = inverse_norm(team, all, group, eps, v, s);
  S sum = 0;
  auto add = [&](const Channels<V>& channels, const X* dy, const X* x, int64_t c) {
    const auto g = channels.load(dy, c), in = channels.load(x, c);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += S(g.at[k]) * S(in.at[k]);
  };
  if (dyv)
    team.each(group.vectors, [&](int64_t c) {
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const int64_t at = group.at_v + p * group.part;
        add(group.vectors, dyv + at, v + at, c);
      }
    });
  team.each(group.scalars, [&](int64_t c) { add(group.scalars, dys + group.at_s, s + group.at_s, c); });
  const S m = team.sum(sum) / S(all.vectors.n + all.scalars.n) * (r * r * r);

  team.each(group.vectors, [&](int64_t c) {
    const auto in = load(group, v, c);
    S mine[V];
    with_signs(in, m, mine);
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const int64_t at = group.at_v + p * group.part;
      Pack<X, V> g, more, out;
      if (dyv) g = group.vectors.load(dyv + at, c);
      if (add_v) more = group.vectors.load(add_v + at, c);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        S d = (p == 0 ? -mine[k] : mine[k]) * S(in.parts[p].at[k]);
        if (dyv) d += r * S(g.at[k]);
        out.at[k] = X(add_v ? S(more.at[k]) + d : d);
      }
      group.vectors.store(dv + at, c, out);
    }
  });
  team.each(group.scalars, [&](int64_t c) {
    const auto g = group.scalars.load(dys + group.at_s, c), in = group.scalars.load(s + group.at_s, c);
    Pack<X, V> more, out;
    if (add_s) more = group.scalars.load(add_s + group.at_s, c);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const S d = r * S(g.at[k]) - m * S(in.at[k]);
      out.at[k] = X(add_s ? S(more.at[k]) + d : d);
    }
    group.scalars.store(ds + group.at_s, c, out);
  });
}

// f(team, groups) with packs of 16 bytes if they divide the channels of a group in v and s, which are at all these
// places.
template <int V, class F, class... X>
void with_team(const Tensor& v, const Tensor& s, int64_t groups, F&& f, const X*... x) {
  const int64_t vectors = v.dim(2) / groups, scalars = s.dim(1) / groups;
  auto with = [&]<int n>(std::integral_constant<int, n>) {
    const Groups<n> all{v.dim(0), groups, Channels<n>(vectors, x...), Channels<n>(scalars, x...)};
    f(Team(std::max(all.vectors.packs(), all.scalars.packs())), all);
  };
  vectors % V == 0 && scalars % V == 0 ? with(std::integral_constant<int, V>{})
                                       : with(std::integral_constant<int, 1>{});
}

}  // namespace

namespace cuda {

void lorentz_norm(Context& ctx, const Tensor& v, const Tensor& s, int64_t groups, double eps, Tensor& yv, Tensor& ys) {
  dispatch_narrow("lorentz_norm", v.dtype(), yv.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using S = sum_type<X>;
    auto run = [&]<int V>(Team team, const Groups<V>& all) {
      launch(ctx, "lorentz_norm", lorentz_norm_kernel<V, X, Y, S>, {team.blocks(all.tokens * groups), block_threads},
             team, all, static_cast<S>(eps), v.data<X>(), s.data<X>(), yv.data<Y>(), ys.data<Y>());
    };
    with_team<pack_size<X>>(v, s, groups, run, v.data<X>(), s.data<X>(), yv.data<Y>(), ys.data<Y>());
  });
}

void lorentz_norm_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                           int64_t groups, double eps, const Tensor& add_v, const Tensor& add_s, Tensor& dv,
                           Tensor& ds) {
  const char* where = "lorentz_norm_backward";
  dispatch_compute(where, v.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    using S = sum_type<X>;
    auto data = [](const Tensor& t) { return t.defined() ? t.data<X>() : nullptr; };
    auto run = [&]<int V>(Team team, const Groups<V>& all) {
      launch(ctx, where, lorentz_norm_backward_kernel<V, X, S>, {team.blocks(all.tokens * groups), block_threads}, team,
             all, static_cast<S>(eps), data(dyv), dys.data<X>(), v.data<X>(), s.data<X>(), data(add_v), data(add_s),
             dv.data<X>(), ds.data<X>());
    };
    with_team<pack_size<X>>(v, s, groups, run, data(dyv), dys.data<X>(), v.data<X>(), s.data<X>(), data(add_v),
                            data(add_s), dv.data<X>(), ds.data<X>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
