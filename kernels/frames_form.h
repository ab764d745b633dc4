#pragma once
#include "kernels/frames.h"

// What a frame's matrix becomes under a FrameMap, on either device.
namespace lightcone::kernels::frames_math {

/// A FrameMap, or its transpose (which takes gradients back), as signs around L or L^T: M = left (L | L^T) right.
struct Form {
  bool transposed, left, right;  ///< left, right: g on that side
  bool lowered;                  ///< flips the sign of det
};
constexpr Form form(FrameMap map, bool backward) {
  switch (map) {
    case FrameMap::to_local:
      return {backward, false, false, false};
    case FrameMap::to_global:
      return {!backward, true, true, false};
    default:
      return backward ? Form{false, true, false, true} : Form{true, false, true, true};
  }
}

template <class S>
LIGHTCONE_HOST_DEVICE S determinant(const S* m) {
  // Of 2 x 2 minors of the upper and the lower rows.
  auto minor = [&](int row, int i, int j) {
    return m[row * 4 + i] * m[row * 4 + 4 + j] - m[row * 4 + j] * m[row * 4 + 4 + i];
  };
  return minor(0, 0, 1) * minor(2, 2, 3) - minor(0, 0, 2) * minor(2, 1, 3) + minor(0, 0, 3) * minor(2, 1, 2) +
         minor(0, 1, 2) * minor(2, 0, 3) - minor(0, 1, 3) * minor(2, 0, 2) + minor(0, 2, 3) * minor(2, 0, 1);
}

/// Whether a representation has scalars and vectors alone, all of even parity, with vectors at multiples of four.
inline bool in_fours(const TensorReps& reps) {
  int64_t feature = 0;
  for (const auto& term : reps.terms()) {
    if (term.odd || term.order > 1 || (term.order == 1 && feature % 4 != 0)) return false;
    feature += term.dim();
  }
  return feature % 4 == 0;
}

}  // namespace lightcone::kernels::frames_math
