#include "autograd/optim/clip.h"

#include "kernels/elementwise.h"
#include "kernels/optimizer.h"

namespace lightcone {

static std::vector<Tensor> gradients_of(std::span<const Named<Parameter>> parameters) {
  std::vector<Tensor> gradients;
  for (const auto& [name, p] : parameters)
    if (p->grad.defined()) gradients.push_back(p->grad);
  return gradients;
}

/// The same, safe to overwrite: a sum of two parameters passes one gradient tensor to both, which would be scaled
/// twice.
static std::vector<Tensor> own_gradients_of(Context& ctx, std::span<const Named<Parameter>> parameters) {
  for (const auto& [name, p] : parameters) {
    if (!p->grad.defined() || p->grad.unique()) continue;
    Tensor copy = ctx.empty(p->grad.shape(), p->grad.dtype());
    kernels::cast(ctx, p->grad, copy);
    p->grad = std::move(copy);
  }
  return gradients_of(parameters);
}

Tensor gradient_norm(Context& ctx, std::span<const Named<Parameter>> parameters) {
  Tensor norm = ctx.empty({1}, DType::f64);
  kernels::gradient_norm(ctx, gradients_of(parameters), norm);
  return norm;
}

Tensor clip_gradient_norm(Context& ctx, std::span<const Named<Parameter>> parameters, double max_norm) {
  std::vector<Tensor> gradients = own_gradients_of(ctx, parameters);
  Tensor norm = ctx.empty({1}, DType::f64);
  kernels::gradient_norm(ctx, gradients, norm);
  kernels::clip_by_norm(ctx, gradients, max_norm, norm);
  return norm;
}

void clip_gradient_value(Context& ctx, std::span<const Named<Parameter>> parameters, double limit) {
  std::vector<Tensor> gradients = own_gradients_of(ctx, parameters);
  kernels::clip_by_value(ctx, gradients, limit);
}

}  // namespace lightcone
