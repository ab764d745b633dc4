#pragma once
#include "kernels/matmul.h"

// For CUDA sources alone: the three products of a linear map [N, K], each with whatever dtype comes before and after it
// (matmul.cu). Factors are rounded to w.products(). Results may have the dtype in which those are summed, or bf16 where
// products are. Rows are all leading axes; N, K and the number of rows may be 0.
namespace lightcone::kernels::cuda {

/// t in `dtype`; a copy if that is another.
Tensor rounded(Context& ctx, const Tensor& t, DType dtype);

/// y = x w^T + b + add    (b and add undefined: none; b of any dtype, add like y; add may be y)
void product(Context& ctx, const char* where, const Tensor& x, const Weights& w, const Tensor& b, const Tensor& add,
             Tensor& y);
/// dx = dy w + add    (add undefined: none; like dx, may be dx)
void product_backward(Context& ctx, const char* where, const Tensor& dy, const Weights& w, const Tensor& add,
                      Tensor& dx);
/// dw = dy^T x
void product_weights(Context& ctx, const char* where, const Tensor& dy, const Tensor& x, const Weights& w, Tensor& dw);

/// y[n] = sum over rows of x[t, n]; y of the dtype of x, or the other one of f32 and bf16 (reduce.cu).
void column_sums(Context& ctx, const char* where, const Tensor& x, Tensor& y);

}  // namespace lightcone::kernels::cuda
