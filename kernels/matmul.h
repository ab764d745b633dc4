#pragma once
#include <memory>
#include <mutex>

#include "engine/context.h"

namespace lightcone::kernels {

// Linear maps and general matrix products. Everything is row-major; T stands for the product of all leading axes of x,
// so that [T, 4, C] vectors are 4T rows.
//
//   w  [N, K]   f64, f32 or bf16          b  [N]   the dtype of w; an undefined tensor means none
//   x  [T, K]   the dtype of w            y, pre, residual, dy  [T, N]   the dtype of w
//
// Products of f64 run in f64, all others are summed in f32 (gemm.h says how those of f32 use AMX tiles, and how exact
// they are; a GPU rounds their factors to tf32 where Context::tf32() says so). Those of f32 weights can be asked for
// in bf16: then both factors are rounded to bf16, and nothing else. In that case x may be a bf16 tensor, and so may y:
// half of the memory for activations that products alone read. dx has the dtype of x, and dy, pre and residual that
// of y.
//
// Row t of y (and of dx) depends on row t of x (dy) and on w and b alone, bit by bit: a jet's score does not change
// with its batch. Weight gradients are summed over fixed blocks of tokens, combined in order; all bits are independent
// of the number of threads. T, N and K may be 0 (a sum over nothing is 0).
// Throws Error if a shape or dtype differs.

/// The weights w [N, K] of a linear map and the orders in which its products read them, each made when first needed and
/// kept: as long as w does not change, one Weights can serve many calls and several threads.
class Weights {
 public:
  /// `products`: the dtype in which factors are multiplied: that of w, or bf16 for f32 w. `home`: where the reordered
  /// weights are allocated; by default in the Context of the call that first needs them.
  Weights(Tensor w, DType products, Context* home = nullptr);
  Weights(Tensor w) : Weights(w, w.dtype()) {}
  const Tensor& tensor() const { return w_; }
  DType products() const { return products_; }

  /// gemm::Panels<P> of w^T (for x w^T) and of w (for dy w); P is the type of products().
  template <class P>
  const auto& of_transpose(Context& ctx) const;
  template <class P>
  const auto& of_weights(Context& ctx) const;
  /// On a GPU: w in the dtype of products().
  const Tensor& factor(Context& ctx) const;

 private:
  template <class P>
  const auto& panels(Context& ctx, bool transposed) const;
  Tensor w_;
  DType products_;
  Context* home_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const void> panels_[2];
};

/// y = x w^T + b
void linear(Context& ctx, const Tensor& x, const Weights& w, const Tensor& b, Tensor& y);

/// pre = x w^T + b,  y = gelu(pre) (exact, see elementwise_math.h). `pre` is for the backward; undefined if not needed.
void linear_gelu(Context& ctx, const Tensor& x, const Weights& w, const Tensor& b, Tensor& pre, Tensor& y);

/// y = residual + (x w^T + b). y may be residual.
void linear_residual(Context& ctx, const Tensor& x, const Weights& w, const Tensor& b, const Tensor& residual,
                     Tensor& y);

///     dx = dy w,    dw = dy^T x,    db = sum over t of dy[t],    each of them if not nullptr, overwritten
///
/// dw and db have the dtype of w. db is summed from dy as it is, also where products are in bf16.
void linear_backward(Context& ctx, const Tensor& dy, const Tensor& x, const Weights& w, Tensor* dx, Tensor* dw,
                     Tensor* db);

/// The same with gelu'(pre) dy, computed block by block, in place of dy.
void linear_gelu_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Weights& w,
                          Tensor* dx, Tensor* dw, Tensor* db);

/// c[M, N] = op(a) op(b), op the transpose where asked: a is [M, K] or [K, M], b is [K, N] or [N, K]. Two axes each, of
/// one dtype. Factors are multiplied in `products`: that dtype, or bf16 for f32.
void matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor& c,
            DType products);
inline void matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor& c) {
  matmul(ctx, a, b, transpose_a, transpose_b, c, a.dtype());
}

}  // namespace lightcone::kernels
