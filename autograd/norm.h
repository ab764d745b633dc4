#pragma once
#include "autograd/tape.h"

namespace lightcone {

/// Layer normalisation over the last axis; see kernels/norm.h.
Var layer_norm(const Var& x, double eps = 1e-5);
/// Root mean square normalisation over the last axis; see kernels/norm.h.
Var rms_norm(const Var& x, double eps = 1e-5);

}  // namespace lightcone
