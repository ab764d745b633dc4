#pragma once
#include "kernels/matmul.h"

namespace lightcone::kernels {

// The way of Lorentz vectors and scalars into attention in one pass over the tokens: normalised, mapped, and normalised
// again for each head of queries, keys and values. The backward computes everything in between again.

struct ProjectionWeights {
  const Weights *v = nullptr, *s = nullptr;
  Tensor bias;  ///< of scalars; undefined means none
};

/// With lorentz_norm as in its header:
///
///     (nv, ns) = lorentz_norm(v, s) of all channels if `normalise`, else (v, s)
///     (yv, ys) = lorentz_norm(nv w_v^T, ns w_s^T + bias) of each of `groups` groups of channels
///
///   v   [T, 4, V]     w_v [G Cv, V]    yv [T, 4, G Cv]
///   s   [T, S]        w_s [G Cs, S]    ys [T, G Cs]       bias [G Cs]
///
/// v, s, weights and bias are of one dtype (f64, f32, bf16), with products as in matmul.h; yv and ys are of that, or both
/// bf16 where products of f32 are. Row t of the results depends on row t of v and s alone, bit by bit.
/// Throws Error if a shape or dtype differs.
void normed_projection(Context& ctx, const Tensor& v, const Tensor& s, const ProjectionWeights& w, bool normalise,
                       int64_t groups, double eps, Tensor& yv, Tensor& ys);

/// What to write, overwritten; weights' gradients where not nullptr.
struct ProjectionGradients {
  Tensor *dv = nullptr, *ds = nullptr;
  Tensor *w_v = nullptr, *w_s = nullptr, *bias = nullptr;
};

/// dyv and dys have the dtype of yv. `add_v`, `add_s`: other gradients of v and s, as residual connections have them, which
/// dv and ds will contain (and may be), or undefined tensors. Sums over tokens run over fixed blocks, combined in order.
void normed_projection_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                                const ProjectionWeights& w, bool normalise, int64_t groups, double eps,
                                const Tensor& add_v, const Tensor& add_s, const ProjectionGradients& gradients);

}  // namespace lightcone::kernels
