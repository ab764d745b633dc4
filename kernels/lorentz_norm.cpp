#include "kernels/lorentz_norm.h"

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/lorentz_norm_cuda.h"
#include "kernels/lorentz_norm_rows.h"

namespace lightcone::kernels {

namespace {

struct Sizes {
  int64_t T, V, N;           // tokens, vector channels, scalar channels
  int64_t vectors, scalars;  // of a group
};

Sizes check_norm(const Context& ctx, const char* where, const Tensor& v, const Tensor& s, int64_t groups) {
  check(ctx, where, "v", v).rank(3).compute();
  check(ctx, where, "s", s).rank(2).dtype(v.dtype());
  if (v.dim(1) != 4) fail(where, "v has shape {}, expected 4 components along its second axis", v.shape());
  if (s.dim(0) != v.dim(0)) fail(where, "s has {} tokens, v has {}", s.dim(0), v.dim(0));
  const int64_t V = v.dim(2), N = s.dim(1);
  if (groups < 1 || V % groups || N % groups)
    fail(where, "{} vector and {} scalar channels in {} groups, expected multiples", V, N, groups);
  if (V + N == 0) fail(where, "v and s have 0 channels");
  return {v.dim(0), V, N, V / groups, N / groups};
}

// f(rows, t) for all tokens, with the LorentzNormRows of a thread.
template <class S, class F>
void for_tokens(Context& ctx, const Sizes& n, int64_t groups, double eps, F&& f) {
  parallel_chunks(ctx, n.T, grain_for(4 * n.V + n.N), [&](int64_t, int64_t begin, int64_t end) {
    LorentzNormRows<S> rows(ctx, groups, n.vectors, n.scalars, eps);
    for (int64_t t = begin; t < end; ++t) f(rows, t);
  });
}

}  // namespace

void lorentz_norm(Context& ctx, const Tensor& v, const Tensor& s, int64_t groups, double eps, Tensor& yv, Tensor& ys) {
  const Sizes n = check_norm(ctx, "lorentz_norm", v, s, groups);
  check(ctx, "lorentz_norm", "yv", yv).like(v);
  check(ctx, "lorentz_norm", "ys", ys).like(s);
  const auto scope = ctx.profiler().scope("lorentz_norm", 2. * (v.bytes() + s.bytes()), n.T * (12. * n.V + 3. * n.N));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::lorentz_norm(ctx, v, s, groups, eps, yv, ys);
  dispatch_compute("lorentz_norm", v.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    for_tokens<sum_type<X>>(ctx, n, groups, eps, [&](auto& rows, int64_t t) {
      const int64_t at_v = t * 4 * n.V, at_s = t * n.N;
      rows.forward(v.data<X>() + at_v, s.data<X>() + at_s, yv.data<X>() + at_v, ys.data<X>() + at_s);
    });
  });
}

void lorentz_norm_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                           int64_t groups, double eps, Tensor& dv, Tensor& ds) {
  const char* where = "lorentz_norm_backward";
  const Sizes n = check_norm(ctx, where, v, s, groups);
  check(ctx, where, "dyv", dyv).like(v);
  check(ctx, where, "dys", dys).like(s);
  check(ctx, where, "dv", dv).like(v);
  check(ctx, where, "ds", ds).like(s);
  const auto scope = ctx.profiler().scope(where, 3. * (v.bytes() + s.bytes()), n.T * (31. * n.V + 7. * n.N));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::lorentz_norm_backward(ctx, dyv, dys, v, s, groups, eps, {}, {}, dv, ds);
  dispatch_compute(where, v.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    for_tokens<sum_type<X>>(ctx, n, groups, eps, [&](auto& rows, int64_t t) {
      const int64_t at_v = t * 4 * n.V, at_s = t * n.N;
      const X* none = nullptr;
      rows.backward(v.data<X>() + at_v, s.data<X>() + at_s, dyv.data<X>() + at_v, dys.data<X>() + at_s, none, none,
                    dv.data<X>() + at_v, ds.data<X>() + at_s);
    });
  });
}

}  // namespace lightcone::kernels
