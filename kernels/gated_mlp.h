#pragma once
#include "kernels/elementwise.h"
#include "kernels/matmul.h"

namespace lightcone::kernels {

// The feed-forward half of a block of L-GATr-slim (Petitjean, Plehn, Spinner, Köthe, arXiv:2512.17011). On the CPU in
// one pass over the tokens: nothing in between goes to memory, and the backward computes it again, which takes less
// time than its way there and back. On a GPU it is scratch, and computed again as well.

/// A two-layer perceptron: x -> gated unit of (x up^T + up_bias) -> its result times down^T, + down_bias.
struct GatedWeights {
  const Weights *up = nullptr, *down = nullptr;
  Tensor up_bias, down_bias;  ///< undefined means none; vectors have none
};

/// With (nv, ns) = lorentz_norm(v, s) of all channels and gated_unit with f, as in the headers of those names:
///
///     yv = v + gated_unit(nv up_v^T) down_v^T
///     ys = s + gated_unit(ns up_s^T + up_bias) down_s^T + down_bias
///
///   v, yv     [T, 4, V]    up_v [3 Hv, V]    down_v [V, Hv]
///   s, ys     [T, S]       up_s [2 Hs, S]    down_s [S, Hs]    up_bias [2 Hs]    down_bias [S]
///
/// All of one dtype (f64, f32, bf16) and precision as in matmul.h. Vectors without weights (up and down are nullptr, yv
/// undefined) only enter the norm. yv and ys may be v and s. Row t of the results depends on row t of v and s alone,
/// bit by bit.
/// Throws Error if a shape or dtype differs.
void gated_mlp(Context& ctx, const Tensor& v, const Tensor& s, const GatedWeights& vectors, const GatedWeights& scalars,
               double eps, Unary f, Tensor& yv, Tensor& ys);

/// d loss / d v and d s (residual connections included) and, where not nullptr, of the weights; overwritten. dv and ds
/// may be dyv and dys.
struct GatedMlpGradients {
  Tensor *dv = nullptr, *ds = nullptr;
  Tensor *up_v = nullptr, *down_v = nullptr, *up_s = nullptr, *up_bias = nullptr, *down_s = nullptr,
         *down_bias = nullptr;
};

/// Sums over tokens run over fixed blocks, combined in order. dyv is undefined where yv was.
void gated_mlp_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                        const GatedWeights& vectors, const GatedWeights& scalars, double eps, Unary f,
                        const GatedMlpGradients& gradients);

}  // namespace lightcone::kernels
