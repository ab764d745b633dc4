#include "autograd/pair_vectors.h"

#include "engine/check.h"

namespace lightcone {

Var pair_masses(const Var& p, const Tensor& ptr, double mean, double std, DType dtype) {
  Context& ctx = p.context();
  Check("pair_masses", "p", p.value()).rank(2);
  kernels::check_ptr(ctx, "pair_masses", "ptr", ptr, p.dim(0));
  Tensor e = ctx.empty({kernels::count_all_pairs(ptr), 1}, dtype);
  kernels::pair_masses(ctx, p.value(), ptr, mean, std, e);
  return p.tape().record("pair_masses", e, {p.slot()},
                         [=, to = p.slot(), p = p.value()](const Tensor& de, Grads& grads) {
                           if (Tensor* dp = grads.want(to))
                             kernels::pair_masses_backward(grads.context(), de, p, ptr, std, *dp);
                         });
}

Var pair_products(const Var& q, const Var& k, const Tensor& ptr, int64_t n) {
  Context& ctx = q.context();
  Check("pair_products", "q", q.value()).rank(2);
  kernels::check_ptr(ctx, "pair_products", "ptr", ptr, q.dim(0));
  Tensor y = ctx.empty({kernels::count_all_pairs(ptr), n}, q.dtype());
  kernels::pair_products(ctx, q.value(), k.value(), ptr, y);
  return q.tape().record(
      "pair_products", y, {q.slot(), k.slot()},
      [=, to_q = q.slot(), to_k = k.slot(), q = q.value(), k = k.value()](const Tensor& dy, Grads& grads) {
        Tensor *dq = grads.want(to_q), *dk = grads.want(to_k);
        if (dq || dk) kernels::pair_products_backward(grads.context(), dy, q, k, ptr, dq, dk);
      });
}

Var pair_vectors(const Var& p, const Var& logits, const Tensor& ptr, const PairVectorsOptions& options) {
  Context& ctx = p.context();
  Check("pair_vectors", "p", p.value()).rank(2);
  Check("pair_vectors", "logits", logits.value()).rank(2);
  Tensor y = ctx.empty({p.dim(0), logits.dim(1), 4}, p.dtype()), norm = ctx.empty({p.dim(0)}, DType::f64);
  kernels::pair_vectors(ctx, p.value(), logits.value(), ptr, options, y, norm);
  return p.tape().record("pair_vectors", y, {p.slot(), logits.slot()},
                         [=, to_p = p.slot(), to_logits = logits.slot(), p = p.value(), logits = logits.value()](
                             const Tensor& dy, Grads& grads) {
                           Tensor *dp = grads.want(to_p), *dlogits = grads.want(to_logits);
                           if (dp || dlogits)
                             kernels::pair_vectors_backward(grads.context(), dy, p, logits, ptr, options, y, norm,
                                                            dlogits, dp);
                         });
}

}  // namespace lightcone
