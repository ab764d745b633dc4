#include "kernels/geometric_algebra.h"

#include <cmath>

#include "kernels/geometric_algebra_columns.h"
#include "kernels/geometric_algebra_gate.h"

// Products, gates, grades in and out; norms are in geometric_algebra_norm.cpp.
namespace lightcone::kernels {

namespace cpu {

template <class X, class Y, class S = sum_type<X>>
void geometric_product(Context& ctx, int64_t T, int64_t C, const X* lr, Y* y) {
  for_tokens(ctx, T, 6 * C, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto left = places(lr + t * 4 * C, T * 4 * C, C), right = places(lr + t * 4 * C + 2 * C, T * 4 * C, C);
      const auto out = places(y + t * 2 * C, T * 2 * C, C);
      for_columns<S>(C, [&](auto at) {
        decltype(at(left[0])) a[components], b[components];
        for (int i = 0; i < components; ++i) a[i] = at(left[i]), b[i] = at(right[i]);
        unrolled<components>([&](auto i) { put(at, product_row<term, i()>(a, b), out[i]); });
      });
    }
  });
}

template <class X, class Y, class S = sum_type<X>>
void geometric_product_backward(Context& ctx, int64_t T, int64_t C, const Y* dy, const X* lr, X* dlr) {
  for_tokens(ctx, T, 10 * C, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = t * 4 * C, stride = T * 4 * C;
      const auto left = places(lr + row, stride, C), right = places(lr + row + 2 * C, stride, C);
      const auto dleft = places(dlr + row, stride, C), dright = places(dlr + row + 2 * C, stride, C);
      const auto in = places(dy + t * 2 * C, T * 2 * C, C);
      for_columns<S>(C, [&](auto at) {
        decltype(at(left[0])) g[components], other[components];
        for (int i = 0; i < components; ++i) g[i] = at(in[i]), other[i] = at(right[i]);
        unrolled<components>([&](auto j) { put(at, product_row<left_term, j()>(g, other), dleft[j]); });
        for (int i = 0; i < components; ++i) other[i] = at(left[i]);
        unrolled<components>([&](auto k) { put(at, product_row<right_term, k()>(g, other), dright[k]); });
      });
    }
  });
}

/// The scalars of tokens [begin, end), close together.
template <class X, class S>
void scalars(int64_t begin, int64_t end, int64_t C, const X* x, S* to) {
  for (int64_t t = begin; t < end; ++t, to += C) convert(C, x + t * 2 * C, to);
}

template <Gate f, class X, class Y, class S = sum_type<X>>
void gated(Context& ctx, int64_t T, int64_t C, const X* x, Y* y) {
  for_tokens(ctx, T, 2 * C, [&](int64_t begin, int64_t end) {
    const int64_t count = (end - begin) * C;
    auto gates = ctx.scratch<S>(count);
    scalars(begin, end, C, x, gates.data());
    vector_math::map(
        count, gates.data(), [](S s) { return gate<f>(s).value; }, gates.data());
    for (int64_t p = 0; p < pairs; ++p)
      for (int64_t t = begin; t < end; ++t)
        for (int64_t at_half = (p * T + t) * 2 * C, h = 0; h < 2; ++h, at_half += C)
          map_row(C, y + at_half, [&](auto at) { return at(gates.data() + (t - begin) * C) * at(x + at_half); });
  });
}

template <Gate f, class X, class Y, class S = sum_type<X>>
void gated_backward(Context& ctx, int64_t T, int64_t C, const Y* dy, const X* x, X* dx) {
  for_tokens(ctx, T, 4 * C, [&](int64_t begin, int64_t end) {
    const int64_t count = (end - begin) * C;
    auto gates = ctx.scratch<S>(3 * count);
    S *values = gates.data(), *slopes = values + count, *sums = slopes + count;
    scalars(begin, end, C, x, sums);
    vector_math::map_pair(
        count, values, slopes,
        [](S s) {
          const auto g = gate<f>(s);
          return std::pair{g.value, g.derivative};
        },
        sums);
    std::fill_n(sums, count, S(0));
    for (int64_t p = pairs; p-- > 0;)
      for (int64_t t = begin; t < end; ++t)
        for (int64_t h = 2; h-- > 0;) {
          const int64_t here = (p * T + t) * 2 * C + h * C, token = (t - begin) * C;
          map_row(C, sums + token, [&](auto at) { return at(sums + token) + at(dy + here) * at(x + here); });
          if (p == 0 && h == 0)
            map_row(C, dx + here, [&](auto at) {
              return at(values + token) * at(dy + here) + at(slopes + token) * at(sums + token);
            });
          else
            map_row(C, dx + here, [&](auto at) { return at(values + token) * at(dy + here); });
        }
  });
}

/// Where a component lies, and its sign there.
struct Place {
  int place, sign;
};
std::vector<Place> places_of(Blades blades) {
  std::vector<Place> all;
  for (uint8_t blade : generators) all.push_back({place_of(blade), component(place_of(blade)).sign});
  const auto first = all.begin();
  switch (blades) {
    case Blades::scalar:
      return {first, first + 1};
    case Blades::vector:
      return {first + 1, first + 5};
    case Blades::bivector:
      return {first + 5, first + 11};
    case Blades::axial_vector:
      return {all[14], all[13], all[12], all[11]};
    case Blades::pseudoscalar:
      return {first + 15, all.end()};
    case Blades::multivector:
      return all;
  }
  return {};
}

geometric_algebra::Held held_by(Blades blades) {
  geometric_algebra::Held held = {};
  int position = 0;
  for (const auto [place, sign] : places_of(blades)) held[place] = static_cast<int8_t>(sign * ++position);
  return held;
}

}  // namespace cpu

namespace cuda {  // geometric_algebra.cu
using geometric_algebra::Held;
void embed(Context& ctx, const Held& held, const Tensor& x, Tensor& y);
void extract(Context& ctx, const Held& held, const Tensor& y, Tensor& x);
void geometric_product(Context& ctx, const Tensor& lr, Tensor& y);
void geometric_product_backward(Context& ctx, const Tensor& dy, const Tensor& lr, Tensor& dlr);
void gated(Context& ctx, Gate f, const Tensor& x, Tensor& y);
void gated_backward(Context& ctx, Gate f, const Tensor& dy, const Tensor& x, Tensor& dx);
void grade_dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y);
}  // namespace cuda

int64_t count_of(Blades blades) { return static_cast<int64_t>(cpu::places_of(blades).size()); }

void embed(Context& ctx, Blades blades, const Tensor& x, Tensor& y) {
  const auto [T, C] = check_multivector(ctx, "embed", "y", y);
  const int64_t P = count_of(blades);
  check(ctx, "embed", "x", x).shape({T, P, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("embed", x.bytes() + y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::embed(ctx, cpu::held_by(blades), x, y);
  dispatch_compute("embed", y.dtype(), [&, T = T, C = C](auto type) {
    using E = typename decltype(type)::type;
    std::fill_n(y.data<E>(), y.numel(), E(0.f));
    const auto places = cpu::places_of(blades);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t p = 0; p < P; ++p) {
        const auto [place, sign] = places[p];
        const E* from = x.data<E>() + (t * P + p) * C;
        E* to = y.data<E>() + (place / 2 * T + t) * 2 * C + place % 2 * C;
        for (int64_t c = 0; c < C; ++c) to[c] = sign > 0 ? from[c] : E(-from[c]);
      }
  });
}

void extract(Context& ctx, Blades blades, const Tensor& y, Tensor& x) {
  const auto [T, C] = check_multivector(ctx, "extract", "y", y);
  const int64_t P = count_of(blades);
  check(ctx, "extract", "x", x).shape({T, P, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("extract", 2. * x.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::extract(ctx, cpu::held_by(blades), y, x);
  dispatch_compute("extract", y.dtype(), [&, T = T, C = C](auto type) {
    using E = typename decltype(type)::type;
    const auto places = cpu::places_of(blades);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t p = 0; p < P; ++p) {
        const auto [place, sign] = places[p];
        const E* from = y.data<E>() + (place / 2 * T + t) * 2 * C + place % 2 * C;
        E* to = x.data<E>() + (t * P + p) * C;
        for (int64_t c = 0; c < C; ++c) to[c] = sign > 0 ? from[c] : E(-from[c]);
      }
  });
}

void grade_dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y) {
  const char* name = "grade_dropout";
  const auto [T, C] = check_multivector(ctx, name, "x", x);
  check(ctx, name, "y", y).like(x);
  if (!(p >= 0 && p < 1)) fail(name, "p is {}, expected [0, 1)", p);
  if (draw.recorded && static_cast<int64_t>(draw.recorded->size()) < 5 * T * C)
    fail(name, "{} recorded numbers, expected {}", draw.recorded->size(), 5 * T * C);
  const auto scope = ctx.profiler().scope(name, x.bytes() + y.bytes(), 1. * x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::grade_dropout(ctx, draw, p, x, y);
  dispatch_compute(name, x.dtype(), [&, T = T, C = C](auto type) {
    using E = typename decltype(type)::type;
    using S = sum_type<E>;
    const S scale = static_cast<S>(1 / (1 - p));
    cpu::for_tokens(ctx, T, 2 * C, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t c = 0; c < C; ++c) {
          S factors[5];
          for (int64_t k = 0; k < 5; ++k) factors[k] = draw.uniform((t * C + c) * 5 + k) >= p ? scale : S(0);
          for (int i = 0; i < cpu::components; ++i) {
            const int64_t at = (i / 2 * T + t) * 2 * C + i % 2 * C + c;
            const S factor = factors[cpu::grade(cpu::component(i).blade)];
            y.data<E>()[at] = factor == 0 ? E(0.f) : E(S(x.data<E>()[at]) * factor);
          }
        }
    });
  });
}

void geometric_product(Context& ctx, const Tensor& lr, Tensor& y) {
  const char* name = "geometric_product";
  const auto [T, twice] = check_multivector(ctx, name, "lr", lr);
  if (twice % 2) fail(name, "lr has {} columns, expected a multiple of 4", 2 * twice);
  const int64_t C = twice / 2;
  check_narrow(ctx, name, "y", y, {cpu::pairs, T, 2 * C}, lr.dtype());
  const auto scope = ctx.profiler().scope(name, lr.bytes() + y.bytes(), 512. * T * C);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::geometric_product(ctx, lr, y);
  dispatch_narrow(name, lr.dtype(), y.dtype(), [&, T = T](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    cpu::geometric_product(ctx, T, C, lr.data<X>(), y.data<Y>());
  });
}

void geometric_product_backward(Context& ctx, const Tensor& dy, const Tensor& lr, Tensor& dlr) {
  const char* name = "geometric_product_backward";
  const auto [T, twice] = check_multivector(ctx, name, "lr", lr);
  if (twice % 2) fail(name, "lr has {} columns, expected a multiple of 4", 2 * twice);
  const int64_t C = twice / 2;
  check_narrow(ctx, name, "dy", dy, {cpu::pairs, T, 2 * C}, lr.dtype());
  check(ctx, name, "dlr", dlr).like(lr);
  const auto scope = ctx.profiler().scope(name, 2. * lr.bytes() + dy.bytes(), 1024. * T * C);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::geometric_product_backward(ctx, dy, lr, dlr);
  dispatch_narrow(name, lr.dtype(), dy.dtype(), [&, T = T](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    cpu::geometric_product_backward(ctx, T, C, dy.data<Y>(), lr.data<X>(), dlr.data<X>());
  });
}

void gated(Context& ctx, Gate f, const Tensor& x, Tensor& y) {
  const auto [T, C] = check_multivector(ctx, "gated", "x", x);
  check_narrow(ctx, "gated", "y", y, x.shape(), x.dtype());
  const auto scope = ctx.profiler().scope("gated", x.bytes() + y.bytes(), 17. * T * C);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::gated(ctx, f, x, y);
  dispatch_narrow("gated", x.dtype(), y.dtype(), [&, T = T, C = C](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    geometric_algebra::with_gate(f, [&](auto gate) { cpu::gated<gate()>(ctx, T, C, x.data<X>(), y.data<Y>()); });
  });
}

void gated_backward(Context& ctx, Gate f, const Tensor& dy, const Tensor& x, Tensor& dx) {
  const auto [T, C] = check_multivector(ctx, "gated_backward", "x", x);
  check_narrow(ctx, "gated_backward", "dy", dy, x.shape(), x.dtype());
  check(ctx, "gated_backward", "dx", dx).like(x);
  const auto scope = ctx.profiler().scope("gated_backward", 2. * x.bytes() + dy.bytes(), 52. * T * C);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::gated_backward(ctx, f, dy, x, dx);
  dispatch_narrow("gated_backward", x.dtype(), dy.dtype(), [&, T = T, C = C](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    geometric_algebra::with_gate(
        f, [&](auto gate) { cpu::gated_backward<gate()>(ctx, T, C, dy.data<Y>(), x.data<X>(), dx.data<X>()); });
  });
}

}  // namespace lightcone::kernels
