#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

// Sums and largest elements. f64, f32 or bf16; sums run in f32 for f32 and bf16, in an order that depends on the device
// and the shape alone (rows in one go, columns in blocks of 256 rows or more, totals in chunks of 8192 elements or
// more, whose sums are added in order, in f64). Throws Error if a shape or dtype differs.

/// What a sum runs over.
enum class Over {
  last,     ///< x [..., C] -> y [...]
  leading,  ///< x [T, ...] -> y [...]
  all,      ///< x -> y [1]
};
/// The shape of the result. Throws Error if x has fewer than 2 axes (last, leading).
Shape shape_of_sum(const Shape& x, Over over);
/// Elements per sum.
int64_t count_of_sum(const Shape& x, Over over);

/// y = scale times the sum of x, in the dtype of x; a sum of nothing is 0. With scale = 1 / count_of_sum() the mean.
void sum(Context& ctx, const Tensor& x, Over over, double scale, Tensor& y);
/// dx = scale dy, repeated along what the sum ran over.
void sum_backward(Context& ctx, const Tensor& dy, Over over, double scale, Tensor& dx);

/// y[...] = the largest of x[..., c] over c; NaN if one of them is. Throws Error if the last axis is empty.
void max_last(Context& ctx, const Tensor& x, Tensor& y);

/// Sum of x², in f64.
double sum_of_squares(Context& ctx, const Tensor& x);
/// False if an element is infinite or NaN.
bool all_finite(Context& ctx, const Tensor& x);

}  // namespace lightcone::kernels
