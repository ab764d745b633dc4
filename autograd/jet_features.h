#pragma once
#include "autograd/tape.h"
#include "kernels/jet_features.h"

namespace lightcone {

using kernels::TaggingFeatures;

/// Tagging features [T, F] in `dtype` of constituents [T, 4] relative to their jet [T, 4]; see kernels/jet_features.h.
/// Gradients return in the dtype of the momenta.
Var jet_features(const Var& p, const Var& jet, TaggingFeatures which, DType dtype);

}  // namespace lightcone
