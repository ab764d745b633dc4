#include "autograd/random.h"

#include "kernels/random.h"

namespace lightcone {

Var dropout(const Var& x, double p) {
  // Checked here as well, so that a wrong p does not wait for the first training step to be found.
  if (!(p >= 0 && p < 1)) fail("dropout", "p is {}, expected 0 <= p < 1", p);
  if (!x.tape().training() || p == 0) return x;
  Context& ctx = x.context();
  const Draw draw = ctx.rng().draw("dropout", x.value().numel());
  Tensor y = ctx.empty(x.shape(), x.dtype());
  kernels::dropout(ctx, draw, p, x.value(), y);
  return x.tape().record("dropout", y, {x.slot()}, [draw, p, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::dropout(grads.context(), draw, p, dy, *dx);
  });
}

}  // namespace lightcone
