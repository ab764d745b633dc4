#include "autograd/norm.h"

#include "kernels/norm.h"

namespace lightcone {

Var layer_norm(const Var& x, double eps) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(x.shape(), x.dtype()), rstd = ctx.empty({x.dim(0)}, sum_dtype(x.dtype()));
  kernels::layer_norm(ctx, x.value(), eps, y, rstd);
  return x.tape().record("layer_norm", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    const Tensor others = grads.take(to);
    if (Tensor* dx = grads.want(to)) kernels::layer_norm_backward(grads.context(), dy, y, rstd, others, *dx);
  });
}

Var rms_norm(const Var& x, double eps) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(x.shape(), x.dtype()), rstd = ctx.empty({x.dim(0)}, sum_dtype(x.dtype()));
  kernels::rms_norm(ctx, x.value(), eps, y, rstd);
  return x.tape().record("rms_norm", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    const Tensor others = grads.take(to);
    if (Tensor* dx = grads.want(to)) kernels::rms_norm_backward(grads.context(), dy, y, rstd, others, *dx);
  });
}

}  // namespace lightcone
