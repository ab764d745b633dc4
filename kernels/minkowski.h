#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

/// Four-momenta p = (E, px, py, pz) in GeV along the last axis, any axes before it; metric (+,-,-,-).
///
/// All operands of a call have one dtype, f64 or f32; arithmetic is f64 throughout, because masses are small
/// differences of large numbers. One item's result depends on that item alone. No items: nothing is written. Throws
/// Error if a shape or dtype differs. Backward kernels overwrite; their outputs may not alias the inputs.

/// The Minkowski inner product of a and b, [..., 4] each.
///
///     y = a.E b.E - a.px b.px - a.py b.py - a.pz b.pz           [...]
void minkowski_inner(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y);

///     da = dy (b.E, -b.px, -b.py, -b.pz)                        dy [...], da [..., 4]
///
/// The gradient to b is the same call with a in its place.
void minkowski_inner_backward(Context& ctx, const Tensor& dy, const Tensor& b, Tensor& da);

/// Kinematic quantities as the tagging networks define them; epsilon = 1e-10, max is a clamp without gradient below.
///
///     pt      sqrt(max(px^2 + py^2, epsilon))
///     phi     atan2(y, x);  x, y are px, py, and epsilon where |px|, |py| < epsilon (no gradient to that component)
///     eta     (ln max(1 + x, epsilon) - ln max(1 - x, epsilon)) / 2,   x = pz / sqrt(max(|p|^2, epsilon))
///     mass    sqrt(max(p.p, epsilon))
enum class Kinematic { pt, phi, eta, mass };

void kinematic(Context& ctx, Kinematic quantity, const Tensor& p, Tensor& y);  ///< p [..., 4], y [...]
void kinematic_backward(Context& ctx, Kinematic quantity, const Tensor& dy, const Tensor& p, Tensor& dp);

/// The boost into the rest frame of p: Lambda p = (m, 0, 0, 0) for time-like p with positive energy.
///
///     Lambda = | gamma         -gamma beta^T                        |    beta = p / max(E, epsilon)
///              | -gamma beta   1 + (gamma - 1) beta beta^T / beta^2 |    gamma = 1 / sqrt(max(1 - beta^2, epsilon))
///
/// beta^2 in the denominator is at least epsilon. Light-like and space-like p get gamma = 1e5 and a matrix that is no
/// Lorentz transformation; whoever boosts those must regularise them first.
void restframe_boost(Context& ctx, const Tensor& p, Tensor& boost);  ///< p [T, 4], boost [T, 4, 4]
void restframe_boost_backward(Context& ctx, const Tensor& dboost, const Tensor& p, Tensor& dp);

/// y[t,...] = L[t] v[t,...]: each token's matrix on its own four-vectors.
///
///   matrices   L     [T, 4, 4], row-major
///   vectors    v, y  [T, 4] or [T, N, 4]; y may not alias v
void lorentz_transform(Context& ctx, const Tensor& matrices, const Tensor& vectors, Tensor& y);
///     dv = L^T dy
void lorentz_transform_backward_vectors(Context& ctx, const Tensor& dy, const Tensor& matrices, Tensor& dvectors);
///     dL = sum over N of dy v^T, in order
void lorentz_transform_backward_matrices(Context& ctx, const Tensor& dy, const Tensor& vectors, Tensor& dmatrices);

}  // namespace lightcone::kernels
