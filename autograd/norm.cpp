#include "autograd/norm.h"

#include "kernels/norm.h"

namespace lightcone {

namespace {
using Forward = decltype(kernels::layer_norm);
using Backward = decltype(kernels::layer_norm_backward);

Var norm(const char* name, Forward* forward, Backward* backward, const Var& x, double eps, DType result) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(x.shape(), result), rstd = ctx.empty({x.dim(0)}, sum_dtype(x.dtype()));
  forward(ctx, x.value(), eps, y, rstd);
  return x.tape().record(name, y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    const Tensor others = grads.take(to);
    if (Tensor* dx = grads.want(to)) backward(grads.context(), dy, y, rstd, others, *dx);
  });
}
}  // namespace

Var layer_norm(const Var& x, double eps, std::optional<DType> result) {
  return norm("layer_norm", kernels::layer_norm, kernels::layer_norm_backward, x, eps, result.value_or(x.dtype()));
}

Var rms_norm(const Var& x, double eps, std::optional<DType> result) {
  return norm("rms_norm", kernels::rms_norm, kernels::rms_norm_backward, x, eps, result.value_or(x.dtype()));
}

}  // namespace lightcone
