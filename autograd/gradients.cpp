#include "autograd/gradients.h"

#include "kernels/elementwise.h"

namespace lightcone {

void accumulate(Context& ctx, Tensor& sum, Tensor gradient) {
  if (!sum.defined()) {
    sum = std::move(gradient);
  } else if (sum.unique()) {
    kernels::add(ctx, sum, gradient, sum);
  } else {
    Tensor fresh = ctx.empty(sum.shape(), sum.dtype());
    kernels::add(ctx, sum, gradient, fresh);
    sum = std::move(fresh);
  }
}

void GradientSet::add(Context& ctx, Parameter& p, Tensor gradient) {
  const auto [it, fresh] = place_.try_emplace(&p, items_.size());
  if (fresh)
    items_.emplace_back(&p, std::move(gradient));
  else
    accumulate(ctx, items_[it->second].second, std::move(gradient));
}

void GradientSet::add_to_parameters(Context& ctx) {
  for (auto& [p, gradient] : items_) accumulate(ctx, p->grad, std::move(gradient));
  items_.clear();
  place_.clear();
}

}  // namespace lightcone
