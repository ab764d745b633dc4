#include "autograd/gated_unit.h"

#include "kernels/gated_unit.h"

namespace lightcone {

Var gated_unit(const Var& x, Unary f) {
  Shape shape = x.shape();
  if (shape.rank()) shape[-1] /= shape.rank() == 3 ? 3 : 2;  // else the kernel refuses it
  Tensor y = x.context().empty(shape, x.dtype());
  kernels::gated_unit(x.context(), x.value(), f, y);
  return x.tape().record("gated_unit", y, {x.slot()},
                         [=, in = x.value(), to = x.slot()](const Tensor& dy, Grads& grads) {
                           if (Tensor* dx = grads.want(to))
                             kernels::gated_unit_backward(grads.context(), dy, in, f, *dx);
                         });
}

}  // namespace lightcone
