#pragma once
#include "kernels/elementwise.h"

namespace lightcone::kernels {

/// Gated linear unit for Lorentz vectors and scalars, behind its linear map (Petitjean, Plehn, Spinner, Köthe,
/// arXiv:2512.17011; Shazeer, arXiv:2002.05202):
///
///     vectors    y[t,p,c] = x[t,p,c] f(u[t,c]),    u[t,c] = <x[t,:,C+c], x[t,:,2C+c]>     x [T, 4, 3C], y [T, 4, C]
///     scalars    y[t,c] = x[t,c] f(u[t,c]),        u[t,c] = x[t,C+c]                      x [T, 2C],    y [T, C]
///
/// < > the Minkowski product (+,-,-,-), so vectors keep their directions. f is gelu, relu, silu, sigmoid or tanh
/// (elementwise.h). f64, f32 or bf16, computed in f32 for bf16. y may not alias x. An element's bits depend neither on
/// its place nor on the other tokens.
/// Throws Error if a shape or dtype differs or f is another function.
void gated_unit(Context& ctx, const Tensor& x, Unary f, Tensor& y);

///     vectors    dx[:,c] = dy f(u),   dx[:,C+c] = d g x[:,2C+c],   dx[:,2C+c] = d g x[:,C+c],   d = f'(u) sum over p of dy x[p,c]
///     scalars    dx[c] = dy f(u),     dx[C+c] = dy x[c] f'(u)
///
/// g the metric's signs. Overwrites dx, which may be x.
void gated_unit_backward(Context& ctx, const Tensor& dy, const Tensor& x, Unary f, Tensor& dx);

}  // namespace lightcone::kernels
