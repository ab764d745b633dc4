#pragma once
#include "autograd/tape.h"

namespace lightcone {

// Mean losses of shape [1]; see kernels/loss.h. Targets get no gradient.

/// Targets in [0, 1], shape and dtype of the logits.
Var bce_with_logits(const Var& logits, const Tensor& targets);
/// Logits [B, C], labels [B] i64.
Var cross_entropy(const Var& logits, const Tensor& labels);
Var mse(const Var& predictions, const Tensor& targets);

}  // namespace lightcone
