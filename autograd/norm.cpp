#include "autograd/norm.h"

#include "kernels/norm.h"

namespace lightcone {

namespace {
using Forward = decltype(kernels::layer_norm);
using Backward = decltype(kernels::layer_norm_backward);

// The last axis cut into rows of `group`; an x that is none is for the kernel to refuse.
Shape rows_of(const Var& x, int64_t group) {
  if (x.shape().rank() != 2 || x.dim(1) == group) return x.shape();
  if (group < 1 || x.dim(1) % group)
    fail("layer_norm", "groups of {} columns, expected a divisor of {}", group, x.dim(1));
  return {x.dim(0) * (x.dim(1) / group), group};
}

Var norm(const char* name, Forward* forward, Backward* backward, const Var& x, double eps, DType result,
         const Shape& rows) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(rows, result), rstd = ctx.empty({rows[0]}, sum_dtype(x.dtype()));
  forward(ctx, x.value().reshape(rows), eps, y, rstd);
  return x.tape().record(name, y.reshape(x.shape()), {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    const Tensor others = grads.take(to);
    Tensor* wanted = grads.want(to);
    if (!wanted) return;
    Tensor dx = wanted->reshape(rows);
    backward(grads.context(), dy.reshape(rows), y, rstd, others.defined() ? others.reshape(rows) : others, dx);
  });
}
}  // namespace

Var layer_norm(const Var& x, double eps, std::optional<DType> result) {
  return norm("layer_norm", kernels::layer_norm, kernels::layer_norm_backward, x, eps, result.value_or(x.dtype()),
              x.shape());
}

Var group_norm(const Var& x, int64_t group, double eps, std::optional<DType> result) {
  return norm("layer_norm", kernels::layer_norm, kernels::layer_norm_backward, x, eps, result.value_or(x.dtype()),
              rows_of(x, group));
}

Var rms_norm(const Var& x, double eps, std::optional<DType> result) {
  return norm("rms_norm", kernels::rms_norm, kernels::rms_norm_backward, x, eps, result.value_or(x.dtype()), x.shape());
}

}  // namespace lightcone
