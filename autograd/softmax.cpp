#include "autograd/softmax.h"

#include "kernels/softmax.h"

namespace lightcone {

Var softmax(const Var& x) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(x.shape(), x.dtype());
  kernels::softmax(ctx, x.value(), y);
  return x.tape().record("softmax", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::softmax_backward(grads.context(), dy, y, *dx);
  });
}

Var log_softmax(const Var& x) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(x.shape(), x.dtype());
  kernels::log_softmax(ctx, x.value(), y);
  return x.tape().record("log_softmax", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::log_softmax_backward(grads.context(), dy, y, *dx);
  });
}

}  // namespace lightcone
