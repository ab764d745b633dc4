#include <doctest/doctest.h>

#include <cmath>

#include "autograd/elementwise.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/multivectors.h"

// equi_norm; the other kernels of geometric_algebra.h are in test_geometric_algebra.cpp.
using namespace lightcone;
using namespace lightcone::test;

namespace {

// Shapes [T, 16, C]: nothing, one, odd, around a register of 8 or 16 and several chunks, more than a warp takes at
// once.
const Shape shapes[] = {{0, 16, 3}, {1, 16, 1}, {3, 16, 7}, {5, 16, 17}, {70, 16, 32}, {2, 16, 150}};

Array naive_norm(const Array& x, int64_t group, double eps) {
  static const int first[] = {0, 1, 5, 11, 15, 16};
  Array y = x;
  const int64_t T = x.shape[0], C = x.shape[2];
  for (int64_t t = 0; t < T; ++t)
    for (int64_t g = 0; g < C; g += group) {
      double mean = 0;
      for (int64_t c = g; c < g + group; ++c)
        for (int k = 0; k < 5; ++k) {
          double square = 0;
          for (int i = first[k]; i < first[k + 1]; ++i)
            square += naive_metric(i) * std::pow(x[(t * 16 + i) * C + c], 2);
          mean += std::abs(square) / group;
        }
      for (int i = 0; i < 16; ++i)
        for (int64_t c = g; c < g + group; ++c) y[(t * 16 + i) * C + c] /= std::sqrt(std::max(mean, eps));
    }
  return y;
}

/// Columns of multivectors with one group in groups of `group`: what equi_linear does with its weights.
Tensor grouped(Context& ctx, const Tensor& there, int64_t group, bool back = false) {
  Context cpu(1);
  const Tensor x = cpu.copy(there);
  Tensor y = cpu.empty(x.shape(), x.dtype());
  const int64_t C = x.dim(2) / 2, rows = x.dim(0) * x.dim(1);
  const double* in = x.data<double>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t c = 0; c < C; ++c) {
        const int64_t plain = r * 2 * C + h * C + c, other = r * 2 * C + c / group * 2 * group + h * group + c % group;
        y.data<double>()[back ? plain : other] = in[back ? other : plain];
      }
  return ctx.copy(y);
}

}  // namespace

TEST_CASE("geometric algebra: norm") {
  for (const Shape& shape : shapes)
    check_op({.name = fmt::format("equi_norm {}", shape),
              .inputs = {normal(shape, 1)},
              .op =
                  [](auto& x) {
                    return std::vector{extract(equi_norm(embed(x[0], Blades::multivector)), Blades::multivector)};
                  },
              .oracle = [&](const auto& x) { return std::vector{naive_norm(x[0], shape[2], 0.01)}; },
              // A mean in which positive and negative squares cancel is known to the rounding of its terms.
              .tolerance_factor = 10});
}

TEST_CASE("geometric algebra: norm of groups") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    for (int64_t group : {1, 2, 3, 4, 6, 12}) {
      INFO(group);
      const Array x = normal({9, 16, 12}, 1);
      Tape tape(ctx);
      const Var plain = embed(tape.constant(to_tensor(ctx, x, DType::f64)), Blades::multivector);
      const Var in = tape.variable(grouped(ctx, plain.value(), group));
      const Var y = equi_norm(in, group);
      const Tensor back = grouped(ctx, y.value(), group, true);
      const Var all = extract(tape.constant(back), Blades::multivector);
      CHECK(relative_error(to_array(all.value()), naive_norm(x, group, 0.01)) < 1e-14);
      // The gradient, from that of each group as a whole.
      const Tensor dy = to_tensor(ctx, normal(y.shape(), 2), DType::f64);
      tape.backward(y, dy);
      for (int64_t g = 0; g < 12 / group; ++g) {
        Tape one(ctx);
        auto columns = [&](const Tensor& t) { return slice(one.constant(t), 2 * group * g, 2 * group).value(); };
        const Var part = one.variable(columns(in.value()));
        one.backward(equi_norm(part), columns(dy));
        CHECK(relative_error(to_array(one.gradient(part)), to_array(columns(tape.gradient(in)))) < 1e-14);
      }
    }
  }
}

TEST_CASE("geometric algebra: the norm's bound, and multivectors without a norm") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    // Zero, a light-like vector, a null bivector, something small, something large.
    Array x = zeros({5, 16, 1});
    x.at(1 * 16 + 1, 0) = x.at(1 * 16 + 3, 0) = 5;
    x.at(2 * 16 + 5, 0) = x.at(2 * 16 + 10, 0) = 3;
    x.at(3 * 16 + 0, 0) = 0.05;
    x.at(4 * 16 + 0, 0) = 200;
    Tape tape(ctx);
    const Var in = tape.variable(to_tensor(ctx, x, DType::f64));
    const Var y = extract(equi_norm(embed(in, Blades::multivector)), Blades::multivector);
    const Array out = to_array(y.value());
    for (int i = 0; i < 64; ++i) CHECK(out[i] == doctest::Approx(10 * x[i]));
    CHECK(out[64] == doctest::Approx(1));
    tape.backward(y, to_tensor(ctx, normal(y.shape(), 5), DType::f64));
    const Array g = to_array(tape.gradient(in)), dy = normal(y.shape(), 5);
    for (int i = 0; i < 64; ++i) CHECK(g[i] == doctest::Approx(10 * dy[i]));  // below the bound a plain factor
    CHECK(std::abs(g[64]) < 1e-12);                                           // a scalar alone keeps no size
  }
}

TEST_CASE("geometric algebra: the norm's gradient on top of another one, in its place too") {
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      Context ctx(device, 1);
      const Shape shape = {8, 5, 12};
      auto of = [&](uint64_t seed) { return to_tensor(ctx, normal(shape, seed), dtype); };
      const Tensor x = of(1), dy = of(2), add = of(3);
      Tensor y = ctx.empty(shape, dtype), rstd = ctx.empty({5, 2}, sum_dtype(dtype)), dx = ctx.empty(shape, dtype),
             in_place = of(3), plain = ctx.empty(shape, dtype);
      kernels::equi_norm(ctx, x, 3, 0.01, y, rstd);
      kernels::equi_norm_backward(ctx, dy, y, rstd, 0.01, add, dx);
      kernels::equi_norm_backward(ctx, dy, y, rstd, 0.01, in_place, in_place);
      CHECK(same_bits(dx, in_place));
      kernels::equi_norm_backward(ctx, dy, y, rstd, 0.01, {}, plain);
      kernels::add(ctx, plain, add, plain);
      CHECK(relative_error(to_array(dx), to_array(plain)) < tolerance(dtype));
    }
}
