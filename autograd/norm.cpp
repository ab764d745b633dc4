#include "autograd/norm.h"

#include "kernels/norm.h"

namespace lightcone {

Var layer_norm(const Var& x, double eps) {
  Context& ctx = x.context();
  const int64_t T = x.dim(0);
  Tensor y = ctx.empty(x.shape(), x.dtype());
  Tensor mean = ctx.empty({T}, sum_dtype(x.dtype())), rstd = ctx.empty({T}, sum_dtype(x.dtype()));
  kernels::layer_norm(ctx, x.value(), eps, y, mean, rstd);
  return x.tape().record("layer_norm", y, {x.slot()},
                         [=, to = x.slot(), value = x.value()](const Tensor& dy, Grads& grads) {
                           if (Tensor* dx = grads.want(to))
                             kernels::layer_norm_backward(grads.context(), dy, value, mean, rstd, *dx);
                         });
}

Var rms_norm(const Var& x, double eps) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(x.shape(), x.dtype()), rstd = ctx.empty({x.dim(0)}, sum_dtype(x.dtype()));
  kernels::rms_norm(ctx, x.value(), eps, y, rstd);
  return x.tape().record("rms_norm", y, {x.slot()},
                         [=, to = x.slot(), value = x.value()](const Tensor& dy, Grads& grads) {
                           if (Tensor* dx = grads.want(to))
                             kernels::rms_norm_backward(grads.context(), dy, value, rstd, *dx);
                         });
}

}  // namespace lightcone
