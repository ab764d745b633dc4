#include "models/linear.h"

#include <cmath>

#include "autograd/matmul.h"

namespace lightcone {

Tensor uniform_init(Context& ctx, Shape shape, DType dtype, double bound) {
  const Draw draw = ctx.rng().draw("init", shape.numel());
  std::vector<double> values(shape.numel());
  for (size_t i = 0; i < values.size(); ++i) values[i] = bound * (2 * draw.uniform(static_cast<int64_t>(i)) - 1);
  return ctx.of(shape, dtype, values);
}

Linear::Linear(Context& ctx, int64_t in, int64_t out, DType dtype) {
  const double bound = in > 0 ? 1 / std::sqrt(static_cast<double>(in)) : 0;
  weight.value = uniform_init(ctx, {out, in}, dtype, bound);
  bias.value = uniform_init(ctx, {out}, dtype, bound);
  add("weight", weight);
  add("bias", bias);
}

Var Linear::operator()(const Var& x, std::optional<DType> result) {
  return linear(x, x.tape().parameter(weight), x.tape().parameter(bias), result);
}

Var Linear::gelu(const Var& x) { return linear_gelu(x, x.tape().parameter(weight), x.tape().parameter(bias)); }

Var Linear::residual(const Var& x, const Var& r) {
  return linear_residual(x, x.tape().parameter(weight), x.tape().parameter(bias), r);
}

}  // namespace lightcone
