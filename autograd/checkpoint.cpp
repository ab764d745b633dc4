#include "autograd/checkpoint.h"

namespace lightcone {

Var checkpoint(const Var& x, const std::function<Var(const Var&)>& f) {
  return checkpoint(std::vector{x}, [f](const std::vector<Var>& in) { return std::vector{f(in[0])}; })[0];
}

std::vector<Var> checkpoint(const std::vector<Var>& xs,
                            const std::function<std::vector<Var>(const std::vector<Var>&)>& f) {
  Tape& outer = xs[0].tape();
  if (!outer.training()) return f(xs);
  Context& ctx = outer.context();
  const Rng before = ctx.rng();
  std::vector<Tensor> values, ys;
  for (const Var& x : xs) values.push_back(x.value());
  auto run = [f, values](Tape& tape) {
    std::vector<Var> in;
    for (const Tensor& value : values) in.push_back(tape.variable(value));
    return std::pair{in, f(in)};
  };
  {
    Tape tape(ctx, outer);
    for (const Var& y : run(tape).second) ys.push_back(y.value());
  }
  // Slots are recorded even if the arguments want no gradient: f's parameters do.
  std::vector<Slot> to;
  for (const Var& x : xs) to.push_back(x.wants_grad() ? x.slot() : outer.variable(x.value()).slot());
  return outer.record("checkpoint", ys, to,
                      [run, to, before, &outer, amp = outer.amp()](const std::vector<Tensor>& dys, Grads& grads) {
                        Context& ctx = grads.context();
                        const Rng after = ctx.rng();
                        ctx.rng() = before;
                        Tape tape(ctx, outer);
                        tape.set_amp(amp);  // that of the forward pass, which may have changed since
                        const auto [in, again] = run(tape);
                        tape.backward(again, dys);
                        ctx.rng() = after;
                        for (size_t i = 0; i < in.size(); ++i)
                          if (tape.gradient(in[i]).defined()) grads.pass(to[i], tape.gradient(in[i]));
                      });
}

}  // namespace lightcone
