#include "autograd/matmul.h"

#include "kernels/elementwise.h"
#include "kernels/matmul.h"

namespace lightcone {
namespace {

// The operand of a product: under amp an f32 tensor rounded to bf16, else the tensor itself.
Tensor operand(Context& ctx, bool amp, const Tensor& t) {
  if (!amp || t.dtype() != DType::f32) return t;
  Tensor rounded = ctx.empty(t.shape(), DType::bf16);
  kernels::cast(ctx, t, rounded);
  return rounded;
}
Tensor operand(const Var& v) { return operand(v.context(), v.tape().amp(), v.value()); }

Tensor result_of_linear(const Var& x, const Var& w) {
  Shape shape = x.shape();
  if (shape.rank() && w.shape().rank()) shape[-1] = w.dim(0);  // else the kernel refuses them
  return x.context().empty(shape, x.dtype());
}

}  // namespace

Var linear(const Var& x, const Var& w, const Var& b) {
  Tensor y = result_of_linear(x, w);
  const Tensor xo = operand(x), wo = operand(w);
  kernels::linear(x.context(), xo, wo, b.value(), y);
  return x.tape().record("linear", y, {x.slot(), w.slot(), b.slot()},
                         [=, x = x.slot(), w = w.slot(), b = b.slot()](const Tensor& dy, Grads& grads) {
                           kernels::linear_backward(grads.context(), dy, xo, wo, grads.want(x), grads.want(w),
                                                    grads.want(b));
                         });
}

Var linear_gelu(const Var& x, const Var& w, const Var& b) {
  Tensor y = result_of_linear(x, w);
  Tensor pre = x.tape().training() ? x.context().empty(y.shape(), y.dtype()) : Tensor{};
  const Tensor xo = operand(x), wo = operand(w);
  kernels::linear_gelu(x.context(), xo, wo, b.value(), pre, y);
  return x.tape().record("linear_gelu", y, {x.slot(), w.slot(), b.slot()},
                         [=, x = x.slot(), w = w.slot(), b = b.slot()](const Tensor& dy, Grads& grads) {
                           kernels::linear_gelu_backward(grads.context(), dy, pre, xo, wo, grads.want(x), grads.want(w),
                                                         grads.want(b));
                         });
}

Var linear_residual(const Var& x, const Var& w, const Var& b, const Var& residual) {
  Tensor y = result_of_linear(x, w);
  const Tensor xo = operand(x), wo = operand(w);
  kernels::linear_residual(x.context(), xo, wo, b.value(), residual.value(), y);
  return x.tape().record(
      "linear_residual", y, {x.slot(), w.slot(), b.slot(), residual.slot()},
      [=, x = x.slot(), w = w.slot(), b = b.slot(), residual = residual.slot()](const Tensor& dy, Grads& grads) {
        kernels::linear_backward(grads.context(), dy, xo, wo, grads.want(x), grads.want(w), grads.want(b));
        grads.pass(residual, dy);
      });
}

Var matmul(const Var& a, const Var& b, bool transpose_a, bool transpose_b) {
  Context& ctx = a.context();
  Shape shape;
  if (a.shape().rank() == 2 && b.shape().rank() == 2) shape = {a.dim(transpose_a ? 1 : 0), b.dim(transpose_b ? 0 : 1)};
  Tensor c = ctx.empty(shape, a.dtype());
  const Tensor ao = operand(a), bo = operand(b);
  kernels::matmul(ctx, ao, bo, transpose_a, transpose_b, c);
  return a.tape().record("matmul", c, {a.slot(), b.slot()},
                         [=, amp = a.tape().amp(), a = a.slot(), b = b.slot()](const Tensor& dc, Grads& grads) {
                           Context& ctx = grads.context();
                           const Tensor d = operand(ctx, amp, dc);
                           // da = dc op(b)^T or its transpose, db = op(a)^T dc or its transpose.
                           if (Tensor* da = grads.want(a)) {
                             if (transpose_a)
                               kernels::matmul(ctx, bo, d, transpose_b, true, *da);
                             else
                               kernels::matmul(ctx, d, bo, false, !transpose_b, *da);
                           }
                           if (Tensor* db = grads.want(b)) {
                             if (transpose_b)
                               kernels::matmul(ctx, d, ao, true, transpose_a, *db);
                             else
                               kernels::matmul(ctx, ao, d, !transpose_a, false, *db);
                           }
                         });
}

}  // namespace lightcone
