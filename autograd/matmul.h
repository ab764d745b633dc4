#pragma once
#include <optional>

#include "autograd/tape.h"

namespace lightcone {

// Linear maps x w^T + b of the last axis of x [..., K] with w [N, K] and b [N] (Var{} = none), and matrix products; see
// kernels/matmul.h. Under tape.amp() the factors of products of f32 tensors are rounded to bf16, in the forward and in
// the backward; then x may be bf16, too. Results have the dtype of w.

/// x w^T + b, in `result` if given: tape.factors() where products alone read it.
Var linear(const Var& x, const Var& w, const Var& b, std::optional<DType> result = {});
/// gelu(x w^T + b), the exact one.
Var linear_gelu(const Var& x, const Var& w, const Var& b);
/// residual + (x w^T + b)
Var linear_residual(const Var& x, const Var& w, const Var& b, const Var& residual);
/// residual + (gelu(x w1^T + b1) w2^T + b2), see kernels/mlp.h
Var mlp(const Var& x, const Var& w1, const Var& b1, const Var& w2, const Var& b2, const Var& residual);

/// op(a) op(b), op the transpose where asked.
Var matmul(const Var& a, const Var& b, bool transpose_a = false, bool transpose_b = false);

}  // namespace lightcone
