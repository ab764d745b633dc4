#pragma once
#include "autograd/tape.h"
#include "kernels/elementwise.h"

namespace lightcone {

using kernels::Unary;

/// The gated linear unit of vectors x [T, 4, 3C] or scalars x [T, 2C]; see kernels/gated_unit.h.
Var gated_unit(const Var& x, Unary f);

}  // namespace lightcone
