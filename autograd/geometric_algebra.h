#pragma once
#include <optional>

#include "autograd/tape.h"
#include "kernels/geometric_algebra.h"

namespace lightcone {

using kernels::Blades;
using kernels::Gate;

// Multivectors [8, T, 2C]; see kernels/geometric_algebra.h. Results have the dtype of the first argument, or `result`.

Var embed(const Var& x, Blades blades);    ///< [T, P, C] -> [8, T, 2C]
Var extract(const Var& y, Blades blades);  ///< [8, T, 2C] -> [T, P, C]

Var scalar_part(const Var& y);  ///< [8, T, 2C] -> [T, C]
/// Each grade of each multivector is dropped with probability p, from the random stream "dropout"; see
/// autograd/random.h.
Var grade_dropout(const Var& x, double p);

/// l r for lr [8, T, 4C], the two side by side.
Var geometric_product(const Var& lr, std::optional<DType> result = {});
/// f(scalar component) x
Var gated(const Var& x, Gate f, std::optional<DType> result = {});
/// Equivariant layer norm of each group of channels; `group` = 0: of all together.
Var equi_norm(const Var& x, int64_t group = 0, double eps = 0.01, std::optional<DType> result = {});

}  // namespace lightcone
