#include "kernels/elementwise.h"

#include <doctest/doctest.h>

#include <vector>

#include "engine/error.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("add: each element, in place too") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    // 16384 is the size of a chunk.
    for (int64_t n : {0, 1, 31, 33, 16383, 16385, 40000}) {
      CAPTURE(n);
      Context ctx;
      const Tensor a = to_tensor(ctx, normal({n}, 1), dtype), b = to_tensor(ctx, normal({n}, 2), dtype);
      Array expected = to_array(a), other = to_array(b);
      for (int64_t i = 0; i < n; ++i) expected[i] += other[i];
      Tensor y = ctx.empty({n}, dtype);
      kernels::add(ctx, a, b, y);
      CHECK(relative_error(to_array(y), expected) <= tolerance(dtype));
      Tensor in_place = a;
      kernels::add(ctx, in_place, b, in_place);
      CHECK(to_array(in_place).values == to_array(y).values);
    }
  }
}

TEST_CASE("cast: nearest even, exact where the values fit, bool is x != 0") {
  Context ctx;
  const auto cast = [&](std::initializer_list<double> values, DType from, DType to) {
    const int64_t n = values.size();
    Tensor y = ctx.empty({n}, to);
    kernels::cast(ctx, ctx.of({n}, from, std::vector<double>(values)), y);
    return to_array(y).values;
  };
  using Values = std::vector<double>;
  // bf16 keeps 8 bits: 257 lies halfway between 256 and 258, 259 between 258 and 260.
  CHECK(cast({257, 259, -257, 0.5}, DType::f64, DType::bf16) == Values{256, 260, -256, 0.5});
  // Just above halfway: rounding to float first would lose what is above, and the tie would go down.
  CHECK(cast({257 + 1e-9}, DType::f64, DType::bf16) == Values{258});
  CHECK(cast({-3, 0, 0.25, 1e-300}, DType::f64, DType::boolean) == Values{1, 0, 1, 1});
  CHECK(cast({-3, 0, 100}, DType::i8, DType::i64) == Values{-3, 0, 100});
  CHECK(cast({16777217}, DType::i32, DType::f32) == Values{16777216});
  CHECK(cast({1, 0}, DType::boolean, DType::f32) == Values{1, 0});
  CHECK(cast({}, DType::f32, DType::f64) == Values{});
  const DType all[] = {DType::f64,      DType::f32, DType::bf16, DType::f16, DType::fp8_e4m3,
                       DType::fp8_e5m2, DType::i8,  DType::i32,  DType::i64};
  for (DType from : all)
    for (DType to : all) {
      CAPTURE(fmt::format("{} to {}", from, to));
      CHECK(cast({-3, 0, 1, 8}, from, to) == Values{-3, 0, 1, 8});
    }
}

TEST_CASE("add and cast refuse what does not fit") {
  Context ctx;
  const Tensor a = ctx.zeros({2, 3}, DType::f32), i = ctx.zeros({2, 3}, DType::i32);
  Tensor y = ctx.zeros({2, 3}, DType::f32), flat = ctx.zeros({6}, DType::f32), d = ctx.zeros({2, 3}, DType::f64);
  CHECK_THROWS_WITH_AS(kernels::add(ctx, a, flat, y), "add: b has shape [6], expected [2, 3]", Error);
  CHECK_THROWS_WITH_AS(kernels::add(ctx, a, a, d), "add: y is f64, expected f32", Error);
  CHECK_THROWS_WITH_AS(kernels::add(ctx, i, i, y), "add: a is i32, expected f64, f32 or bf16", Error);
  CHECK_THROWS_WITH_AS(kernels::cast(ctx, a, flat), "cast: y has shape [6], expected [2, 3]", Error);
}
