#include "kernels/gated_unit.h"

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/elementwise_math.h"
#include "kernels/gated_unit_rows.h"

namespace lightcone::kernels {

namespace gated {

template <class S>
void activate(Unary f, int64_t n, const S* u, S* y, S* slope) {
  auto run = [&](auto constant) {
    constexpr Unary g = decltype(constant)::value;
    if (!slope)
      return vector_math::map(
          n, y, [](S v) { return elementwise::value<g>(v); }, u);
    auto both = [](S v) {
      if constexpr (g == Unary::gelu) {
        const auto normal = elementwise::normal(v);
        return std::pair(v * normal.cdf, normal.cdf + v * normal.density);
      } else {
        const S value = elementwise::value<g>(v);
        return std::pair(value, elementwise::derivative<g>(backward_reads_result(g) ? value : v));
      }
    };
    vector_math::map_pair(n, y, slope, both, u);
  };
  switch (f) {
    case Unary::gelu:
      return run(std::integral_constant<Unary, Unary::gelu>{});
    case Unary::relu:
      return run(std::integral_constant<Unary, Unary::relu>{});
    case Unary::silu:
      return run(std::integral_constant<Unary, Unary::silu>{});
    case Unary::sigmoid:
      return run(std::integral_constant<Unary, Unary::sigmoid>{});
    case Unary::tanh:
      return run(std::integral_constant<Unary, Unary::tanh>{});
    default:
      throw Error("gated_unit: f is none of gelu, relu, silu, sigmoid and tanh");
  }
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

namespace {

// g(integral_constant parts, C) for the layout of x.
template <class G>
void dispatch_parts(const char* where, const Tensor& x, const char* name, const Tensor& y, G&& g) {
  check(where, "x", x).compute();
  const bool vectors = x.rank() == 3;
  if (!vectors && x.rank() != 2) fail(where, "x has shape {}, expected [T, 4, 3 C] or [T, 2 C]", x.shape());
  const int64_t inputs = vectors ? 3 : 2, C = x.dim(-1) / inputs;
  if ((vectors && x.dim(1) != 4) || x.dim(-1) % inputs)
    fail(where, "x has shape {}, expected [T, 4, 3 C] or [T, 2 C]", x.shape());
  Shape expected = x.shape();
  expected[-1] = C;
  check(where, name, y).shape(expected).dtype(x.dtype());
  if (vectors)
    g(std::integral_constant<int, 4>{}, C);
  else
    g(std::integral_constant<int, 1>{}, C);
}

}  // namespace

void gated_unit(Context& ctx, const Tensor& x, Unary f, Tensor& y) {
  dispatch_parts("gated_unit", x, "y", y, [&](auto parts, int64_t C) {
    const auto scope = ctx.profiler().scope("gated_unit", x.bytes() + y.bytes(), 3. * y.numel());
    dispatch_compute("gated_unit", x.dtype(), [&](auto type) {
      using X = typename decltype(type)::type;
      cpu::gated_unit<parts, X>(ctx, x.dim(0), C, x.data<X>(), f, y.data<X>());
    });
  });
}

void gated_unit_backward(Context& ctx, const Tensor& dy, const Tensor& x, Unary f, Tensor& dx) {
  const char* where = "gated_unit_backward";
  dispatch_parts(where, x, "dy", dy, [&](auto parts, int64_t C) {
    check(where, "dx", dx).like(x);
    const auto scope = ctx.profiler().scope(where, 2. * x.bytes() + dy.bytes(), 8. * dy.numel());
    dispatch_compute(where, x.dtype(), [&](auto type) {
      using X = typename decltype(type)::type;
      cpu::gated_unit_backward<parts, X>(ctx, x.dim(0), C, dy.data<X>(), x.data<X>(), f, dx.data<X>());
    });
  });
}

}  // namespace lightcone::kernels
