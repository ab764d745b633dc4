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

}  // namespace lightcone
