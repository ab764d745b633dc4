// Features in local frames: transformation by tensor representations.
#include "autograd/frames.h"

#include <doctest/doctest.h>

#include "engine/error.h"
#include "engine/safetensors.h"
#include "tests/support/devices.h"
#include "tests/support/frames.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("frames_transform: any representation, into the frame and back") {
  for (const char* text : representations)
    for (FrameMap map : maps)
      for (int64_t T : {0, 1, 67}) {
        if (T > 1 && TensorReps(text).dim() > 40) continue;
        const TensorReps reps(text);
        check_op({.name = fmt::format("frames_transform {} map {} T {}", text, int(map), T),
                  .inputs = {normal({T, 2 * reps.dim()}, 1), frames_of(T, 2)},
                  .op = [=](auto& v) { return std::vector{frames_transform(v[0], as_frames(v[1], v[0]), reps, map)}; },
                  .oracle = [=](auto& v) { return std::vector{naive_transform(v[0], v[1], reps, map)}; }});
      }
}

TEST_CASE("frames_transform: to the laboratory and back, in place, is nothing") {
  for (Device device : devices())
    for (const char* text : {"2x0n+1x0p+2x1n+1x2n", "1x0p+1x3p+2x4n", "3x3n"}) {
      Context ctx(device);
      const TensorReps reps(text);
      const Array x = normal({9, 2 * reps.dim()}, 1), frames = frames_of(9, 3);
      Tensor y = to_tensor(ctx, x, DType::f64);
      const Tensor f = to_tensor(ctx, frames, DType::f64);
      kernels::frames_transform(ctx, y, f, reps, FrameMap::to_global, y);
      CHECK(largest_difference(to_array(y), x) > 0.1);
      kernels::frames_transform(ctx, y, f, reps, FrameMap::to_local, y);
      CHECK(largest_difference(to_array(y), x) < 1e-12);
    }
}

TEST_CASE("frames_transform: more terms than a launch on a GPU takes; a row depends on itself alone") {
  std::string text;  // even and odd ones in turns are not merged
  for (int i = 0; i < 18; ++i) text += fmt::format("{}{}x{}{}", i ? "+" : "", 1 + i % 3, i / 10, i % 2 ? 'p' : 'n');
  const TensorReps reps(text);
  REQUIRE(reps.terms().size() == 18);
  const Array x = normal({5, reps.dim()}, 1), frames = frames_of(5, 2);
  for (Device device : devices()) {
    Context ctx(device);
    for (DType dtype : {DType::f64, DType::bf16}) {
      const Tensor in = to_tensor(ctx, x, dtype), f = to_tensor(ctx, frames, sum_dtype(dtype));
      Tensor y = ctx.empty(in.shape(), dtype), one = ctx.empty({1, reps.dim()}, dtype);
      kernels::frames_transform(ctx, in, f, reps, FrameMap::to_global, y);
      const Array expected = naive_transform(to_array(in), to_array(f), reps, FrameMap::to_global);
      CHECK(relative_error(to_array(y), expected) < tolerance(dtype));
      for (int64_t t = 0; t < 5; ++t) {
        kernels::frames_transform(ctx, in.narrow(t, 1), f.narrow(t, 1), reps, FrameMap::to_global, one);
        CHECK(to_array(one).values == to_array(y.narrow(t, 1)).values);
      }
    }
  }
}

TEST_CASE("frames: numbers of the reference implementation") {
  Context cpu;
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/frames.safetensors");
  for (Device device : devices()) {
    Context ctx(device);
    auto read = [&](const std::string& name) { return ctx.copy(file.load(cpu, name)); };
    for (const char* text : {"4x0n", "3x1n", "2x0n+3x1n", "1x2n", "2x0n+1x1n+2x2n", "1x3n+1x0n", "1x1n+2x0n+1x1n",
                             "2x0n+2x0p+1x1n", "3x0p", "2x2p", "1x0n+1x1p"}) {
      CAPTURE(text);
      const std::string at = fmt::format("reps/{}/", text);
      Tape tape(ctx);
      const Var x = tape.variable(read(at + "in"));
      const Var y = frames_transform(x, tape.constant(read("frames/in")), TensorReps(text), FrameMap::to_local);
      tape.backward(y, read(at + "grad_out"));
      CHECK(relative_error(to_array(y.value()), to_array(read(at + "out"))) < 1e-12);
      CHECK(relative_error(to_array(tape.gradient(x)), to_array(read(at + "grad_in"))) < 1e-12);
    }
  }
}

TEST_CASE("tensor representations: width and canonical form") {
  auto check = [](const char* text, int64_t dim, const char* canonical) {
    const TensorReps reps(text);
    CHECK(reps.dim() == dim);
    CHECK(reps.text() == canonical);
  };
  check("8x0n+2x1n", 16, "8x0n+2x1n");
  check("1x1n", 4, "1x1n");
  check("2x2n", 32, "2x2n");
  check("1x2n + 3x0n+1x0n", 20, "4x0n+1x2n");
  check("0x0n+2x1p", 8, "2x1p");
  check("2x1p+1x1n+1x1n", 16, "2x1p+2x1n");
}

TEST_CASE("tensor representations: whatever else is refused by name") {
  for (const char* text : {"", "8", "8x", "x0n", "8x0", "8x0m", "8x0n+", "+8x0n", "-1x0n", "8x5n", "8x-1n",
                           "99999999999999999999x0n", "8x0nn", "8y0n"}) {
    const std::string message =
        fmt::format("tensor representation: '{}' is not of the form 8x0n+2x1n (multiplicity x order, n or p)", text);
    CHECK_THROWS_WITH_AS(TensorReps{text}, message.c_str(), Error);
  }
}

TEST_CASE("frames_gradient ends where it leaves the dtype, and passes on what is not finite itself") {
  for (Device device : devices())
    for (const char* text : {"2x1n", "1x0n+1x1n+1x2n"}) {
      Context ctx(device, 1);
      const TensorReps reps(text);
      const int64_t T = 3, D = reps.dim();
      Array x = normal({T, D}, 1), dx = normal({T, D}, 2);
      for (int64_t i = D; i < 2 * D; ++i) x[i] *= 1e25, dx[i] *= 1e25;
      dx[3 * D - 1] = NAN;
      const Tensor in = to_tensor(ctx, x, DType::f32), din = to_tensor(ctx, dx, DType::f32);
      const kernels::FramedFeatures features{in, din, 0, 0, 1};
      Tensor gradient = ctx.empty({T, 4, 4}, DType::f32);
      kernels::frames_gradient(ctx, {&features, 1}, to_tensor(ctx, frames_of(T, 3), DType::f32), reps, gradient);
      const Array g = to_array(gradient);
      double first = 0, second = 0, third = 0;
      for (int64_t i = 0; i < 16; ++i) {
        first += std::abs(g[i]);
        second += std::abs(g[16 + i]);
        third += std::abs(g[32 + i]);
      }
      CHECK(std::isfinite(first));
      CHECK(first > 0);
      CHECK(second == 0);
      CHECK(std::isnan(third));
    }
}

// Outer products of all quadruples along all indices, and the header's formulas as products of matrices.
TEST_CASE("frames_gradient: pairs of features of both kinds, from any columns on") {
  const int64_t T = 5;
  const Array frames = frames_of(T, 1);
  for (const char* text : {"4x0n+3x1n", "1x0p+2x1n+1x2p", "1x1n+1x3n", "1x4n"})
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const TensorReps reps(text);
      const int64_t D = reps.dim();
      struct Pair {
        int64_t x_column, dx_column, copies;
        bool local;
      };
      const Pair pairs[] = {{0, 4, 2, true}, {3, 0, 1, false}, {4, 8, 2, false}, {0, 0, 0, true}};
      auto features_of = [&](Context& ctx) {
        std::vector<kernels::FramedFeatures> features;
        for (const Pair& p : pairs) {
          const uint64_t seed = 10 + 2 * features.size();
          features.push_back({to_tensor(ctx, normal({T, p.x_column + p.copies * D + 4}, seed), dtype),
                              to_tensor(ctx, normal({T, p.dx_column + p.copies * D}, seed + 1), dtype), p.x_column,
                              p.dx_column, p.copies, p.local});
        }
        return features;
      };
      Context cpu;
      Array expected = zeros({T, 4, 4});
      const auto features = features_of(cpu);
      const Array L = to_array(to_tensor(cpu, frames, sum_dtype(dtype)));
      for (int64_t t = 0; t < T; ++t)
        for (const auto& f : features) {
          double P[4][4] = {};
          const Array x = to_array(f.x), dx = to_array(f.dx);
          for (int64_t copy = 0; copy < f.copies; ++copy) {
            int64_t column = copy * D;
            for (const auto& term : reps.terms())
              for (int64_t k = 0; k < term.multiplicity; ++k, column += int64_t{1} << 2 * term.order)
                for (int64_t stride = 1; stride < int64_t{1} << 2 * term.order; stride *= 4)
                  for (int64_t i = 0; i < int64_t{1} << 2 * term.order; ++i)
                    for (int64_t j = 0; j < 4; ++j) {
                      const int64_t mu = i / stride % 4, other = i + (j - mu) * stride;
                      P[mu][j] += dx.at(t, f.dx_column + column + i) * x.at(t, f.x_column + column + other);
                    }
          }
          auto g = [](int64_t i) { return i ? -1 : 1; };
          for (int64_t i = 0; i < 16; ++i)
            for (int64_t k = 0; k < 4; ++k)
              expected[16 * t + i] += (f.made_by_to_local ? P[i / 4][k] * g(k) : g(i / 4) * P[k][i / 4]) *
                                      L[16 * t + 4 * k + i % 4] * g(i % 4);
        }
      for (Device device : devices()) {
        CAPTURE(text);
        CAPTURE(name_of(dtype));
        CAPTURE(name_of(device));
        Context ctx(device);
        Tensor dframes = ctx.empty({T, 4, 4}, sum_dtype(dtype));
        kernels::frames_gradient(ctx, features_of(ctx), to_tensor(ctx, frames, sum_dtype(dtype)), reps, dframes);
        CHECK(relative_error(to_array(dframes), expected) < tolerance(sum_dtype(dtype)));
        const std::vector<kernels::FramedFeatures> many(17, features_of(ctx)[0]);
        CHECK_THROWS_WITH_AS(kernels::frames_gradient(ctx, many, dframes, reps, dframes),
                             "frames_gradient: 17 pairs of features, expected at most 16", Error);
      }
    }
}
