#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

// Linear maps and general matrix products. Everything is row-major; T stands for the product of all leading axes of x,
// so that [T, 4, C] vectors are 4T rows.
//
//   x  [T, K]   f64, f32 or bf16          y, pre, residual, dy  [T, N]   the dtype of x, or f32 for bf16 x and w
//   w  [N, K]   the dtype of x            b  [N]   the dtype of y; an undefined tensor means none
//
// Sums run in f64 for f64 operands, else in f32. Row t of y (and of dx) depends on row t of x (dy) and on w and b
// alone, bit by bit: a jet's score does not change with its batch. Weight gradients are summed over fixed blocks of
// tokens, combined in order; all bits are independent of the number of threads. T, N and K may be 0 (a sum over
// nothing is 0). Throws Error if a shape or dtype differs.

/// y = x w^T + b
void linear(Context& ctx, const Tensor& x, const Tensor& w, const Tensor& b, Tensor& y);

/// pre = x w^T + b,  y = gelu(pre) (exact, see elementwise_math.h). `pre` is for the backward; undefined if not needed.
void linear_gelu(Context& ctx, const Tensor& x, const Tensor& w, const Tensor& b, Tensor& pre, Tensor& y);

/// y = residual + (x w^T + b). y may be residual.
void linear_residual(Context& ctx, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual,
                     Tensor& y);

///     dx = dy w,    dw = dy^T x,    db = sum over t of dy[t],    each of them if not nullptr, overwritten
///
/// dx, dw, db have the dtype of dy; for f32 dy with bf16 x and w the products take dy rounded to bf16, db does not.
void linear_backward(Context& ctx, const Tensor& dy, const Tensor& x, const Tensor& w, Tensor* dx, Tensor* dw,
                     Tensor* db);

/// The same with gelu'(pre) dy, computed block by block, in place of dy.
void linear_gelu_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Tensor& w,
                          Tensor* dx, Tensor* dw, Tensor* db);

/// c[M, N] = op(a) op(b), op the transpose where asked: a is [M, K] or [K, M], b is [K, N] or [N, K]. Two axes each;
/// c has the dtype of a and b, or f32 if they are bf16.
void matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor& c);

}  // namespace lightcone::kernels
