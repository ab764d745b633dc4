#include "autograd/matmul.h"

#include "kernels/mlp.h"

namespace lightcone {
namespace {

Tensor result_of_linear(const Var& x, const Var& w, std::optional<DType> dtype = {}) {
  Shape shape = x.shape();
  if (shape.rank() && w.shape().rank()) shape[-1] = w.dim(0);  // else the kernel refuses them
  return x.context().empty(shape, dtype.value_or(w.dtype()));
}

}  // namespace

Var linear(const Var& x, const Var& w, const Var& b, std::optional<DType> result) {
  Tensor y = result_of_linear(x, w, result);
  const auto weights = x.tape().weights(w);
  kernels::linear(x.context(), x.value(), *weights, b.value(), y);
  return x.tape().record("linear", y, {x.slot(), w.slot(), b.slot()},
                         [=, in = x.value(), x = x.slot(), w = w.slot(), b = b.slot()](const Tensor& dy, Grads& grads) {
                           kernels::linear_backward(grads.context(), dy, in, *weights, grads.want(x), grads.want(w),
                                                    grads.want(b));
                         });
}

Var linear_gelu(const Var& x, const Var& w, const Var& b) {
  Tensor y = result_of_linear(x, w);
  Tensor pre = x.tape().training() ? x.context().empty(y.shape(), y.dtype()) : Tensor{};
  const auto weights = x.tape().weights(w);
  kernels::linear_gelu(x.context(), x.value(), *weights, b.value(), pre, y);
  return x.tape().record("linear_gelu", y, {x.slot(), w.slot(), b.slot()},
                         [=, in = x.value(), x = x.slot(), w = w.slot(), b = b.slot()](const Tensor& dy, Grads& grads) {
                           kernels::linear_gelu_backward(grads.context(), dy, pre, in, *weights, grads.want(x),
                                                         grads.want(w), grads.want(b));
                         });
}

Var linear_residual(const Var& x, const Var& w, const Var& b, const Var& residual) {
  Tensor y = result_of_linear(x, w);
  const auto weights = x.tape().weights(w);
  kernels::linear_residual(x.context(), x.value(), *weights, b.value(), residual.value(), y);
  return x.tape().record("linear_residual", y, {x.slot(), w.slot(), b.slot(), residual.slot()},
                         [=, in = x.value(), x = x.slot(), w = w.slot(), b = b.slot(), residual = residual.slot()](
                             const Tensor& dy, Grads& grads) {
                           kernels::linear_backward(grads.context(), dy, in, *weights, grads.want(x), grads.want(w),
                                                    grads.want(b));
                           grads.pass(residual, dy);
                         });
}

Var mlp(const Var& x, const Var& w1, const Var& b1, const Var& w2, const Var& b2, const Var& residual) {
  Tensor y = result_of_linear(x, w2);
  const auto up = x.tape().weights(w1), down = x.tape().weights(w2);
  const bool keep = x.tape().training() && up->products() != DType::bf16;
  Tensor pre = keep ? result_of_linear(x, w1) : Tensor{};
  kernels::mlp(x.context(), x.value(), *up, b1.value(), *down, b2.value(), residual.value(), pre, y);
  return x.tape().record("mlp", y, {x.slot(), w1.slot(), b1.slot(), w2.slot(), b2.slot(), residual.slot()},
                         [=, in = x.value(), bias = b1.value(), x = x.slot(), w1 = w1.slot(), b1 = b1.slot(),
                          w2 = w2.slot(), b2 = b2.slot(), residual = residual.slot()](const Tensor& dy, Grads& grads) {
                           kernels::mlp_backward(grads.context(), dy, pre, in, *up, bias, *down,
                                                 {.dx = grads.want(x),
                                                  .dw1 = grads.want(w1),
                                                  .db1 = grads.want(b1),
                                                  .dw2 = grads.want(w2),
                                                  .db2 = grads.want(b2)});
                           grads.pass(residual, dy);
                         });
}

Var matmul(const Var& a, const Var& b, bool transpose_a, bool transpose_b) {
  Context& ctx = a.context();
  Shape shape;
  if (a.shape().rank() == 2 && b.shape().rank() == 2) shape = {a.dim(transpose_a ? 1 : 0), b.dim(transpose_b ? 0 : 1)};
  Tensor c = ctx.empty(shape, a.dtype());
  const DType products = a.tape().factors(a.dtype());
  kernels::matmul(ctx, a.value(), b.value(), transpose_a, transpose_b, c, products);
  return a.tape().record(
      "matmul", c, {a.slot(), b.slot()},
      [=, av = a.value(), bv = b.value(), a = a.slot(), b = b.slot()](const Tensor& dc, Grads& grads) {
        Context& ctx = grads.context();
        // da = dc op(b)^T or its transpose, db = op(a)^T dc or its transpose.
        if (Tensor* da = grads.want(a)) {
          if (transpose_a)
            kernels::matmul(ctx, bv, dc, transpose_b, true, *da, products);
          else
            kernels::matmul(ctx, dc, bv, false, !transpose_b, *da, products);
        }
        if (Tensor* db = grads.want(b)) {
          if (transpose_b)
            kernels::matmul(ctx, dc, av, true, transpose_a, *db, products);
          else
            kernels::matmul(ctx, av, dc, !transpose_a, false, *db, products);
        }
      });
}

}  // namespace lightcone
