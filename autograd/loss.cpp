#include "autograd/loss.h"

#include "kernels/loss.h"

namespace lightcone {
namespace {

// All three have the same form.
template <class Forward, class Backward>
Var loss_of(const char* name, const Var& x, const Tensor& targets, Forward forward, Backward backward) {
  Tensor loss = x.context().empty({1}, sum_dtype(x.dtype()));
  forward(x.context(), x.value(), targets, loss);
  return x.tape().record(name, loss, {x.slot()},
                         [=, to = x.slot(), value = x.value()](const Tensor& dloss, Grads& grads) {
                           if (Tensor* dx = grads.want(to)) backward(grads.context(), dloss, value, targets, *dx);
                         });
}

}  // namespace

Var bce_with_logits(const Var& logits, const Tensor& targets) {
  return loss_of("bce_with_logits", logits, targets, kernels::bce_with_logits, kernels::bce_with_logits_backward);
}

Var cross_entropy(const Var& logits, const Tensor& labels) {
  return loss_of("cross_entropy", logits, labels, kernels::cross_entropy, kernels::cross_entropy_backward);
}

Var mse(const Var& predictions, const Tensor& targets) {
  return loss_of("mse", predictions, targets, kernels::mse, kernels::mse_backward);
}

}  // namespace lightcone
