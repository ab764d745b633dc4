#include "autograd/lorentz_norm.h"

#include "kernels/lorentz_norm.h"

namespace lightcone {

LorentzVar lorentz_norm(const LorentzVar& x, double eps, int64_t groups) {
  Context& ctx = x.vectors.context();
  const Tensor v = x.vectors.value(), s = x.scalars.value();
  Tensor yv = ctx.empty(v.shape(), v.dtype()), ys = ctx.empty(s.shape(), s.dtype());
  kernels::lorentz_norm(ctx, v, s, groups, eps, yv, ys);
  const Slot to_v = x.vectors.slot(), to_s = x.scalars.slot();
  auto y =
      x.vectors.tape().record("lorentz_norm", {yv, ys}, {to_v, to_s}, [=](const std::vector<Tensor>& dy, Grads& grads) {
        Context& ctx = grads.context();
        // One that nobody wants goes to scratch.
        Tensor *dv = grads.want(to_v), *ds = grads.want(to_s), none;
        if (!dv) none = ctx.empty(v.shape(), v.dtype()), dv = &none;
        if (!ds) none = ctx.empty(s.shape(), s.dtype()), ds = &none;
        kernels::lorentz_norm_backward(ctx, dy[0], dy[1], v, s, groups, eps, *dv, *ds);
      });
  return {y[0], y[1]};
}

}  // namespace lightcone
