#include "autograd/heads_projection.h"

#include <algorithm>

#include "autograd/weights.h"

namespace lightcone {

namespace {

auto weights_of(Tape& tape, const ProjectionWeights& w) {
  return [v = tape.weights(w.v), s = tape.weights(w.s), bias = w.bias.value()] {
    return kernels::ProjectionWeights{v.get(), s.get(), bias};
  };
}

}  // namespace

Var project_to_heads(const LorentzVar& x, const ProjectionWeights& w, const ToHeadsOptions& o) {
  Tape& tape = x.vectors.tape();
  Context& ctx = tape.context();
  const Tensor v = x.vectors.value(), s = x.scalars.value();
  auto rows = [](const Var& w) { return w.shape().rank() ? w.dim(0) : 0; };  // else the kernel refuses them
  const int64_t tokens = v.rank() ? v.dim(0) : 0, G = std::max<int64_t>(1, o.groups.count);
  Tensor y = ctx.empty({G, tokens, (4 * rows(w.v) + rows(w.s)) / G}, o.result.value_or(v.dtype()));
  const auto weights = weights_of(tape, w);
  kernels::project_to_heads(ctx, v, s, weights(), o.normalise, o.groups, o.eps, y);

  const std::vector<Slot> slots = {x.vectors.slot(), x.scalars.slot(), w.v.slot(), w.s.slot(), w.bias.slot()};
  auto backward = [=](const Tensor& dy, Grads& grads) {
    Context& ctx = grads.context();
    const Tensor add_v = grads.take(slots[0]), add_s = grads.take(slots[1]);
    // Gradients of x that nobody wants go to scratch.
    Tensor *dv = grads.want(slots[0]), *ds = grads.want(slots[1]), spare_v, spare_s;
    if (!dv) spare_v = ctx.empty(v.shape(), v.dtype()), dv = &spare_v;
    if (!ds) spare_s = ctx.empty(s.shape(), s.dtype()), ds = &spare_s;
    kernels::project_to_heads_backward(
        ctx, dy, v, s, weights(), o.normalise, o.groups, o.eps, add_v, add_s,
        {.dv = dv, .ds = ds, .w_v = grads.want(slots[2]), .w_s = grads.want(slots[3]), .bias = grads.want(slots[4])});
  };
  return tape.record("project_to_heads", y, {slots[0], slots[1], slots[2], slots[3], slots[4]}, backward);
}

LorentzVar project_from_heads(const Var& x, const ProjectionWeights& w, const LorentzVar& residual) {
  Tape& tape = x.tape();
  Context& ctx = tape.context();
  auto rows = [](const Var& w) { return w.shape().rank() ? w.dim(0) : 0; };
  const int64_t tokens = x.shape().rank() > 1 ? x.dim(1) : 0;
  const DType dtype = w.v.dtype();
  Tensor yv = ctx.empty({tokens, 4, rows(w.v)}, dtype), ys = ctx.empty({tokens, rows(w.s)}, dtype);
  const auto weights = weights_of(tape, w);
  kernels::project_from_heads(ctx, x.value(), weights(), residual.vectors.value(), residual.scalars.value(), yv, ys);
  const std::vector<Slot> slots = {
      x.slot(), w.v.slot(), w.s.slot(), w.bias.slot(), residual.vectors.slot(), residual.scalars.slot()};
  auto y = tape.record("project_from_heads", {yv, ys}, slots,
                       [=, x = x.value()](const std::vector<Tensor>& dy, Grads& grads) {
                         kernels::project_from_heads_backward(grads.context(), dy[0], dy[1], x, weights(),
                                                              {.dx = grads.want(slots[0]),
                                                               .w_v = grads.want(slots[1]),
                                                               .w_s = grads.want(slots[2]),
                                                               .bias = grads.want(slots[3])});
                         grads.pass(slots[4], dy[0]);
                         grads.pass(slots[5], dy[1]);
                       });
  return {y[0], y[1]};
}

}  // namespace lightcone
