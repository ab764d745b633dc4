#include "autograd/checkpoint.h"

namespace lightcone {

Var checkpoint(const Var& x, const std::function<Var(const Var&)>& f) {
  Tape& outer = x.tape();
  if (!outer.training()) return f(x);
  Context& ctx = x.context();
  const Rng before = ctx.rng();
  Tensor y;
  {
    Tape tape(ctx, outer);
    y = f(tape.variable(x.value())).value();
  }
  // The slot is recorded even if x itself wants no gradient: f's parameters do.
  const Slot to = x.wants_grad() ? x.slot() : outer.variable(x.value()).slot();
  return outer.record("checkpoint", y, {to},
                      [f, to, before, &outer, value = x.value()](const Tensor& dy, Grads& grads) {
                        Context& ctx = grads.context();
                        const Rng after = ctx.rng();
                        ctx.rng() = before;
                        Tape tape(ctx, outer);
                        const Var again = tape.variable(value);
                        tape.backward(f(again), dy);
                        ctx.rng() = after;
                        if (tape.gradient(again).defined()) grads.pass(to, tape.gradient(again));
                      });
}

}  // namespace lightcone
