#include "autograd/checkpoint.h"

namespace lightcone {

Var checkpoint(const Var& x, const std::function<Var(const Var&)>& f) {
  return checkpoint(std::vector{x}, [f](const std::vector<Var>& xs) { return f(xs[0]); });
}

Var checkpoint(const std::vector<Var>& xs, const std::function<Var(const std::vector<Var>&)>& f) {
  Tape& outer = xs.at(0).tape();
  if (!outer.training()) return f(xs);
  Context& ctx = outer.context();
  const Rng before = ctx.rng();
  std::vector<Tensor> values;
  std::vector<Slot> wanted;
  for (const Var& x : xs) values.push_back(x.value()), wanted.push_back(x.slot());
  // One slot is recorded even if no input wants a gradient: f's parameters do.
  if (!xs[0].wants_grad()) wanted[0] = outer.variable(values[0]).slot();
  auto inputs_on = [values, wanted](Tape& tape) {
    std::vector<Var> out;
    for (size_t i = 0; i < values.size(); ++i)
      out.push_back(wanted[i].index >= 0 ? tape.variable(values[i]) : tape.constant(values[i]));
    return out;
  };
  Tensor y;
  {
    Tape tape(ctx, outer);
    y = f(inputs_on(tape)).value();
  }
  return outer.record("checkpoint", {y}, wanted,
                      [f, wanted, before, inputs_on, &outer](const std::vector<Tensor>& dys, Grads& grads) {
                        Context& ctx = grads.context();
                        const Rng after = ctx.rng();
                        ctx.rng() = before;
                        Tape tape(ctx, outer);
                        const std::vector<Var> again = inputs_on(tape);
                        tape.backward(f(again), dys[0]);
                        ctx.rng() = after;
                        for (size_t i = 0; i < again.size(); ++i)
                          if (again[i].wants_grad() && tape.gradient(again[i]).defined())
                            grads.pass(wanted[i], tape.gradient(again[i]));
                      })[0];
}

}  // namespace lightcone
