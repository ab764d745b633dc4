#pragma once
#include <span>

#include "engine/context.h"

namespace lightcone::kernels {

/// Optimiser updates of all parameters in one launch (on a GPU one for 128 tensors of the same dtype). Tensors are f64
/// or f32, of any sizes, empty ones included; lists may mix dtypes and may be empty; no tensor appears twice.
/// Arithmetic is that of the parameter's dtype, scalars are computed in f64. Updates have the same bits for any number
/// of threads and on either device. NaN in a gradient makes that element of the parameter NaN. Throws Error, before
/// anything is written, if a shape, dtype or option is wrong.

/// The rules, with p the parameter, g its gradient, eta the learning rate, w the weight decay, t the number of the
/// update (from 1), and the moving averages m = b1 m + (1-b1) g and v = b2 v + (1-b2) g^2:
///
///   adam    g += w p;  p -= eta/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps)           Kingma, Ba, arXiv:1412.6980
///   adamw   p *= 1 - eta w, then adam with w = 0                           Loshchilov, Hutter, arXiv:1711.05101
///   radam   g += w p;  p -= eta m/(1-b1^t) r sqrt(1-b2^t) / (sqrt(v) + eps)    if rho > 5, else  p -= eta m/(1-b1^t)
///           with r^2 = (rho-4)(rho-2) rho_inf / ((rho_inf-4)(rho_inf-2) rho),  rho_inf = 2/(1-b2) - 1,
///           rho = rho_inf - 2 t b2^t/(1-b2^t)                                     Liu et al., arXiv:1908.03265
///   lion    p *= 1 - eta w;  p -= eta sign(b1 m + (1-b1) g), then m = b2 m + (1-b2) g; sign(0) = 0, no v, no eps
///                                                                               Chen et al., arXiv:2302.06675
///   ranger  the inner step of Ranger, an older RAdam: p -= eta w p, then radam with w = 0, rectified if rho >= 5;
///           always in f32 (an f64 parameter is rounded to f32), m and v are f32; see lookahead() for the outer step
///
/// Two choices of the references are kept: radam adds eps to the uncorrected sqrt(v), adam to the corrected one. One is
/// not: PyTorch's sign(NaN) = 0 would freeze a Lion parameter silently; here it becomes NaN.
enum class UpdateRule { adam, adamw, radam, lion, ranger };

struct UpdateOptions {
  double beta1 = 0.9, beta2 = 0.999;  ///< in [0, 1)
  double eps = 1e-8;                  ///< >= 0
};

/// One parameter's part of a step; all tensors have its shape, `gradient` its dtype.
struct ParameterStep {
  Tensor value;  ///< updated in place
  Tensor gradient;
  Tensor m, v;              ///< updated in place, zeros before the first update; v is not read for lion
  int64_t t;                ///< counts this update, from 1
  double lr, weight_decay;  ///< >= 0, finite
};

void optimizer_step(Context& ctx, UpdateRule rule, std::span<ParameterStep> steps, const UpdateOptions& options);

/// The outer step of Ranger (Zhang et al., arXiv:1907.08610): p = alpha p + (1 - alpha) slow, then slow = p, for the
/// pairs values[i], slow[i] of equal shape and dtype; 0 <= alpha <= 1.
void lookahead(Context& ctx, std::span<Tensor> values, std::span<Tensor> slow, double alpha);

/// Exponential moving average: shadow -= (1 - decay) (shadow - p), for the pairs values[i], shadow[i]; 0 <= decay <= 1.
void ema_update(Context& ctx, std::span<const Tensor> values, std::span<Tensor> shadow, double decay);

/// The L2 norm of the L2 norms of the tensors, to norm [1] f64: no GPU is waited for. Sums run in f64, in an order
/// that depends on the list of sizes and dtypes alone. 0 for no tensor; NaN or infinite if an entry is.
void gradient_norm(Context& ctx, std::span<const Tensor> gradients, Tensor& norm);

/// g *= min(1, max_norm / (norm + 1e-6)), with `norm` from gradient_norm(); max_norm >= 0, may be infinite. As in
/// PyTorch a NaN norm makes every entry NaN, and an infinite one makes finite entries 0 and infinite ones NaN (with an
/// infinite max_norm: every entry NaN); test the norm if such a step is to be skipped.
void clip_by_norm(Context& ctx, std::span<Tensor> gradients, double max_norm, const Tensor& norm);

/// Every entry to [-limit, limit], limit >= 0; NaN stays NaN.
void clip_by_value(Context& ctx, std::span<Tensor> gradients, double limit);

}  // namespace lightcone::kernels
