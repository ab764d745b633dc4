#include "kernels/heads_projection.h"

#include <numeric>

#include "kernels/linear_cuda.h"
#include "kernels/linear_parts.h"
#include "kernels/lorentz_norm.cuh"
#include "kernels/lorentz_norm_cuda.h"

// Products by cuBLASLt of vectors [T, 4, G Cv] and scalars [T, G Cs], and between these and the heads [G, T, 4 Cv + Cs]
// one pass, with the norm of each group. What is in between is summed and kept in S, the type of sums.
namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Channels;
using cuda::Pack;
using cuda::Team;
using lorentz::Group;
using lorentz::Groups;

/// Teams, one for each group of a token, where they have their features, and the sign of components 1 … 3. Neighbours
/// have `near` groups of `span` tokens, so that what they share of a sector, of rows or of features, is in one block.
template <int V>
struct Heads {
  static constexpr int64_t span = 16;
  Groups<V> all;
  int64_t lowered_begin, lowered_end, near;

  Heads(int64_t tokens, const HeadGroups& groups, Channels<V> vectors, Channels<V> scalars)
      : all{tokens, groups.count, vectors, scalars},
        lowered_begin(groups.lowered_begin),
        lowered_end(groups.lowered_end),
        near(std::gcd(groups.count, int64_t{8})) {
    // Odd vectors put scalars at any alignment, and the other way round.
    all.vectors.aligned = all.scalars.aligned = vectors.aligned && scalars.aligned;
  }
  Team team() const { return Team(std::max(all.vectors.packs(), all.scalars.packs())); }
  lightcone::cuda::Grid grid() const {
    return {team().blocks((all.tokens + span - 1) / span * span * all.groups), block_threads};
  }

  struct Place {
    int64_t t, g;
  };
  __device__ Place place(const Team& team) const {
    const int64_t chunk = team.index() / (span * all.groups), inside = team.index() % (span * all.groups);
    const int64_t some = inside / (span * near), rest = inside % (span * near);
    return {chunk * span + rest / near, some * near + rest % near};
  }
  /// Component p of the vectors, or with p = 4 the scalars.
  __device__ int64_t at(const Place& place, int p) const {
    return (place.g * all.tokens + place.t) * (4 * all.vectors.n + all.scalars.n) + p * all.vectors.n;
  }
  __device__ bool lowered(const Place& place) const { return place.g >= lowered_begin && place.g < lowered_end; }
};

// y = the groups of v and s, each divided by its norm if `normalise`. A team owns one group of one token, whose
// channels it reads again from the first-level cache after the sum; those past the last have no channels.
template <int V, class S, class Y>
__global__ void join_kernel(Team team, Heads<V> heads, bool normalise, S eps, const S* v, const S* s, Y* y) {
  const auto place = heads.place(team);
  const Group<V> group(heads.all, place.t, place.g);
  const S r = normalise ? lorentz::inverse_norm(team, heads.all, group, eps, v, s) : S(1),
          space = heads.lowered(place) ? -r : r;
  auto scaled = [&](const Channels<V>& channels, const S* x, S factor, Y* to, int64_t c) {
    const auto in = channels.load(x, c);
    Pack<Y, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = Y(in.at[k] * factor);
    channels.store(to, c, out);
  };
  team.each(group.vectors, [&](int64_t c) {
#pragma unroll
    for (int p = 0; p < 4; ++p)
      scaled(group.vectors, v + group.at_v + p * group.part, p == 0 ? r : space, y + heads.at(place, p), c);
  });
  team.each(group.scalars, [&](int64_t c) { scaled(group.scalars, s + group.at_s, r, y + heads.at(place, 4), c); });
}

// v and s = the groups of y, as teams own them above.
template <int V, class Y, class P>
__global__ void separate_kernel(Team team, Heads<V> heads, const Y* y, P* v, P* s) {
  const auto place = heads.place(team);
  const Group<V> group(heads.all, place.t, place.g);
  auto copied = [&](const Channels<V>& channels, const Y* x, P* to, int64_t c) {
    const auto in = channels.load(x, c);
    Pack<P, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = P(in.at[k]);
    channels.store(to, c, out);
  };
  team.each(group.vectors, [&](int64_t c) {
#pragma unroll
    for (int p = 0; p < 4; ++p) copied(group.vectors, y + heads.at(place, p), v + group.at_v + p * group.part, c);
  });
  team.each(group.scalars, [&](int64_t c) { copied(group.scalars, y + heads.at(place, 4), s + group.at_s, c); });
}

// The gradients of v and s from those of y = join_kernel(v, s) with norms, as teams own them above.
template <int V, class Y, class S, class P>
__global__ void join_backward_kernel(Team team, Heads<V> heads, S eps, const Y* dy, const S* v, const S* s, P* dv,
                                     S* ds) {
  const auto place = heads.place(team);
  const Group<V> group(heads.all, place.t, place.g);
  const S r = lorentz::inverse_norm(team, heads.all, group, eps, v, s), space = heads.lowered(place) ? -1 : 1;
  S time_sum = 0, space_sum = 0;
  auto add = [&](const Channels<V>& channels, int64_t from, const S* x, S& sum, int64_t c) {
    const auto g = channels.load(dy + from, c);
    const auto in = channels.load(x, c);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += S(g.at[k]) * in.at[k];
  };
  team.each(group.vectors, [&](int64_t c) {
#pragma unroll
    for (int p = 0; p < 4; ++p)
      add(group.vectors, heads.at(place, p), v + group.at_v + p * group.part, p == 0 ? time_sum : space_sum, c);
  });
  team.each(group.scalars, [&](int64_t c) { add(group.scalars, heads.at(place, 4), s + group.at_s, time_sum, c); });
  const S m = team.sum(time_sum + space * space_sum) / S(heads.all.vectors.n + heads.all.scalars.n) * (r * r * r);

  team.each(group.vectors, [&](int64_t c) {
    const auto in = lorentz::load(group, v, c);
    S mine[V];
    lorentz::with_signs(in, m, mine);
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const auto g = group.vectors.load(dy + heads.at(place, p), c);
      Pack<P, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const S d = p == 0 ? S(g.at[k]) : space * S(g.at[k]);
        out.at[k] = P(r * d + (p == 0 ? -mine[k] : mine[k]) * in.parts[p].at[k]);
      }
      group.vectors.store(dv + group.at_v + p * group.part, c, out);
    }
  });
  team.each(group.scalars, [&](int64_t c) {
    const auto g = group.scalars.load(dy + heads.at(place, 4), c);
    const auto in = group.scalars.load(s + group.at_s, c);
    Pack<S, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = r * S(g.at[k]) - m * in.at[k];
    group.scalars.store(ds + group.at_s, c, out);
  });
}

/// Heads of y [G, T, 4 Cv + Cs], whose packs travel as words if they do so at all these places.
template <int V, class... X>
Heads<V> heads_of(const Tensor& y, const HeadGroups& groups, int64_t Cv, int64_t Cs, const X*... x) {
  return {y.dim(1), groups, Channels<V>(Cv, x...), Channels<V>(Cs, x...)};
}

/// f(Type<Y>, Type<P>) for y or its gradient, and products in P.
template <class F>
void dispatch_heads(const char* where, DType y, DType products, F&& f) {
  dispatch_compute(where, products, [&](auto type) {
    if constexpr (std::is_same_v<typename decltype(type)::type, bf16>)
      if (y == DType::f32) return f(Type<float>(), type);
    f(type, type);
  });
}

/// Rows of vectors and scalars.
struct Rows {
  Tensor v, s;
};
Rows empty_rows(Context& ctx, int64_t T, int64_t vectors, int64_t scalars, DType of_v, DType of_s) {
  return {ctx.empty({T, 4, vectors}, of_v), ctx.empty({T, scalars}, of_s)};
}

void join(Context& ctx, const char* where, const Rows& x, bool normalise, const HeadGroups& groups, double eps,
          DType products, Tensor& y) {
  dispatch_heads(where, y.dtype(), products, [&](auto out, auto product) {
    using Y = typename decltype(out)::type;
    using S = sum_type<typename decltype(product)::type>;
    constexpr int V = cuda::pack_size<S>;
    const S *v = x.v.data<S>(), *s = x.s.data<S>();
    const auto heads = heads_of<V>(y, groups, x.v.dim(2) / groups.count, x.s.dim(1) / groups.count, v, s, y.data<Y>());
    cuda::launch(ctx, where, join_kernel<V, S, Y>, heads.grid(), heads.team(), heads, normalise, static_cast<S>(eps), v,
                 s, y.data<Y>());
  });
}

/// For products.
Rows separate(Context& ctx, const char* where, const Tensor& y, const ProjectionWeights& w) {
  const int64_t of_v = w.v->tensor().dim(1), of_s = w.s->tensor().dim(1), G = y.dim(0);
  const DType products = w.v->products();
  Rows x = empty_rows(ctx, y.dim(1), of_v, of_s, products, products);
  dispatch_heads(where, y.dtype(), products, [&](auto in, auto product) {
    using Y = typename decltype(in)::type;
    using P = typename decltype(product)::type;
    constexpr int V = cuda::pack_size<sum_type<P>>;
    P *v = x.v.data<P>(), *s = x.s.data<P>();
    const auto heads = heads_of<V>(y, {.count = G}, of_v / G, of_s / G, v, s, y.data<Y>());
    cuda::launch(ctx, where, separate_kernel<V, Y, P>, heads.grid(), heads.team(), heads, y.data<Y>(), v, s);
  });
  return x;
}

/// The gradient of v comes for products, that of s as it was summed: the bias needs it so.
Rows join_backward(Context& ctx, const char* where, const Tensor& dy, const Rows& x, const HeadGroups& groups,
                   double eps, DType products) {
  Rows dx = empty_rows(ctx, dy.dim(1), x.v.dim(2), x.s.dim(1), products, x.s.dtype());
  dispatch_heads(where, dy.dtype(), products, [&](auto in, auto product) {
    using Y = typename decltype(in)::type;
    using P = typename decltype(product)::type;
    using S = sum_type<P>;
    constexpr int V = cuda::pack_size<S>;
    const S *v = x.v.data<S>(), *s = x.s.data<S>();
    P* dv = dx.v.data<P>();
    S* ds = dx.s.data<S>();
    const auto heads =
        heads_of<V>(dy, groups, x.v.dim(2) / groups.count, x.s.dim(1) / groups.count, v, s, dv, ds, dy.data<Y>());
    cuda::launch(ctx, where, join_backward_kernel<V, Y, S, P>, heads.grid(), heads.team(), heads, static_cast<S>(eps),
                 dy.data<Y>(), v, s, dv, ds);
  });
  return dx;
}

/// Normalised, for products.
Rows before(Context& ctx, const Tensor& v, const Tensor& s, const ProjectionWeights& w, bool normalise, double eps) {
  const DType products = w.v->products();
  if (!normalise) return {cuda::rounded(ctx, v, products), cuda::rounded(ctx, s, products)};
  Rows n = {ctx.empty(v.shape(), products), ctx.empty(s.shape(), products)};
  cuda::lorentz_norm(ctx, v, s, 1, eps, n.v, n.s);
  return n;
}

Rows mapped(Context& ctx, const char* where, const Rows& n, const ProjectionWeights& w) {
  const DType sums = sum_dtype(w.v->products());
  Rows z = empty_rows(ctx, n.s.dim(0), w.v->tensor().dim(0), w.s->tensor().dim(0), sums, sums);
  cuda::product(ctx, where, n.v, *w.v, {}, {}, z.v);
  cuda::product(ctx, where, n.s, *w.s, w.bias, {}, z.s);
  return z;
}

}  // namespace

namespace cuda {

void project_to_heads(Context& ctx, const Tensor& v, const Tensor& s, const ProjectionWeights& w, bool normalise,
                      const HeadGroups& groups, double eps, Tensor& y) {
  const char* where = "project_to_heads";
  join(ctx, where, mapped(ctx, where, before(ctx, v, s, w, normalise, eps), w), true, groups, eps, w.v->products(), y);
}

void project_to_heads_backward(Context& ctx, const Tensor& dy, const Tensor& v, const Tensor& s,
                               const ProjectionWeights& w, bool normalise, const HeadGroups& groups, double eps,
                               const Tensor& add_v, const Tensor& add_s, const ProjectionGradients& to) {
  const char* where = "project_to_heads_backward";
  const DType products = w.v->products();
  const Rows n = before(ctx, v, s, w, normalise, eps);
  Rows dz = join_backward(ctx, where, dy, mapped(ctx, where, n, w), groups, eps, products);
  if (to.bias) column_sums(ctx, where, dz.s, *to.bias);
  dz.s = rounded(ctx, dz.s, products);
  if (to.w_v) product_weights(ctx, where, dz.v, n.v, *w.v, *to.w_v);
  if (to.w_s) product_weights(ctx, where, dz.s, n.s, *w.s, *to.w_s);
  if (!normalise) {
    product_backward(ctx, where, dz.v, *w.v, add_v, *to.dv);
    product_backward(ctx, where, dz.s, *w.s, add_s, *to.ds);
    return;
  }
  Rows dn = {ctx.empty(v.shape(), v.dtype()), ctx.empty(s.shape(), s.dtype())};
  product_backward(ctx, where, dz.v, *w.v, {}, dn.v);
  product_backward(ctx, where, dz.s, *w.s, {}, dn.s);
  lorentz_norm_backward(ctx, dn.v, dn.s, v, s, 1, eps, add_v, add_s, *to.dv, *to.ds);
}

void project_from_heads(Context& ctx, const Tensor& x, const ProjectionWeights& w, const Tensor& residual_v,
                        const Tensor& residual_s, Tensor& yv, Tensor& ys) {
  const char* where = "project_from_heads";
  const Rows rows = separate(ctx, where, x, w);
  product(ctx, where, rows.v, *w.v, {}, residual_v, yv);
  product(ctx, where, rows.s, *w.s, w.bias, residual_s, ys);
}

void project_from_heads_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& x,
                                 const ProjectionWeights& w, const FromHeadsGradients& to) {
  const char* where = "project_from_heads_backward";
  const DType products = w.v->products(), sums = sum_dtype(products);
  if (to.bias) column_sums(ctx, where, dys, *to.bias);
  const Rows dy = {rounded(ctx, dyv, products), rounded(ctx, dys, products)};
  if (to.w_v || to.w_s) {
    const Rows rows = separate(ctx, where, x, w);
    if (to.w_v) product_weights(ctx, where, dy.v, rows.v, *w.v, *to.w_v);
    if (to.w_s) product_weights(ctx, where, dy.s, rows.s, *w.s, *to.w_s);
  }
  if (!to.dx) return;
  Rows dx = empty_rows(ctx, x.dim(1), w.v->tensor().dim(1), w.s->tensor().dim(1), sums, sums);
  product_backward(ctx, where, dy.v, *w.v, {}, dx.v);
  product_backward(ctx, where, dy.s, *w.s, {}, dx.s);
  join(ctx, where, dx, false, {.count = x.dim(0)}, 0, products, *to.dx);
}

}  // namespace cuda

}  // namespace lightcone::kernels
