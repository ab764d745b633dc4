#pragma once
#include "engine/context.h"

namespace lightcone::kernels {

/// Root mean square normalisation of Lorentz vectors and scalars together, without affine parameters, for each of G
/// groups of channels (attention heads, or 1):
///
///     yv[t,:,g,c] = v[t,:,g,c] r[t,g],    ys[t,g,c] = s[t,g,c] r[t,g]
///     r[t,g] = 1 / sqrt((sum over c of |<v[g,c], v[g,c]>| + sum over c of s[g,c]^2) / (Cv + Cs) + eps)
///
/// < > the Minkowski product (+,-,-,-), so r is an invariant (Petitjean, Plehn, Spinner, Köthe, arXiv:2512.17011).
///
///   v, yv   [T, 4, G Cv]   f64, f32 or bf16; Cv may be 0
///   s, ys   [T, G Cs]      the dtype of v; Cs may be 0, but not both
///
/// yv and ys may be v and s. Sums run in f64 for f64, else in f32, in an order that depends on Cv, Cs and G alone.
/// Throws Error if a shape or dtype differs.
void lorentz_norm(Context& ctx, const Tensor& v, const Tensor& s, int64_t groups, double eps, Tensor& yv, Tensor& ys);

/// With m = r^3 (sum over c and components of dyv v + sum over c of dys s) / (Cv + Cs):
///
///     dv = r dyv - m sign(<v, v>) (v.E, -v.px, -v.py, -v.pz),    ds = r dys - m s
///
/// sign(0) = 0. Overwrites dv and ds, which may be dyv and dys, or v and s.
void lorentz_norm_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                           int64_t groups, double eps, Tensor& dv, Tensor& ds);

}  // namespace lightcone::kernels
