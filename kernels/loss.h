#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

// Mean losses, written to a tensor of shape [1] in f64 for f64 predictions, else f32. Predictions are f64, f32 or bf16;
// sums run in f64 in an order that depends on the shape alone. The backward functions take dloss of the loss's shape
// and dtype and overwrite the gradient of the predictions. Throws Error if a shape or dtype differs, and if there is
// nothing to take the mean of.

/// Binary cross entropy of targets t in [0, 1] and logits x, without overflow at any x:
///
///     loss = <softplus(x) - t x>,    dx = dloss (sigmoid(x) - t) / n,    < > the mean over all n elements
///
///   logits, targets   any one shape and dtype
void bce_with_logits(Context& ctx, const Tensor& logits, const Tensor& targets, Tensor& loss);
void bce_with_logits_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& targets,
                              Tensor& dlogits);

/// Cross entropy of labels l and logits x [B, C]:
///
///     loss = <log sum_c exp(x[b,c]) - x[b,l[b]]>,    dx[b,c] = dloss (softmax(x[b])[c] - (c == l[b])) / B
///
///   labels [B]   i64, in [0, C). Others throw Error on the CPU; a GPU, which would have to be waited for, makes the
///                loss and the gradient of that row NaN
void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& labels, Tensor& loss);
void cross_entropy_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            Tensor& dlogits);

///     loss = <(x - t)²>,    dx = 2 dloss (x - t) / n
///
///   predictions x, targets t   any one shape and dtype
void mse(Context& ctx, const Tensor& predictions, const Tensor& targets, Tensor& loss);
void mse_backward(Context& ctx, const Tensor& dloss, const Tensor& predictions, const Tensor& targets,
                  Tensor& dpredictions);

}  // namespace lightcone::kernels
