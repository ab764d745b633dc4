#include "autograd/checkpoint.h"

namespace lightcone {

Var checkpoint(const Var& x, const std::function<Var(const Var&)>& f) {
  return checkpoint(std::vector{x}, [f](const std::vector<Var>& in) { return std::vector{f(in[0])}; })[0];
}

std::vector<Var> checkpoint(const std::vector<Var>& xs,
                            const std::function<std::vector<Var>(const std::vector<Var>&)>& f) {
  Tape& outer = xs.at(0).tape();
  if (!outer.training()) return f(xs);
  Context& ctx = outer.context();
  const Rng before = ctx.rng();
  std::vector<Tensor> values, ys;
  std::vector<Slot> to;
  for (const Var& x : xs) {
    values.push_back(x.value());
    // A slot is recorded even if x itself wants no gradient: f's parameters do.
    to.push_back(x.wants_grad() ? x.slot() : outer.variable(x.value()).slot());
  }
  auto variables = [](Tape& tape, const std::vector<Tensor>& values) {
    std::vector<Var> out;
    for (const Tensor& value : values) out.push_back(tape.variable(value));
    return out;
  };
  {
    Tape tape(ctx, outer);
    for (const Var& y : f(variables(tape, values))) ys.push_back(y.value());
  }
  return outer.record("checkpoint", ys, to,
                      [f, to, before, variables, &outer, values](const std::vector<Tensor>& dys, Grads& grads) {
                        Context& ctx = grads.context();
                        const Rng after = ctx.rng();
                        ctx.rng() = before;
                        Tape tape(ctx, outer);
                        const std::vector<Var> again = variables(tape, values);
                        tape.backward(f(again), dys);
                        ctx.rng() = after;
                        for (size_t i = 0; i < to.size(); ++i)
                          if (tape.gradient(again[i]).defined()) grads.pass(to[i], tape.gradient(again[i]));
                      });
}

}  // namespace lightcone
