#pragma once
#include "kernels/lorentz_norm.h"

// What lorentz_norm.cu does for other families, too.
namespace lightcone::kernels::cuda {

/// yv and ys may be bf16 where v and s are f32.
void lorentz_norm(Context& ctx, const Tensor& v, const Tensor& s, int64_t groups, double eps, Tensor& yv, Tensor& ys);
/// dv = add_v + …, ds = add_s + …; undefined: none. dyv undefined: zeros. dv and ds may be any operand of their shape.
void lorentz_norm_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                           int64_t groups, double eps, const Tensor& add_v, const Tensor& add_s, Tensor& dv,
                           Tensor& ds);

}  // namespace lightcone::kernels::cuda
