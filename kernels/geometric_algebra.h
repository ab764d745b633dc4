#pragma once
#include "engine/context.h"

/// Multivectors of the space-time algebra (metric +,-,-,-), for L-GATr (Spinner et al., arXiv:2405.14806; Brehmer et
/// al., arXiv:2411.00446). Equivariant maps mix a component with its dual, the pseudoscalar times it, and with nothing
/// else; so a component and its dual lie side by side, as the real and imaginary part of one number would, and such a
/// map is one plain matrix product.
///
///   x  [8, T, 2C]    f64, f32 or bf16;    T tokens, C channels
///
///   pair    0        1        2        3        4        5       6        7
///   half 0  1        e0       e1       e2       e3       e01     e02      e03
///   half 1  e0123    e123     e023    -e013     e012     e23    -e13      e12
///
/// Columns run in groups of g channels (a divisor of C): g of half 0, then the g of half 1 that are their duals; then
/// the next group. Groups are attention heads, or operands; elsewhere g = C. With that, the scalar is column 0 of pair
/// 0, and multiplying by the pseudoscalar takes (a, b) to (-b, a) for every pair but for signs that equi_linear.h says.
///
/// No tokens: nothing is written. A token's result depends on that token alone. Backward kernels overwrite. Throws
/// Error if a shape or dtype differs.
namespace lightcone::kernels {

/// Which components a plain tensor [T, P, C] holds, in this order.
enum class Blades : uint8_t {
  scalar,        ///< P = 1
  vector,        ///< P = 4: e0, e1, e2, e3
  bivector,      ///< P = 6: e01, e02, e03, e12, e13, e23
  axial_vector,  ///< P = 4: e123, e023, e013, e012
  pseudoscalar,  ///< P = 1
  multivector    ///< P = 16: 1, vector, bivector, e012, e013, e023, e123, e0123
};
int64_t count_of(Blades blades);

/// y = the multivectors with these components, zeros elsewhere;  x [T, P, C], y [8, T, 2C], one group. This is the
/// backward of extract, too.
void embed(Context& ctx, Blades blades, const Tensor& x, Tensor& y);
/// The inverse: y's components.
void extract(Context& ctx, Blades blades, const Tensor& y, Tensor& x);

/// y = l r, channel by channel: the geometric product.
///
///   lr  [8, T, 4C]   two groups of C channels: l, then r
///   y   [8, T, 2C]   the dtype of lr, or bf16 for f32 where bf16 products alone read it
void geometric_product(Context& ctx, const Tensor& lr, Tensor& y);
///     dl = sum over terms of ± dy r,    dr = sum of ± l dy          dy like y, dlr like lr
void geometric_product_backward(Context& ctx, const Tensor& dy, const Tensor& lr, Tensor& dlr);

/// The activation that gates a multivector. gelu is its approximation by tanh (Hendrycks, Gimpel, arXiv:1606.08415).
enum class Gate : uint8_t { relu, sigmoid, gelu, silu };

///     y = f(s) x,    s the scalar component of x
///
///   x  [8, T, 2C], one group;    y  the same, in the dtype of x, or bf16 for f32 where bf16 products alone read it
void gated(Context& ctx, Gate f, const Tensor& x, Tensor& y);
///     dx = f(s) dy,    plus f'(s) <dy, x> for the scalar component;    < > the plain sum over components
void gated_backward(Context& ctx, Gate f, const Tensor& dy, const Tensor& x, Tensor& dx);

/// Equivariant layer norm, for each group of g channels.
///
///     y = x rstd,    rstd = 1 / sqrt(max(m, eps)),    m = mean over channels, sum over grades of | sum of ± x^2 |
///
/// ± the metric: + - - - for vectors, - - - + + + for bivectors. (No such norm is above a plain sum of squares, and a
/// light-like vector's is 0: hence the bound.)
///
///   x, y   [8, T, 2C]   y as in gated()
///   rstd   [T, C / g]   f64 for f64, else f32; the backward reads it
void equi_norm(Context& ctx, const Tensor& x, int64_t group, double eps, Tensor& y, Tensor& rstd);
///     dx = add + rstd (dy ∓ <dy, y> y / g),    ∓ the sign of x^2 in m; without the second part where m is at most eps
///
/// `add`: another gradient of x, or an undefined tensor. dx may be add.
void equi_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, double eps,
                        const Tensor& add, Tensor& dx);

/// Dropout of whole grades, and its own backward given the same Draw.
///
///     y = x / (1 - p) for the components of a grade k (0 … 4) with u[t,c,k] >= p, else 0;    u uniform in [0, 1)
///
/// x, y [8, T, 2C], one group; y may be x. Throws Error if p is outside [0, 1) or the Draw holds fewer recorded numbers
/// than 5 T C.
void grade_dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y);

}  // namespace lightcone::kernels
