#include "models/frame_transform.h"

namespace lightcone {

FrameTransform::FrameTransform(Context& ctx, const TensorReps& reps) {
  std::vector<double> odd;
  for (const auto& term : reps.terms()) odd.insert(odd.end(), term.dim(), term.odd);
  parity_odd.value = ctx.of({1, reps.dim()}, DType::boolean, odd);
  add("parity_odd", parity_odd);
}

}  // namespace lightcone
