#include "autograd/frames.h"

namespace lightcone {

Var frames_transform(const Var& x, const Var& frames, const TensorReps& reps, FrameMap map) {
  Tensor y = x.context().empty(x.shape(), x.dtype());
  kernels::frames_transform(x.context(), x.value(), frames.value(), reps, map, y);
  return x.tape().record("frames_transform", y, {x.slot(), frames.slot()},
                         [=, local = map == FrameMap::to_local ? y : x.value(), x = x.slot(), frames = frames.slot(),
                          matrices = frames.value()](const Tensor& dy, Grads& grads) {
                           Tensor *wanted = grads.want(x), *dframes = grads.want(frames);
                           const bool of_y = map == FrameMap::to_local;
                           Tensor dx;
                           if (wanted || (dframes && !of_y)) {
                             dx = wanted ? *wanted : grads.context().empty(dy.shape(), dy.dtype());
                             kernels::frames_transform_backward(grads.context(), dy, matrices, reps, map, dx);
                           }
                           if (!dframes) return;
                           const int64_t copies = reps.dim() ? dy.dim(1) / reps.dim() : 0;
                           const kernels::FramedFeatures features{local, of_y ? dy : dx, 0, 0, copies, of_y};
                           kernels::frames_gradient(grads.context(), {&features, 1}, matrices, reps, *dframes);
                         });
}

}  // namespace lightcone
