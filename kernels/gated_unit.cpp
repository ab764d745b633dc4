#include "kernels/gated_unit.h"

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/gated_unit_math.h"
#include "kernels/gated_unit_rows.h"

namespace lightcone::kernels {

namespace gated {

template <class S>
void activate(Unary f, int64_t n, const S* u, S* y, S* slope) {
  const bool known = with_function(f, [&](auto function) {
    constexpr Unary g = function();
    if (!slope)
      return vector_math::map(
          n, y, [](S v) { return elementwise::value<g>(v); }, u);
    vector_math::map_pair(
        n, y, slope, [](S v) { return value_and_slope<g>(v); }, u);
  });
  if (!known) fail("gated_unit", "f is none of gelu, relu, silu, sigmoid and tanh");
}
template void activate(Unary, int64_t, const float*, float*, float*);
template void activate(Unary, int64_t, const double*, double*, double*);

}  // namespace gated

namespace cpu {
namespace {
constexpr int64_t block = 16;  // tokens whose arguments are activated together

template <int parts, class X, class F>
void per_block(Context& ctx, int64_t T, int64_t C, F&& f) {
  using S = sum_type<X>;
  const int64_t grain = (grain_for(parts * gated::inputs<parts> * C) + block - 1) / block * block;
  parallel_chunks(ctx, T, grain, [&](int64_t, int64_t begin, int64_t end) {
    auto gate = ctx.scratch<S>(block * C), slope = ctx.scratch<S>(block * C);
    for (int64_t t = begin; t < end; t += block) f(t, std::min(block, end - t), gate.data(), slope.data());
  });
}

template <int parts, class X>
void gated_unit(Context& ctx, int64_t T, int64_t C, const X* x, Unary f, X* y) {
  using S = sum_type<X>;
  per_block<parts, X>(ctx, T, C, [&](int64_t t, int64_t n, S* gate, S*) {
    const X* in = x + t * parts * gated::inputs<parts> * C;
    gated::arguments<parts>(n, C, in, gate);
    gated::activate<S>(f, n * C, gate, gate, nullptr);
    gated::apply<parts>(n, C, in, gate, y + t * parts * C);
  });
}

template <int parts, class X>
void gated_unit_backward(Context& ctx, int64_t T, int64_t C, const X* dy, const X* x, Unary f, X* dx) {
  using S = sum_type<X>;
  per_block<parts, X>(ctx, T, C, [&](int64_t t, int64_t n, S* gate, S* slope) {
    const int64_t at = t * parts * gated::inputs<parts> * C;
    gated::arguments<parts>(n, C, x + at, gate);
    gated::activate(f, n * C, gate, gate, slope);
    gated::backward<parts>(n, C, dy + t * parts * C, x + at, gate, slope, dx + at);
  });
}

}  // namespace
}  // namespace cpu

namespace cuda {  // gated_unit.cu
void gated_unit(Context& ctx, const Tensor& x, Unary f, Tensor& y);
void gated_unit_backward(Context& ctx, const Tensor& dy, const Tensor& x, Unary f, Tensor& dx);
}  // namespace cuda

namespace {

// g(integral_constant parts, C) for the layout of x.
template <class G>
void dispatch_parts(const Context& ctx, const char* where, Unary f, const Tensor& x, const char* name, const Tensor& y,
                    G&& g) {
  check(ctx, where, "x", x).compute();
  const bool vectors = x.rank() == 3;
  if (!vectors && x.rank() != 2) fail(where, "x has shape {}, expected [T, 4, 3 C] or [T, 2 C]", x.shape());
  const int64_t inputs = vectors ? 3 : 2, C = x.dim(-1) / inputs;
  if ((vectors && x.dim(1) != 4) || x.dim(-1) % inputs)
    fail(where, "x has shape {}, expected [T, 4, 3 C] or [T, 2 C]", x.shape());
  Shape expected = x.shape();
  expected[-1] = C;
  check(ctx, where, name, y).shape(expected).dtype(x.dtype());
  if (!gated::with_function(f, [](auto) {})) fail(where, "f is none of gelu, relu, silu, sigmoid and tanh");
  if (vectors)
    g(std::integral_constant<int, 4>{}, C);
  else
    g(std::integral_constant<int, 1>{}, C);
}

}  // namespace

void gated_unit(Context& ctx, const Tensor& x, Unary f, Tensor& y) {
  dispatch_parts(ctx, "gated_unit", f, x, "y", y, [&](auto parts, int64_t C) {
    const auto scope = ctx.profiler().scope("gated_unit", x.bytes() + y.bytes(), 3. * y.numel());
    if constexpr (built_with_cuda)
      if (ctx.device() == Device::cuda) return cuda::gated_unit(ctx, x, f, y);
    dispatch_compute("gated_unit", x.dtype(), [&](auto type) {
      using X = typename decltype(type)::type;
      cpu::gated_unit<parts, X>(ctx, x.dim(0), C, x.data<X>(), f, y.data<X>());
    });
  });
}

void gated_unit_backward(Context& ctx, const Tensor& dy, const Tensor& x, Unary f, Tensor& dx) {
  const char* where = "gated_unit_backward";
  dispatch_parts(ctx, where, f, x, "dy", dy, [&](auto parts, int64_t C) {
    check(ctx, where, "dx", dx).like(x);
    const auto scope = ctx.profiler().scope(where, 2. * x.bytes() + dy.bytes(), 8. * dy.numel());
    if constexpr (built_with_cuda)
      if (ctx.device() == Device::cuda) return cuda::gated_unit_backward(ctx, dy, x, f, dx);
    dispatch_compute(where, x.dtype(), [&](auto type) {
      using X = typename decltype(type)::type;
      cpu::gated_unit_backward<parts, X>(ctx, x.dim(0), C, dy.data<X>(), x.data<X>(), f, dx.data<X>());
    });
  });
}

}  // namespace lightcone::kernels
