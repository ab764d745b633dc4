#pragma once
#include "autograd/tape.h"

namespace lightcone {

/// Dropout with probability p from the random stream "dropout"; see kernels/random.h. Returns x itself in evaluation
/// and for p = 0, without drawing.
Var dropout(const Var& x, double p);

}  // namespace lightcone
