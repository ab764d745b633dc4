#pragma once
#include "kernels/matmul.h"

namespace lightcone::kernels {

// The two-layer perceptron of a Transformer block with its residual. On the CPU in one pass over the tokens, whose
// hidden values never go to memory; on a GPU they are scratch. Shapes and precision as in matmul.h; all of one dtype,
// but x and dx may be bf16 where products of f32 weights are:
//
//   x [T, K]    w1 [H, K]  b1 [H]    w2 [N, H]  b2 [N]    residual, y, dy [T, N]    pre [T, H]

/// pre = x w1^T + b1,   y = residual + gelu(pre) w2^T + b2. `pre` is for the backward; undefined if not needed. y may
/// be residual.
void mlp(Context& ctx, const Tensor& x, const Weights& w1, const Tensor& b1, const Weights& w2, const Tensor& b2,
         const Tensor& residual, Tensor& pre, Tensor& y);

/// Gradients of mlp(), each of them if not nullptr, overwritten.
struct MlpGradients {
  Tensor *dx = nullptr, *dw1 = nullptr, *db1 = nullptr, *dw2 = nullptr, *db2 = nullptr;
};

///     dh = dy w2,    g = gelu'(pre) dh,    dx = g w1,    dw1 = g^T x,    db1 = sum_t g,
///     dw2 = dy^T gelu(pre),    db2 = sum_t dy                (d loss / d residual is dy)
///
/// An undefined `pre` is computed again: where products are fast (bf16), that takes less time than its way to memory.
/// The bits of a gradient do not depend on whether it was, nor on which others are wanted.
void mlp_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Weights& w1,
                  const Tensor& b1, const Weights& w2, const MlpGradients& gradients);

}  // namespace lightcone::kernels
