#pragma once
#include "autograd/module.h"
#include "kernels/tensor_reps.h"

namespace lightcone {

/// How features in a tensor representation change from one local frame to another. With identity frames, the only ones of this version,
/// nothing changes; what remains is the state-dict entry of the references: which components are odd under parity, [1, dim] bool.
struct FrameTransform : Module {
  Buffer parity_odd;
  FrameTransform(Context& ctx, const TensorReps& reps);
};

}  // namespace lightcone
