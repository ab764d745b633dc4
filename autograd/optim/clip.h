#pragma once
#include <span>

#include "autograd/module.h"

namespace lightcone {

/// Gradients of a list of parameters; those without one do not count. The training step of the experiments takes the
/// norms to log, clips by value, clips by norm over all parameters (this norm decides whether the step is skipped) and
/// then clips by norm over the framesnet's alone.

/// The L2 norm of the gradients' norms, f64 [1]; changes nothing.
Tensor gradient_norm(Context& ctx, std::span<const Named<Parameter>> parameters);

/// Scales the gradients by min(1, max_norm / (norm + 1e-6)) and returns the norm from before. What NaN and infinite
/// norms do is in kernels/optimizer.h.
Tensor clip_gradient_norm(Context& ctx, std::span<const Named<Parameter>> parameters, double max_norm);

/// Every entry to [-limit, limit].
void clip_gradient_value(Context& ctx, std::span<const Named<Parameter>> parameters, double limit);

}  // namespace lightcone
