#include "autograd/equi_linear.h"

#include "autograd/weights.h"
#include "engine/check.h"

namespace lightcone {

using kernels::EquiLinearMatrices;
using kernels::EquiLinearWeights;

namespace {

using Member = std::pair<Var EquiLinearParameters::*, Tensor EquiLinearWeights::*>;
constexpr Member members[] = {{&EquiLinearParameters::weight, &EquiLinearWeights::weight},
                              {&EquiLinearParameters::bias, &EquiLinearWeights::bias},
                              {&EquiLinearParameters::s2mvs, &EquiLinearWeights::s2mvs},
                              {&EquiLinearParameters::s2mvs_bias, &EquiLinearWeights::s2mvs_bias},
                              {&EquiLinearParameters::mvs2s, &EquiLinearWeights::mvs2s},
                              {&EquiLinearParameters::mvs2s_bias, &EquiLinearWeights::mvs2s_bias},
                              {&EquiLinearParameters::s2s, &EquiLinearWeights::s2s}};

}  // namespace

Multivectors equi_linear(const Multivectors& x, const std::vector<EquiLinearParameters>& maps,
                         const EquiLinearOptions& options) {
  Tape& tape = x.mv.tape();
  Context& ctx = tape.context();
  Check("equi_linear", "x", x.mv.value()).rank(3);
  if (maps.empty()) fail("equi_linear", "no maps, expected at least one");
  const DType dtype = maps[0].weight.dtype(), products = tape.factors(dtype);
  auto make = [&](Context& home) {
    std::vector<EquiLinearWeights> weights(maps.size());
    for (size_t m = 0; m < maps.size(); ++m)
      for (const auto& [var, tensor] : members) weights[m].*tensor = (maps[m].*var).value();
    return std::make_shared<EquiLinearMatrices>(ctx, weights, options.head_scale.value(), options.layout, products,
                                                &home);
  };
  // Reordered once for all the tapes that run a network; not where there is no network.
  const Parameter* owner = maps[0].weight.parameter();
  const std::shared_ptr<const EquiLinearMatrices> matrices =
      owner ? tape.prepared_weights().of<EquiLinearMatrices>(*owner, products, make) : make(ctx);

  const DType result = options.result.value_or(dtype);
  Tensor y = ctx.empty({8, x.mv.dim(1), 2 * matrices->channels_out()}, result), y_s;
  if (matrices->scalars_out()) y_s = ctx.empty({x.mv.dim(1), matrices->scalars_out()}, result);
  kernels::equi_linear(ctx, x.mv.value(), x.s.value(), *matrices, options.residual.value(), options.residual_s.value(),
                       y, y_s);

  std::vector<Slot> inputs = {x.mv.slot(), x.s.slot(), options.head_scale.slot(), options.residual.slot(),
                              options.residual_s.slot()};
  const size_t first_parameter = inputs.size();
  for (const auto& map : maps)
    for (const auto& [var, tensor] : members) inputs.push_back((map.*var).slot());
  std::vector<Tensor> results = {y};
  if (y_s.defined()) results.push_back(y_s);
  const size_t count = maps.size();
  const std::vector<Var> out = tape.record(
      "equi_linear", results, inputs,
      [=, mv = x.mv.value(), s = x.s.value()](const std::vector<Tensor>& dys, Grads& grads) {
        std::vector<EquiLinearWeights> gradients(count);
        for (size_t m = 0, i = first_parameter; m < count; ++m)
          for (const auto& [var, tensor] : members)
            if (const Tensor* wanted = grads.want(inputs[i++])) gradients[m].*tensor = *wanted;
        const Tensor dy_s = dys.size() > 1 ? dys[1] : Tensor();
        kernels::equi_linear_backward(grads.context(), dys[0], dy_s, mv, s, *matrices, grads.want(inputs[0]),
                                      grads.want(inputs[1]), gradients, grads.want(inputs[2]));
        grads.pass(inputs[3], dys[0]);
        if (dy_s.defined()) grads.pass(inputs[4], dy_s);
      });
  return {out[0], out.size() > 1 ? out[1] : Var{}};
}

}  // namespace lightcone
