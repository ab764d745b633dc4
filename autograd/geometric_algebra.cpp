#include "autograd/geometric_algebra.h"

#include "engine/check.h"

namespace lightcone {

Var embed(const Var& x, Blades blades) {
  Check("embed", "x", x.value()).rank(3);
  Tensor y = x.context().empty({8, x.dim(0), 2 * x.dim(2)}, x.dtype());
  kernels::embed(x.context(), blades, x.value(), y);
  return x.tape().record("embed", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::extract(grads.context(), blades, dy, *dx);
  });
}

Var extract(const Var& y, Blades blades) {
  Check("extract", "y", y.value()).rank(3);
  Tensor x = y.context().empty({y.dim(1), kernels::count_of(blades), y.dim(2) / 2}, y.dtype());
  kernels::extract(y.context(), blades, y.value(), x);
  return y.tape().record("extract", x, {y.slot()}, [=, to = y.slot()](const Tensor& dx, Grads& grads) {
    if (Tensor* dy = grads.want(to)) kernels::embed(grads.context(), blades, dx, *dy);
  });
}

Var scalar_part(const Var& y) {
  Check("extract", "y", y.value()).rank(3);
  const int64_t T = y.dim(1), C = y.dim(2) / 2;
  Tensor x = y.context().empty({T, 1, C}, y.dtype());
  kernels::extract(y.context(), Blades::scalar, y.value(), x);
  return y.tape().record("scalar_part", x.reshape({T, C}), {y.slot()},
                         [=, to = y.slot()](const Tensor& dx, Grads& grads) {
                           if (Tensor* dy = grads.want(to))
                             kernels::embed(grads.context(), Blades::scalar, dx.reshape({T, 1, C}), *dy);
                         });
}

Var grade_dropout(const Var& x, double p) {
  if (!x.tape().training() || p == 0) return x;
  Check("grade_dropout", "x", x.value()).rank(3);
  Context& ctx = x.context();
  const Draw draw = ctx.rng().draw("dropout", x.dim(1) * x.dim(2) / 2 * 5);
  Tensor y = ctx.empty(x.shape(), x.dtype());
  kernels::grade_dropout(ctx, draw, p, x.value(), y);
  return x.tape().record("grade_dropout", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::grade_dropout(grads.context(), draw, p, dy, *dx);
  });
}

Var geometric_product(const Var& lr, std::optional<DType> result) {
  Check("geometric_product", "lr", lr.value()).rank(3);
  Tensor y = lr.context().empty({8, lr.dim(1), lr.dim(2) / 2}, result.value_or(lr.dtype()));
  kernels::geometric_product(lr.context(), lr.value(), y);
  return lr.tape().record("geometric_product", y, {lr.slot()},
                          [in = lr.value(), to = lr.slot()](const Tensor& dy, Grads& grads) {
                            if (Tensor* dlr = grads.want(to))
                              kernels::geometric_product_backward(grads.context(), dy, in, *dlr);
                          });
}

Var gated(const Var& x, Gate f, std::optional<DType> result) {
  Tensor y = x.context().empty(x.shape(), result.value_or(x.dtype()));
  kernels::gated(x.context(), f, x.value(), y);
  return x.tape().record("gated", y, {x.slot()}, [=, in = x.value(), to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::gated_backward(grads.context(), f, dy, in, *dx);
  });
}

Var equi_norm(const Var& x, int64_t group, double eps, std::optional<DType> result) {
  Check("equi_norm", "x", x.value()).rank(3);
  Context& ctx = x.context();
  const int64_t size = group ? group : x.dim(2) / 2;
  Tensor y = ctx.empty(x.shape(), result.value_or(x.dtype()));
  Tensor rstd = ctx.empty({x.dim(1), size > 0 ? x.dim(2) / 2 / size : 0}, sum_dtype(x.dtype()));
  kernels::equi_norm(ctx, x.value(), size, eps, y, rstd);
  return x.tape().record("equi_norm", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    const Tensor others = grads.take(to);
    if (Tensor* dx = grads.want(to)) kernels::equi_norm_backward(grads.context(), dy, y, rstd, eps, others, *dx);
  });
}

}  // namespace lightcone
