#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

/// y = a + b, element by element. Same shape and dtype (f64, f32, bf16; sums in f32 for bf16); y may be a or b.
void add(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y);

/// y = x converted to y's dtype; same shape, any two dtypes. Rounds to nearest even; to bool: x != 0.
void cast(Context& ctx, const Tensor& x, Tensor& y);

}  // namespace lightcone::kernels
