#pragma once
#include <optional>

#include "autograd/tape.h"

namespace lightcone {

/// Layer normalisation over the last axis; see kernels/norm.h. The result has the dtype of x, or `result`.
Var layer_norm(const Var& x, double eps = 1e-5, std::optional<DType> result = {});
/// The same for each run of `group` columns.
Var group_norm(const Var& x, int64_t group, double eps = 1e-5, std::optional<DType> result = {});
/// Root mean square normalisation over the last axis; see kernels/norm.h.
Var rms_norm(const Var& x, double eps = 1e-5, std::optional<DType> result = {});

}  // namespace lightcone
