#pragma once
#include "autograd/tape.h"

namespace lightcone {

// Functions of four-momenta [..., 4]; definitions and clamps in kernels/minkowski.h.

Var minkowski_inner(const Var& a, const Var& b);  ///< [...]
Var minkowski_squarednorm(const Var& p);          ///< [...]
Var pt(const Var& p);                             ///< [...], as phi, eta and mass
Var phi(const Var& p);
Var eta(const Var& p);
Var mass(const Var& p);
Var restframe_boost(const Var& p);                               ///< [T, 4] -> [T, 4, 4]
Var lorentz_transform(const Var& matrices, const Var& vectors);  ///< [T, 4, 4] on [T, 4] or [T, N, 4]

}  // namespace lightcone
