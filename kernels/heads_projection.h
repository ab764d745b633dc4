#pragma once
#include "kernels/matmul.h"

namespace lightcone::kernels {

// The ways of Lorentz vectors and scalars into the attention of L-GATr-slim and out of it (Petitjean, Plehn, Spinner,
// Köthe, arXiv:2512.17011), each in one pass over the tokens on the CPU. Attention sees each head, or group, in one
// piece, y [G, T, D] with D = 4 Cv + Cs (Layout::heads):
//
//     y[g, t, p Cv + c]        component p of vector channel g Cv + c
//     y[g, t, 4 Cv + c]        scalar channel g Cs + c

/// Groups from lowered_begin to lowered_end, the keys, have vectors with lowered index, (E, -px, -py, -pz): the sum of
/// products with another group's features is then the Minkowski product of vectors plus the product of scalars.
struct HeadGroups {
  int64_t count = 1, lowered_begin = 0, lowered_end = 0;
};

struct ProjectionWeights {
  const Weights *v = nullptr, *s = nullptr;
  Tensor bias;  ///< of scalars; undefined means none
};

/// With lorentz_norm as in its header:
///
///     (nv, ns) = lorentz_norm(v, s) of all channels if `normalise`, else (v, s)
///     y        = lorentz_norm(nv w_v^T, ns w_s^T + bias) of each of G groups of channels
///
///   v   [T, 4, V]    w_v [G Cv, V]
///   s   [T, S]       w_s [G Cs, S]    bias [G Cs]    y [G, T, 4 Cv + Cs]
///
/// v, s, weights and bias are of one dtype (f64, f32, bf16), with products as in matmul.h; y is of that, or bf16 where
/// products of f32 are. Row t of the result depends on row t of v and s alone, bit by bit.
/// Throws Error if a shape or dtype differs.
void project_to_heads(Context& ctx, const Tensor& v, const Tensor& s, const ProjectionWeights& w, bool normalise,
                      const HeadGroups& groups, double eps, Tensor& y);

/// What to write, overwritten; weights' gradients where not nullptr.
struct ProjectionGradients {
  Tensor *dv = nullptr, *ds = nullptr;
  Tensor *w_v = nullptr, *w_s = nullptr, *bias = nullptr;
};

/// Computes what is in between again. dy has the dtype of y. `add_v`, `add_s`: other gradients of v and s, as residual
/// connections have them, which dv and ds will contain (and may be), or undefined tensors. Sums over tokens run over
/// fixed blocks, combined in order.
void project_to_heads_backward(Context& ctx, const Tensor& dy, const Tensor& v, const Tensor& s,
                               const ProjectionWeights& w, bool normalise, const HeadGroups& groups, double eps,
                               const Tensor& add_v, const Tensor& add_s, const ProjectionGradients& gradients);

/// Of the vectors (xv [T, 4, H Cv]) and scalars (xs [T, H Cs]) of H heads x [H, T, 4 Cv + Cs]:
///
///     yv = residual_v + xv w_v^T           yv, residual_v [T, 4, V]    w_v [V, H Cv]
///     ys = residual_s + xs w_s^T + bias    ys, residual_s [T, S]       w_s [S, H Cs]    bias [S]
///
/// x has the dtype that y has above. Both residuals are undefined for none, or may be yv and ys.
void project_from_heads(Context& ctx, const Tensor& x, const ProjectionWeights& w, const Tensor& residual_v,
                        const Tensor& residual_s, Tensor& yv, Tensor& ys);

struct FromHeadsGradients {
  Tensor *dx = nullptr, *w_v = nullptr, *w_s = nullptr, *bias = nullptr;
};

/// Overwritten, each where not nullptr. Those of the residuals are dyv and dys.
void project_from_heads_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& x,
                                 const ProjectionWeights& w, const FromHeadsGradients& gradients);

}  // namespace lightcone::kernels
