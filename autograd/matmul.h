#pragma once
#include "autograd/tape.h"

namespace lightcone {

// Linear maps x w^T + b of the last axis of x [..., K] with w [N, K] and b [N] (Var{} = none), and matrix products; see
// kernels/matmul.h. Under tape.amp() f32 operands are rounded to bf16 for the forward product and for both products of
// the backward; results, biases, residuals and gradients stay f32, and x is kept in bf16.

Var linear(const Var& x, const Var& w, const Var& b);
/// gelu(x w^T + b), the exact one.
Var linear_gelu(const Var& x, const Var& w, const Var& b);
/// residual + (x w^T + b)
Var linear_residual(const Var& x, const Var& w, const Var& b, const Var& residual);

/// op(a) op(b), op the transpose where asked.
Var matmul(const Var& a, const Var& b, bool transpose_a = false, bool transpose_b = false);

}  // namespace lightcone
