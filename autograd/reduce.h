#pragma once
#include "autograd/tape.h"
#include "kernels/reduce.h"

namespace lightcone {

using kernels::Over;

/// The sum of x over its last axis, its leading axis or all of it; see kernels/reduce.h.
Var sum(const Var& x, Over over);
/// The same divided by the number of elements. Throws Error if there are none.
Var mean(const Var& x, Over over);

}  // namespace lightcone
