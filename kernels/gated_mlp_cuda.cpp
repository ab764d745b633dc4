#include "kernels/gated_mlp.h"
#include "kernels/linear_cuda.h"
#include "kernels/lorentz_norm_cuda.h"

// Norm, products by cuBLASLt and gated units one after the other; what is in between is scratch, in the type of sums,
// or in that of products where they alone read it.
namespace lightcone::kernels::cuda {

// gated_unit.cu: y and dx may be bf16 where x is f32.
void gated_unit(Context& ctx, const Tensor& x, Unary f, Tensor& y);
void gated_unit_backward(Context& ctx, const Tensor& dy, const Tensor& x, Unary f, Tensor& dx);

namespace {

Tensor with_columns(Context& ctx, const Tensor& like, int64_t columns, DType dtype) {
  Shape shape = like.shape();
  shape[-1] = columns;
  return ctx.empty(shape, dtype);
}

/// The perceptron of vectors or scalars.
struct Perceptron {
  Context& ctx;
  const char* where;
  const GatedWeights& w;
  Unary f;
  DType products = w.up->products(), sums = sum_dtype(products);

  Tensor before_unit(const Tensor& normed) const {
    Tensor pre = with_columns(ctx, normed, w.up->tensor().dim(0), sums);
    product(ctx, where, normed, *w.up, w.up_bias, {}, pre);
    return pre;
  }
  Tensor unit(const Tensor& pre) const {
    Tensor hidden = with_columns(ctx, pre, w.down->tensor().dim(1), products);
    gated_unit(ctx, pre, f, hidden);
    return hidden;
  }

  /// y = x + what comes of `normed`
  void forward(const Tensor& normed, const Tensor& x, Tensor& y) const {
    product(ctx, where, unit(before_unit(normed)), *w.down, w.down_bias, x, y);
  }

  /// The gradient of `normed`, and those of the weights that are wanted.
  Tensor backward(const Tensor& normed, const Tensor& dy, Tensor* up, Tensor* up_bias, Tensor* down,
                  Tensor* down_bias) const {
    const Tensor pre = before_unit(normed), factor = rounded(ctx, dy, products);
    if (down_bias) column_sums(ctx, where, dy, *down_bias);
    if (down) product_weights(ctx, where, factor, unit(pre), *w.down, *down);
    Tensor dhidden = with_columns(ctx, pre, w.down->tensor().dim(1), sums);
    product_backward(ctx, where, factor, *w.down, {}, dhidden);
    Tensor dpre = ctx.empty(pre.shape(), up_bias ? sums : products);
    gated_unit_backward(ctx, dhidden, pre, f, dpre);
    if (up_bias) column_sums(ctx, where, dpre, *up_bias);
    dpre = rounded(ctx, dpre, products);
    if (up) product_weights(ctx, where, dpre, normed, *w.up, *up);
    Tensor dnormed = ctx.empty(normed.shape(), dy.dtype());
    product_backward(ctx, where, dpre, *w.up, {}, dnormed);
    return dnormed;
  }
};

/// v and s divided by their norm, for products.
struct Normed {
  Tensor v, s;
  Normed(Context& ctx, const Tensor& of_v, const Tensor& of_s, double eps, DType products)
      : v(ctx.empty(of_v.shape(), products)), s(ctx.empty(of_s.shape(), products)) {
    lorentz_norm(ctx, of_v, of_s, 1, eps, v, s);
  }
};

}  // namespace

void gated_mlp(Context& ctx, const Tensor& v, const Tensor& s, const GatedWeights& vectors, const GatedWeights& scalars,
               double eps, Unary f, Tensor& yv, Tensor& ys) {
  const char* where = "gated_mlp";
  const Normed normed(ctx, v, s, eps, scalars.up->products());
  if (yv.defined()) Perceptron{ctx, where, vectors, f}.forward(normed.v, v, yv);
  Perceptron{ctx, where, scalars, f}.forward(normed.s, s, ys);
}

void gated_mlp_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                        const GatedWeights& vectors, const GatedWeights& scalars, double eps, Unary f,
                        const GatedMlpGradients& to) {
  const char* where = "gated_mlp_backward";
  const Normed normed(ctx, v, s, eps, scalars.up->products());
  Tensor dnv;
  if (dyv.defined())
    dnv = Perceptron{ctx, where, vectors, f}.backward(normed.v, dyv, to.up_v, nullptr, to.down_v, nullptr);
  const Tensor dns =
      Perceptron{ctx, where, scalars, f}.backward(normed.s, dys, to.up_s, to.up_bias, to.down_s, to.down_bias);
  lorentz_norm_backward(ctx, dnv, dns, v, s, 1, eps, dyv, dys, *to.dv, *to.ds);
}

}  // namespace lightcone::kernels::cuda
