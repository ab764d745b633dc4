#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

/// Softmax and its logarithm over the last axis.
///
///     softmax:      y[t,c] = exp(x[t,c] - max[t]) / sum over c of exp(x[t,c] - max[t])
///     log_softmax:  y[t,c] = x[t,c] - max[t] - log sum over c of exp(x[t,c] - max[t])
///
///   x, y   [T, C]   f64, f32 or bf16; may alias
///
/// Sums run in f64 for f64, else in f32, in an order that depends on C alone. Entries of -inf get probability 0; a row
/// with NaN or +inf, or of -inf alone, becomes NaN. T = 0 writes nothing.
/// Throws Error if C = 0 or a shape or dtype differs.
void softmax(Context& ctx, const Tensor& x, Tensor& y);
void log_softmax(Context& ctx, const Tensor& x, Tensor& y);

///     softmax:      dx = y (dy - sum over c of y dy)
///     log_softmax:  dx = dy - exp(y) sum over c of dy
///
/// Reads the result y of the forward; dx may alias dy.
void softmax_backward(Context& ctx, const Tensor& dy, const Tensor& y, Tensor& dx);
void log_softmax_backward(Context& ctx, const Tensor& dy, const Tensor& y, Tensor& dx);

}  // namespace lightcone::kernels
