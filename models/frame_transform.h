#pragma once
#include "autograd/module.h"
#include "kernels/tensor_reps.h"

namespace lightcone {

/// The state-dict entry that the references have wherever features change from one local frame to another: which
/// components of the representation are odd under parity, [1, dim] bool. What moves them is in kernels/frames.h.
struct FrameTransform : Module {
  Buffer parity_odd;
  FrameTransform(Context& ctx, const TensorReps& reps);
};

}  // namespace lightcone
