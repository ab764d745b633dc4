#include "autograd/gated_mlp.h"

#include "autograd/weights.h"
#include "kernels/gated_mlp.h"

namespace lightcone {

LorentzVar gated_mlp(const LorentzVar& x, const GatedMlpWeights& w, double eps, Unary f) {
  Tape& tape = x.scalars.tape();
  Context& ctx = tape.context();
  const bool vectors = w.up_v.value().defined();
  const Tensor v = x.vectors.value(), s = x.scalars.value();
  Tensor yv = vectors ? ctx.empty(v.shape(), v.dtype()) : Tensor(), ys = ctx.empty(s.shape(), s.dtype());
  std::shared_ptr<const kernels::Weights> up_v, down_v;
  if (vectors) up_v = tape.weights(w.up_v), down_v = tape.weights(w.down_v);
  const auto up_s = tape.weights(w.up_s), down_s = tape.weights(w.down_s);
  auto weights_v = [=] { return kernels::GatedWeights{up_v.get(), down_v.get(), {}, {}}; };
  auto weights_s = [=, up_bias = w.up_bias.value(), down_bias = w.down_bias.value()] {
    return kernels::GatedWeights{up_s.get(), down_s.get(), up_bias, down_bias};
  };
  kernels::gated_mlp(ctx, v, s, weights_v(), weights_s(), eps, f, yv, ys);

  const std::vector<Slot> slots = {x.vectors.slot(), x.scalars.slot(), w.up_v.slot(),   w.down_v.slot(),
                                   w.up_s.slot(),    w.up_bias.slot(), w.down_s.slot(), w.down_bias.slot()};
  auto backward = [=](const std::vector<Tensor>& dy, Grads& grads) {
    Context& ctx = grads.context();
    // Gradients of x that nobody wants go to scratch.
    Tensor *dv = grads.want(slots[0]), *ds = grads.want(slots[1]), spare_v, spare_s;
    if (!dv) spare_v = ctx.empty(v.shape(), v.dtype()), dv = &spare_v;
    if (!ds) spare_s = ctx.empty(s.shape(), s.dtype()), ds = &spare_s;
    kernels::gated_mlp_backward(ctx, vectors ? dy[1] : Tensor(), dy[0], v, s, weights_v(), weights_s(), eps, f,
                                {.dv = dv,
                                 .ds = ds,
                                 .up_v = grads.want(slots[2]),
                                 .down_v = grads.want(slots[3]),
                                 .up_s = grads.want(slots[4]),
                                 .up_bias = grads.want(slots[5]),
                                 .down_s = grads.want(slots[6]),
                                 .down_bias = grads.want(slots[7])});
  };
  std::vector<Tensor> ys_and_vs = {ys};
  if (vectors) ys_and_vs.push_back(yv);
  const std::vector<Var> y = tape.record("gated_mlp", ys_and_vs, slots, backward);
  return {vectors ? y[1] : Var{}, y[0]};
}

}  // namespace lightcone
