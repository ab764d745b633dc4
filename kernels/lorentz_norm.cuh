#pragma once
#include "kernels/team.cuh"

// What kernels around lorentz_norm share: a group of vectors and scalars of one token, and its norm.
namespace lightcone::kernels::lorentz {

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

  __device__ Group(const Groups<V>& all, int64_t t, int64_t g)
      : part(all.vector_row()), vectors(all.vectors), scalars(all.scalars) {
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

/// m times the sign of each vector's square, which is what |.| of it passes on: 0 where that is 0, NaN where it is NaN.
template <class S, class X, int V>
__device__ void with_signs(const Vectors<X, V>& in, S m, S (&out)[V]) {
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const S square = in.template at<S>(k).square();
    out[k] = square > 0 ? m : square < 0 ? -m : square - square;
  }
}

}  // namespace lightcone::kernels::lorentz
