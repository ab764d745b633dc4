#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

/// Random numbers of one Draw (engine/rng.h): element i is a function of the Draw and i alone, so threads, chunks and
/// devices agree, and a backward pass draws again instead of keeping a mask. Tensors of any shape, f64, f32 or bf16;
/// empty ones are left alone. Throws Error if a shape or dtype differs, or if the Draw holds fewer recorded numbers
/// than there are elements.

/// y[i] = low + (high - low) u_i, u_i uniform in [0, 1) with 53 bits; the rounding to y's dtype can give `high` itself.
void fill_uniform(Context& ctx, const Draw& draw, double low, double high, Tensor& y);

/// y[i] = mean + deviation n_i, n_i standard normal.
void fill_normal(Context& ctx, const Draw& draw, double mean, double deviation, Tensor& y);

/// Dropout, and its own backward (dx from dy) given the same Draw.
///
///     y[i] = x[i] / (1 - p)  if u_i >= p,  else 0            u_i uniform in [0, 1) with 32 bits
///
/// (Srivastava et al., JMLR 15 (2014) 1929, scaled in training.) y may be x. The factor is applied in f64 for f64, else
/// in f32. A dropped NaN or infinity is gone. Throws Error if p is outside [0, 1).
void dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y);

}  // namespace lightcone::kernels
