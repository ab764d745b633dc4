#pragma once
#include "autograd/tape.h"
#include "kernels/frames.h"

namespace lightcone {

using kernels::FrameMap;

/// Features [T, n dim(reps)] from one frame to another; see kernels/frames.h. frames [T, 4, 4], f64 for f64 features,
/// else f32.
Var frames_transform(const Var& x, const Var& frames, const TensorReps& reps, FrameMap map);

}  // namespace lightcone
