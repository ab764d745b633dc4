#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

/// Layer normalisation over the last axis, without affine parameters.
///
///     y[t,c] = (x[t,c] - mean[t]) rstd[t],    rstd[t] = 1 / sqrt(var[t] + eps)
///
/// mean and biased variance over c (Ba, Kiros, Hinton, arXiv:1607.06450, eq. 4).
///
///   x           [T, C]   f64, f32 or bf16
///   y           [T, C]   the dtype of x, or bf16 for f32 where bf16 products alone read it; may be x
///   rstd        [T]      f64 for f64 input, else f32; the backward reads it
///
/// Sums run in the dtype of rstd, in an order that depends on C alone. T = 0 writes nothing.
/// Throws Error if C = 0 or a shape or dtype differs.
void layer_norm(Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd);

///     dx = add + rstd (dy - <dy> - y <dy y>),    < > the mean over c
///
/// dy has the dtype of y. `add`: another gradient of x, as a residual connection has it, or an undefined tensor.
/// Overwrites dx, which may be add, or dy where their dtypes are the same.
void layer_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, const Tensor& add,
                         Tensor& dx);

/// Root mean square normalisation over the last axis, without affine parameters.
///
///     y[t,c] = x[t,c] rstd[t],    rstd[t] = 1 / sqrt(<x^2>[t] + eps)
///
/// < > the mean over c (Zhang, Sennrich, arXiv:1910.07467, eq. 4). Operands and errors as in layer_norm.
void rms_norm(Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd);

///     dx = add + rstd (dy - y <dy y>)
///
/// Operands as in layer_norm_backward.
void rms_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, const Tensor& add,
                       Tensor& dx);

}  // namespace lightcone::kernels
