#include "kernels/team.cuh"

namespace lightcone::kernels {

namespace {

using cuda::Channels;
using cuda::Pack;
using cuda::Team;

/// The channels of one token and group, in v and s.
template <int V>
struct Groups {
  int64_t tokens, groups;
  Channels<V> vectors, scalars;  ///< of a group

  __device__ int64_t vector_row() const { return groups * vectors.n; }
};
/// Those of a team: where they begin, and none of them past the last.
template <int V>
struct Group {
  int64_t at_v, at_s, part;
  Channels<V> vectors, scalars;

  __device__ Group(const Groups<V>& all, int64_t index) : vectors(all.vectors), scalars(all.scalars) {
    const int64_t t = index / all.groups, g = index % all.groups;
    part = all.vector_row();
    at_v = t * 4 * part + g * vectors.n;
    at_s = t * all.groups * scalars.n + g * scalars.n;
    if (t >= all.tokens) vectors.n = scalars.n = 0;
  }
};

template <class S>
struct Vector {
  S E, x, y, z;
  __device__ S square() const { return E * E - x * x - y * y - z * z; }
};
template <class X, int V>
struct Vectors {
  Pack<X, V> parts[4];
  template <class S>
  __device__ Vector<S> at(int k) const {
    return {S(parts[0].at[k]), S(parts[1].at[k]), S(parts[2].at[k]), S(parts[3].at[k])};
  }
};
template <class X, int V>
__device__ Vectors<X, V> load(const Group<V>& group, const X* v, int64_t c) {
  Vectors<X, V> out;
#pragma unroll
  for (int p = 0; p < 4; ++p) out.parts[p] = group.vectors.load(v + group.at_v + p * group.part, c);
  return out;
}

template <class S, int V, class X>
__device__ S inverse_norm(const Team& team, const Groups<V>& all, const Group<V>& group, S eps, const X* v,
                          const X* s) {
  S sum = 0;
  team.each(group.vectors, [&](int64_t c) {
    const auto pack = load(group, v, c);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += std::abs(pack.template at<S>(k).square());
  });
  team.each(group.scalars, [&](int64_t c) {
    const auto pack = group.scalars.load(s + group.at_s, c);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += S(pack.at[k]) * S(pack.at[k]);
  });
  return 1 / std::sqrt(team.sum(sum) / S(all.vectors.n + all.scalars.n) + eps);
}

// A team owns one group of one token, whose channels it reads again from the first-level cache after the sum. yv and ys
// may be v and s: an element is read and written by one thread.
template <int V, class X, class S>
__global__ void lorentz_norm_kernel(Team team, Groups<V> all, S eps, const X* v, const X* s, X* yv, X* ys) {
  const Group<V> group(all, team.index());
  const S r = inverse_norm(team, all, group, eps, v, s);
  auto scale = [&](const Channels<V>& channels, const X* x, X* y, int64_t c) {
    auto pack = channels.load(x, c);
#pragma unroll
    for (int k = 0; k < V; ++k) pack.at[k] = X(S(pack.at[k]) * r);
    channels.store(y, c, pack);
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

// As above; dv and ds may be any of the operands of their shape.
template <int V, class X, class S>
__global__ void lorentz_norm_backward_kernel(Team team, Groups<V> all, S eps, const X* dyv, const X* dys, const X* v,
                                             const X* s, X* dv, X* ds) {
  const Group<V> group(all, team.index());
  const S r = inverse_norm(team, all, group, eps, v, s);
  S sum = 0;
  auto add = [&](const Channels<V>& channels, const X* dy, const X* x, int64_t c) {
    const auto g = channels.load(dy, c), in = channels.load(x, c);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += S(g.at[k]) * S(in.at[k]);
  };
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
    const auto in = load(group, v, c), g = load(group, dyv, c);
    Vectors<X, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const S square = in.template at<S>(k).square(), mine = square > 0 ? m : square < 0 ? -m : square - square;
#pragma unroll
      for (int p = 0; p < 4; ++p)
        out.parts[p].at[k] = X(r * S(g.parts[p].at[k]) + (p == 0 ? -mine : mine) * S(in.parts[p].at[k]));
    }
#pragma unroll
    for (int p = 0; p < 4; ++p) group.vectors.store(dv + group.at_v + p * group.part, c, out.parts[p]);
  });
  team.each(group.scalars, [&](int64_t c) {
    const auto g = group.scalars.load(dys + group.at_s, c), in = group.scalars.load(s + group.at_s, c);
    Pack<X, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = X(r * S(g.at[k]) - m * S(in.at[k]));
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
  dispatch_compute("lorentz_norm", v.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    using S = sum_type<X>;
    auto run = [&]<int V>(Team team, const Groups<V>& all) {
      launch(ctx, "lorentz_norm", lorentz_norm_kernel<V, X, S>, {team.blocks(all.tokens * groups), block_threads}, team,
             all, static_cast<S>(eps), v.data<X>(), s.data<X>(), yv.data<X>(), ys.data<X>());
    };
    with_team<pack_size<X>>(v, s, groups, run, v.data<X>(), s.data<X>(), yv.data<X>(), ys.data<X>());
  });
}

void lorentz_norm_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                           int64_t groups, double eps, Tensor& dv, Tensor& ds) {
  const char* where = "lorentz_norm_backward";
  dispatch_compute(where, v.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    using S = sum_type<X>;
    auto run = [&]<int V>(Team team, const Groups<V>& all) {
      launch(ctx, where, lorentz_norm_backward_kernel<V, X, S>, {team.blocks(all.tokens * groups), block_threads}, team,
             all, static_cast<S>(eps), dyv.data<X>(), dys.data<X>(), v.data<X>(), s.data<X>(), dv.data<X>(),
             ds.data<X>());
    };
    with_team<pack_size<X>>(v, s, groups, run, dyv.data<X>(), dys.data<X>(), v.data<X>(), s.data<X>(), dv.data<X>(),
                            ds.data<X>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
