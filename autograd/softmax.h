#pragma once
#include "autograd/tape.h"

namespace lightcone {

/// Over the last axis of [T, C]; see kernels/softmax.h.
Var softmax(const Var& x);
Var log_softmax(const Var& x);

}  // namespace lightcone
