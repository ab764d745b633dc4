#pragma once
#include <span>

#include "engine/context.h"

namespace lightcone::kernels {

// Element by element; x, a, b, y of one shape and one dtype (f64, f32, bf16; computed in f32 for bf16) unless said
// otherwise. y may be an operand, dx may be dy. Empty tensors are fine. Throws Error if a shape or dtype differs. An
// element's bits do not depend on its place.

void add(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y);       ///< y = a + b
void subtract(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y);  ///< y = a - b
void multiply(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y);  ///< y = a b
void scale(Context& ctx, const Tensor& x, double factor, Tensor& y);       ///< y = factor x

/// y[..., n] = x[..., n] + row[n]
void add_row(Context& ctx, const Tensor& x, const Tensor& row, Tensor& y);

/// y = min(max(x, low), high); NaN stays NaN. Throws Error unless low <= high; either may be infinite.
void clamp(Context& ctx, const Tensor& x, double low, double high, Tensor& y);
/// dx = dy where low <= x <= high, else 0
void clamp_backward(Context& ctx, const Tensor& dy, const Tensor& x, double low, double high, Tensor& dx);

/// Functions of one number, exact forms (no tanh approximation of GELU). leaky_relu has slope 0.01 below 0. The
/// derivative at a kink (relu, leaky_relu, abs at 0) is the one from the left, except abs: 0.
///
///   gelu      x Φ(x)                  sigmoid   1 / (1 + exp(-x))        exp, log, sqrt, tanh, abs
///   silu      x sigmoid(x)            softplus  log(1 + exp(x))          square  x²
enum class Unary { gelu, relu, silu, sigmoid, tanh, softplus, leaky_relu, exp, log, sqrt, abs, square };

/// y = f(x)
void unary(Context& ctx, Unary f, const Tensor& x, Tensor& y);

/// What the backward of f reads: its result y (true) or its argument x. Where both would do it is the result, which the
/// next function usually keeps anyway.
constexpr bool backward_reads_result(Unary f) {
  switch (f) {
    case Unary::relu:
    case Unary::sigmoid:
    case Unary::tanh:
    case Unary::leaky_relu:
    case Unary::exp:
    case Unary::sqrt:
      return true;
    default:
      return false;
  }
}

/// dx = f'(x) dy, where `saved` is y or x as backward_reads_result(f) says.
void unary_backward(Context& ctx, Unary f, const Tensor& dy, const Tensor& saved, Tensor& dx);

/// y = x converted to y's dtype; same shape, any two dtypes. To a floating-point dtype: rounds to nearest even. To an
/// integer: drops the fraction; throws Error, with y half written, if a value is NaN or does not fit. To bool: x != 0.
void cast(Context& ctx, const Tensor& x, Tensor& y);

/// y[..., :] = the parts side by side along the last axis. Any dtype; the leading axes of all are equal.
void concat(Context& ctx, std::span<const Tensor> parts, Tensor& y);
/// y[..., j] = x[..., begin + j]. Any dtype. Throws Error if x does not have the columns that y asks for.
void slice(Context& ctx, const Tensor& x, int64_t begin, Tensor& y);
/// dx[..., begin + j] = dy[..., j], 0 elsewhere.
void slice_backward(Context& ctx, const Tensor& dy, int64_t begin, Tensor& dx);

}  // namespace lightcone::kernels
