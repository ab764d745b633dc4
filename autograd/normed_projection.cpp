#include "autograd/normed_projection.h"

#include "autograd/weights.h"
#include "kernels/normed_projection.h"

namespace lightcone {

LorentzVar normed_projection(const LorentzVar& x, const ProjectionWeights& w, const ProjectionOptions& o) {
  Tape& tape = x.vectors.tape();
  Context& ctx = tape.context();
  const Tensor v = x.vectors.value(), s = x.scalars.value();
  auto result = [&](const Tensor& in, const Var& weights) {
    Shape shape = in.shape();
    if (shape.rank() && weights.shape().rank()) shape[-1] = weights.dim(0);  // else the kernel refuses them
    return ctx.empty(shape, o.result.value_or(in.dtype()));
  };
  Tensor yv = result(v, w.v), ys = result(s, w.s);
  const auto weights_v = tape.weights(w.v), weights_s = tape.weights(w.s);
  auto weights = [=, bias = w.bias.value()] {
    return kernels::ProjectionWeights{weights_v.get(), weights_s.get(), bias};
  };
  kernels::normed_projection(ctx, v, s, weights(), o.normalise, o.groups, o.eps, yv, ys);

  const std::vector<Slot> slots = {x.vectors.slot(), x.scalars.slot(), w.v.slot(), w.s.slot(), w.bias.slot()};
  auto y = tape.record("normed_projection", {yv, ys}, slots, [=](const std::vector<Tensor>& dy, Grads& grads) {
    Context& ctx = grads.context();
    const Tensor add_v = grads.take(slots[0]), add_s = grads.take(slots[1]);
    // Gradients of x that nobody wants go to scratch.
    Tensor *dv = grads.want(slots[0]), *ds = grads.want(slots[1]), spare_v, spare_s;
    if (!dv) spare_v = ctx.empty(v.shape(), v.dtype()), dv = &spare_v;
    if (!ds) spare_s = ctx.empty(s.shape(), s.dtype()), ds = &spare_s;
    kernels::normed_projection_backward(
        ctx, dy[0], dy[1], v, s, weights(), o.normalise, o.groups, o.eps, add_v, add_s,
        {.dv = dv, .ds = ds, .w_v = grads.want(slots[2]), .w_s = grads.want(slots[3]), .bias = grads.want(slots[4])});
  });
  return {y[0], y[1]};
}

}  // namespace lightcone
