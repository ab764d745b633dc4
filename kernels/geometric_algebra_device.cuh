#pragma once
#include "kernels/geometric_algebra_math.h"
#include "kernels/team.cuh"

// What the CUDA kernels of geometric_algebra.h share: where components are, and channels with all of them.
namespace lightcone::kernels::cuda {

/// Multivectors of `tokens`: rows of `columns`, and how far half 1 is from half 0.
struct Multivectors {
  int64_t tokens, columns, half;

  /// Where component i of a token begins.
  __device__ int64_t operator()(int64_t token, int i) const {
    return (i / 2 * tokens + token) * columns + i % 2 * half;
  }
};

/// Multivectors of one group.
inline Multivectors layout(const Tensor& x) { return {x.dim(1), x.dim(2), x.dim(2) / 2}; }

/// How many channels a thread takes where all their components are in registers: 8 bytes for each.
template <class X>
inline constexpr int channels_in_registers = 8 / sizeof(sum_type<X>);

/// All components of V channels, as numbers of type S.
template <int V, class S>
struct Components {
  S at[V][geometric_algebra::components];

  template <class X>
  __device__ void load(const Channels<V>& channels, const Multivectors& in, const X* x, int64_t token, int64_t c) {
    Pack<X, V> packs[geometric_algebra::components];
#pragma unroll
    for (int i = 0; i < geometric_algebra::components; ++i) packs[i] = channels.load(x + in(token, i), c);
#pragma unroll
    for (int i = 0; i < geometric_algebra::components; ++i)
#pragma unroll
      for (int k = 0; k < V; ++k) at[k][i] = S(packs[i].at[k]);
  }
};

}  // namespace lightcone::kernels::cuda
