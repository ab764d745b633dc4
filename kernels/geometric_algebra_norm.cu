#include "kernels/geometric_algebra_device.cuh"
#include "kernels/norm_types.h"

// The norm of multivectors (equi_norm).
namespace lightcone::kernels {

namespace {

using cuda::Channels;
using cuda::channels_in_registers;
using cuda::Components;
using cuda::Multivectors;
using cuda::Pack;
using cuda::Team;
using geometric_algebra::components;

/// The sums of ± x^2 over vectors, their duals and bivectors, each up to its sign.
template <class S>
struct Squares {
  S vector, dual, bivector;
  __device__ explicit Squares(const S* x)
      : vector(x[2] * x[2] - x[4] * x[4] - x[6] * x[6] - x[8] * x[8]),
        dual(x[3] * x[3] - x[5] * x[5] - x[7] * x[7] - x[9] * x[9]),
        bivector((x[11] * x[11] + x[13] * x[13] + x[15] * x[15]) - (x[10] * x[10] + x[12] * x[12] + x[14] * x[14])) {}
};
/// 1, -1, or 0 for 0; NaN stays NaN.
template <class S>
__device__ S sign_of(S x) {
  return x > 0 ? S(1) : x < 0 ? S(-1) : x - x;
}

/// What a team owns: one group of channels of one token, none past the last token.
template <int V>
struct Group {
  int64_t token, number;
  Channels<V> channels;
  int64_t first;  ///< column

  __device__ Group(const Team& team, const Multivectors& all, Channels<V> group)
      : token(team.index() / (all.columns / (2 * group.n))),
        number(team.index()),
        channels(group),
        first(team.index() % (all.columns / (2 * group.n)) * 2 * group.n) {
    if (token >= all.tokens) channels.n = 0;
  }
};

// A team owns one group of one token, which it reads again from the first-level cache after the sum.
template <int V, class X, class Y, class S>
__global__ void equi_norm_kernel(Team team, Multivectors in, Channels<V> channels, S eps, const X* x, Y* y, S* rstd) {
  const Group<V> group(team, in, channels);
  S sum = 0;
  team.each(group.channels, [&](int64_t c) {
    Components<V, S> all;
    all.load(group.channels, in, x + group.first, group.token, c);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const S* a = all.at[k];
      const Squares<S> squares(a);
      sum +=
          a[0] * a[0] + std::abs(squares.vector) + (a[1] * a[1] + std::abs(squares.dual)) + std::abs(squares.bivector);
    }
  });
  const S mean = team.sum(sum) / S(channels.n), r = 1 / std::sqrt(mean < eps ? eps : mean);
  if (team.first() && group.channels.n) rstd[group.number] = r;
  team.each(group.channels, [&](int64_t c) {
#pragma unroll
    for (int i = 0; i < components; ++i) {
      const int64_t at = group.first + in(group.token, i);
      const auto pack = group.channels.load(x + at, c);
      Pack<Y, V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) result.at[k] = Y(S(pack.at[k]) * r);
      group.channels.store(y + at, c, result);
    }
  });
}

// As above; dx may be `add`: an element is read and written by one thread.
template <int V, class X, class Y, class S>
__global__ void equi_norm_backward_kernel(Team team, Multivectors in, Channels<V> channels, const Y* dy, const Y* y,
                                          const S* rstd, S eps, const X* add, X* dx) {
  const Group<V> group(team, in, channels);
  S sum = 0;
  team.each(group.channels, [&](int64_t c) {
#pragma unroll
    for (int i = 0; i < components; ++i) {
      const int64_t at = group.first + in(group.token, i);
      const auto g = group.channels.load(dy + at, c), of_y = group.channels.load(y + at, c);
#pragma unroll
      for (int k = 0; k < V; ++k) sum += S(g.at[k]) * S(of_y.at[k]);
    }
  });
  const S dot = team.sum(sum), r = group.channels.n ? rstd[group.number] : S(0);
  const S slope = r < 1 / std::sqrt(eps) ? r * dot / S(channels.n) : S(0);
  team.each(group.channels, [&](int64_t c) {
    Components<V, S> all;
    all.load(group.channels, in, y + group.first, group.token, c);
    S vector[V], dual[V], bivector[V];
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const Squares<S> squares(all.at[k]);
      vector[k] = slope * sign_of(squares.vector);
      dual[k] = slope * sign_of(squares.dual);
      bivector[k] = slope * sign_of(squares.bivector);
    }
#pragma unroll
    for (int i = 0; i < components; ++i) {
      const int64_t at = group.first + in(group.token, i);
      const auto g = group.channels.load(dy + at, c);
      Pack<X, V> more = {}, result;
      if (add) more = group.channels.load(add + at, c);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const bool space = i >= 4 && i < 10;  // e1, e2, e3 and their duals
        const S part = i < 2 ? slope : i < 10 ? (i % 2 ? dual[k] : vector[k]) : bivector[k];
        const S own = (space || (i >= 10 && i % 2 == 0) ? -part : part) * all.at[k][i], value = r * S(g.at[k]) - own;
        result.at[k] = X(add ? S(more.at[k]) + value : value);
      }
      group.channels.store(dx + at, c, result);
    }
  });
}

// f(team, layout, channels of a group) for norms of x, in packs of V if those divide a group, which are at all these
// places.
template <int V, class F, class... X>
void with_groups(const Tensor& x, int64_t group, F&& f, const X*... at) {
  auto with = [&]<int n>(std::integral_constant<int, n>) {
    const Channels<n> channels(group, at...);
    f(Team(channels.packs()), Multivectors{x.dim(1), x.dim(2), group}, channels);
  };
  group % V == 0 ? with(std::integral_constant<int, V>()) : with(std::integral_constant<int, 1>());
}

}  // namespace

namespace cuda {

void equi_norm(Context& ctx, const Tensor& x, int64_t group, double eps, Tensor& y, Tensor& rstd) {
  dispatch_narrow("equi_norm", x.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using S = sum_type<X>;
    auto run = [&]<int V>(Team team, const Multivectors& all, const Channels<V>& channels) {
      launch(ctx, "equi_norm", equi_norm_kernel<V, X, Y, S>, {team.blocks(rstd.numel()), block_threads}, team, all,
             channels, static_cast<S>(eps), x.data<X>(), y.data<Y>(), rstd.data<S>());
    };
    with_groups<channels_in_registers<X>>(x, group, run, x.data<X>(), y.data<Y>());
  });
}

void equi_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, double eps,
                        const Tensor& add, Tensor& dx) {
  const char* where = "equi_norm_backward";
  dispatch_narrow(where, dx.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using S = sum_type<X>;
    const X* more = add.defined() ? add.data<X>() : nullptr;
    auto run = [&]<int V>(Team team, const Multivectors& all, const Channels<V>& channels) {
      launch(ctx, where, equi_norm_backward_kernel<V, X, Y, S>, {team.blocks(rstd.numel()), block_threads}, team, all,
             channels, dy.data<Y>(), y.data<Y>(), rstd.data<S>(), static_cast<S>(eps), more, dx.data<X>());
    };
    const int64_t group = rstd.numel() ? dx.dim(1) * dx.dim(2) / (2 * rstd.numel()) : 1;
    with_groups<channels_in_registers<X>>(dx, group, run, dy.data<Y>(), y.data<Y>(), more, dx.data<X>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
