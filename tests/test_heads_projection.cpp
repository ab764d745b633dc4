#include "autograd/heads_projection.h"

#include <doctest/doctest.h>

#include "autograd/elementwise.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/naive_lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Size {
  int64_t T, V, S;
  HeadGroups groups;
  int64_t Cv, Cs;
};
// Around the chunks of tokens (32, 64, 128) and the segments (1024); then heads of tag_slim, whose four vectors fill a
// register, and others that do, with one and with 16 scalars.
const std::vector<Size> sizes = {{0, 3, 5, {2}, 1, 4},        {1, 1, 1, {1}, 1, 1},
                                 {33, 4, 7, {3, 1, 2}, 2, 4}, {129, 2, 8, {6, 2, 4}, 1, 4},
                                 {5, 0, 3, {2}, 1, 2},        {5, 3, 0, {2, 0, 1}, 1, 2},
                                 {1100, 2, 3, {2}, 1, 24},    {70, 32, 96, {24, 8, 16}, 4, 12},
                                 {9, 3, 2, {3, 0, 2}, 4, 1},  {9, 3, 2, {3, 2, 3}, 4, 16},
                                 {9, 3, 2, {2, 0, 1}, 4, 17}};

double scale(int64_t k) { return 1 / std::sqrt(std::max<double>(1, k)); }

/// v, s, w_v, w_s, bias
std::vector<Array> inputs(Size n) {
  const int64_t G = n.groups.count;
  return {normal({n.T, 4, n.V}, 1), normal({n.T, n.S}, 2), normal({G * n.Cv, n.V}, 3, scale(n.V)),
          normal({G * n.Cs, n.S}, 4, scale(n.S)), normal({G * n.Cs}, 5)};
}

Var to_heads(const std::vector<Var>& x, HeadGroups groups, bool normalise, std::optional<DType> result = {}) {
  return project_to_heads({x[0], x[1]}, {x[2], x[3], x[4]},
                          {.groups = groups, .normalise = normalise, .eps = 0.01, .result = result});
}

/// x [H, T, 4 Cv + Cs], w_v, w_s, bias and perhaps residual_v, residual_s
std::vector<Array> head_inputs(Size n, bool residual) {
  const int64_t H = n.groups.count;
  std::vector<Array> x = {normal({H, n.T, 4 * n.Cv + n.Cs}, 1), normal({n.V, H * n.Cv}, 2, scale(H * n.Cv)),
                          normal({n.S, H * n.Cs}, 3, scale(H * n.Cs)), normal({n.S}, 4)};
  if (residual) x.push_back(normal({n.T, 4, n.V}, 5)), x.push_back(normal({n.T, n.S}, 6));
  return x;
}

std::vector<Var> from_heads(const std::vector<Var>& x) {
  const LorentzVar y =
      project_from_heads(x[0], {x[1], x[2], x[3]}, x.size() > 4 ? LorentzVar{x[4], x[5]} : LorentzVar{});
  return {y.vectors, y.scalars};
}

/// f(element of heads, of vectors or scalars of which, and where there)
template <class F>
void for_features(Size n, F&& f) {
  const int64_t G = n.groups.count, D = 4 * n.Cv + n.Cs;
  for (int64_t g = 0; g < G; ++g)
    for (int64_t t = 0; t < n.T; ++t)
      for (int64_t i = 0; i < D; ++i) {
        const int64_t at = (g * n.T + t) * D + i, p = i / std::max<int64_t>(1, n.Cv),
                      c = i % std::max<int64_t>(1, n.Cv);
        const bool vector = i < 4 * n.Cv;
        const bool lowered = vector && p > 0 && g >= n.groups.lowered_begin && g < n.groups.lowered_end;
        f(at, vector, vector ? ((t * 4 + p) * G + g) * n.Cv + c : (t * G + g) * n.Cs + i - 4 * n.Cv, lowered ? -1 : 1);
      }
}

Array joined(Size n, const LorentzArray& x) {
  Array y = zeros({n.groups.count, n.T, 4 * n.Cv + n.Cs});
  for_features(n, [&](int64_t at, bool vector, int64_t from, int sign) { y[at] = sign * (vector ? x.v : x.s)[from]; });
  return y;
}

LorentzArray separated(Size n, const Array& y) {
  LorentzArray x{zeros({n.T, 4, n.groups.count * n.Cv}), zeros({n.T, n.groups.count * n.Cs})};
  for_features(n, [&](int64_t at, bool vector, int64_t to, int) { (vector ? x.v : x.s)[to] = y[at]; });
  return x;
}

Array sum(Array a, const Array& b) {
  for (int64_t i = 0; i < a.shape.numel(); ++i) a[i] += b[i];
  return a;
}

}  // namespace

// Where a vector crosses the light cone, the norm has a kink: few do within a step of 1e-8. Rounding to bf16 takes some
// across, whose share of a group's gradient, up to 1 / (Cv + Cs), then has the other sign: thus the factor 4.
TEST_CASE("project_to_heads") {
  for (Size n : sizes)
    for (bool normalise : {true, false})
      for (bool amp : {false, true})
        for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
          if (amp && dtype != DType::f32) continue;
          const bool exact = !amp && dtype != DType::bf16;
          check_op({.name = fmt::format("project_to_heads T {} V {} S {} Cv {} Cs {} {} {}", n.T, n.V, n.S, n.Cv, n.Cs,
                                        normalise, amp),
                    .inputs = inputs(n),
                    .op =
                        [=](auto& x) {
                          x[0].tape().set_amp(amp);
                          return std::vector{to_heads(x, n.groups, normalise)};
                        },
                    .oracle =
                        [=](auto& x) {
                          LorentzArray in{x[0], x[1]};
                          if (normalise) in = naive_lorentz_norm(in, 1, 0.01);
                          const Array none = zeros({x[2].shape[0]});
                          return std::vector{joined(n, naive_lorentz_norm({naive_linear({in.v, x[2], none}),
                                                                           naive_linear({in.s, x[3], x[4]})},
                                                                          n.groups.count, 0.01))};
                        },
                    .dtypes = {dtype},
                    .tolerance_factor = (exact ? 1 : 4) * (amp ? tolerance(DType::bf16) / tolerance(DType::f32) : 1),
                    .step = 1e-8});
        }
}

TEST_CASE("project_from_heads") {
  for (Size n : sizes) {
    if (n.V + n.S == 0) continue;
    n.groups = {n.groups.count};
    for (bool residual : {true, false})
      for (bool amp : {false, true})
        check_op({.name = fmt::format("project_from_heads T {} V {} S {} Cv {} Cs {} {} {}", n.T, n.V, n.S, n.Cv, n.Cs,
                                      residual, amp),
                  .inputs = head_inputs(n, residual),
                  .op =
                      [=](auto& x) {
                        x[0].tape().set_amp(amp);
                        return from_heads(x);
                      },
                  .oracle =
                      [=](auto& x) {
                        const LorentzArray in = separated(n, x[0]);
                        const Array none = zeros({n.V}), v = naive_linear({in.v, x[1], none}),
                                    s = naive_linear({in.s, x[2], x[3]});
                        return residual ? std::vector{sum(v, x[4]), sum(s, x[5])} : std::vector{v, s};
                      },
                  .dtypes = amp ? std::vector{DType::f32} : std::vector{DType::f64, DType::f32, DType::bf16},
                  .tolerance_factor = amp ? tolerance(DType::bf16) / tolerance(DType::f32) : 1});
  }
}

TEST_CASE("projections have the same bits for any number of threads, and a token's do not depend on the others") {
  for (Device device : devices())
    for (Size n : {Size{2300, 6, 10, {6, 2, 4}, 2, 4}, Size{2300, 8, 10, {6, 2, 4}, 4, 12}})
      for (DType result : {DType::f32, DType::bf16}) {
        if (device != Device::cpu) n.T = 600;  // a simulated GPU is slow
        const std::vector<Array> arrays = inputs(n);
        std::vector<std::vector<Tensor>> all;
        for (int threads : {1, 2, 5}) {
          if (device != Device::cpu && threads > 1) continue;
          Context ctx(device, threads);
          Tape tape(ctx);
          tape.set_amp(result == DType::bf16);
          std::vector<Var> x;
          for (const Array& a : arrays) x.push_back(tape.variable(to_tensor(ctx, a, DType::f32)));
          auto out_weights = [&](Tape& to, Shape shape, uint64_t seed) {
            return to.variable(to_tensor(to.context(), normal(shape, seed), DType::f32));
          };
          const int64_t G = n.groups.count;
          const ProjectionWeights out{out_weights(tape, {n.V, G * n.Cv}, 6), out_weights(tape, {n.S, G * n.Cs}, 7),
                                      Var{}};
          const Var y = to_heads(x, n.groups, true, result);
          CHECK(y.dtype() == result);
          const LorentzVar back = project_from_heads(y, out, {x[0], x[1]});
          all.push_back({y.value(), back.vectors.value(), back.scalars.value()});
          for (int64_t count : {1, 15, 33, 450}) {
            Tape part(ctx, Tape::Mode::evaluate);
            part.set_amp(tape.amp());
            std::vector<Var> few;
            for (const Var& one : x) few.push_back(part.constant(one.value()));
            for (int i : {0, 1}) few[i] = part.constant(few[i].value().narrow(100, count));
            const Var z = to_heads(few, n.groups, true, result);
            const LorentzVar few_back = project_from_heads(
                z, {part.constant(out.v.value()), part.constant(out.s.value()), Var{}}, {few[0], few[1]});
            CHECK(same_bits(few_back.vectors.value(), back.vectors.value().narrow(100, count)));
            CHECK(same_bits(few_back.scalars.value(), back.scalars.value().narrow(100, count)));
          }
          tape.backward({back.vectors, back.scalars}, {back.vectors.value(), back.scalars.value()});
          for (const Var& one : x) all.back().push_back(tape.gradient(one));
          for (const Var& one : {out.v, out.s}) all.back().push_back(tape.gradient(one));
        }
        for (const auto& some : all)
          for (size_t i = 0; i < some.size(); ++i) CHECK(same_bits(some[i], all[0][i]));
      }
}

TEST_CASE("projections to and from bf16 heads are those of f32, rounded, and so is what they read of gradients") {
  for (Device device : devices())
    for (Size n : {Size{140, 3, 4, {2, 0, 1}, 5, 6}, Size{140, 3, 4, {2, 0, 1}, 4, 6}}) {
      Context ctx(device, 1);
      ctx.allocator().set_guard(true);
      {
        std::vector<Tensor> x;
        for (const Array& a : inputs(n)) x.push_back(to_tensor(ctx, a, DType::f32));
        const kernels::Weights w_v(x[2], DType::bf16), w_s(x[3], DType::bf16);
        const kernels::ProjectionWeights w{&w_v, &w_s, x[4]};
        auto forward = [&](DType dtype) {
          Tensor y = ctx.empty({2, 140, 4 * n.Cv + n.Cs}, dtype);
          kernels::project_to_heads(ctx, x[0], x[1], w, true, n.groups, 0.01, y);
          return y;
        };
        const Tensor exact = forward(DType::f32), rounded = forward(DType::bf16);
        CHECK(same_bits(rounded, as(ctx, exact, DType::bf16)));
        for (bool normalise : {true, false}) {
          auto backward = [&](DType dtype, const Tensor& add_v, const Tensor& add_s) {
            Tensor dv = ctx.empty(x[0].shape(), DType::f32), ds = ctx.empty(x[1].shape(), DType::f32);
            kernels::project_to_heads_backward(ctx, as(ctx, rounded, dtype), x[0], x[1], w, normalise, n.groups, 0.01,
                                               add_v, add_s, {.dv = &dv, .ds = &ds});
            return std::vector{dv, ds};
          };
          const auto one = backward(DType::f32, {}, {}), other = backward(DType::bf16, {}, {}),
                     more = backward(DType::f32, x[0], x[1]);
          // Kernels for other dtypes may fuse other products with sums, so that a number is rounded to another of bf16.
          auto check_same = [&](const Tensor& got, const Tensor& expected) {
            if (device == Device::cpu)
              CHECK(same_bits(got, expected));
            else
              CHECK(relative_error(to_array(got), to_array(expected)) < tolerance(DType::bf16));
          };
          for (int i : {0, 1}) {
            check_same(one[i], other[i]);
            CHECK(relative_error(to_array(more[i]), sum(to_array(one[i]), to_array(x[i]))) < 1e-6);
          }
          // In the place of what is added.
          Tensor dv = as(ctx, x[0], DType::f32), ds = as(ctx, x[1], DType::f32);
          kernels::project_to_heads_backward(ctx, rounded, x[0], x[1], w, normalise, n.groups, 0.01, dv, ds,
                                             {.dv = &dv, .ds = &ds});
          check_same(dv, more[0]);
          check_same(ds, more[1]);
        }
        // And out of heads.
        std::vector<Tensor> o;
        for (const Array& a : head_inputs(n, true)) o.push_back(to_tensor(ctx, a, DType::f32));
        const kernels::Weights out_v(o[1], DType::bf16), out_s(o[2], DType::bf16);
        const kernels::ProjectionWeights out{&out_v, &out_s, o[3]};
        auto run = [&](DType dtype) {
          const Tensor heads = as(ctx, as(ctx, o[0], DType::bf16), dtype);
          Tensor yv = ctx.empty(o[4].shape(), DType::f32), ys = ctx.empty(o[5].shape(), DType::f32),
                 dx = ctx.empty(heads.shape(), dtype);
          kernels::project_from_heads(ctx, heads, out, o[4], o[5], yv, ys);
          kernels::project_from_heads_backward(ctx, yv, ys, heads, out, {.dx = &dx});
          return std::vector{yv, ys, as(ctx, dx, DType::bf16)};
        };
        const auto wide = run(DType::f32), narrow = run(DType::bf16);
        for (int i : {0, 1, 2}) CHECK(same_bits(wide[i], narrow[i]));
      }
      CHECK(ctx.allocator().guard_violations() == 0);
    }
}

TEST_CASE("projections refuse bad shapes") {
  Context ctx;
  Tape tape(ctx);
  auto vars = [&](std::vector<Shape> shapes) {
    std::vector<Var> x;
    for (Shape s : shapes) x.push_back(tape.constant(ctx.zeros(s, DType::f32)));
    return x;
  };
  auto refused = [&](std::vector<Shape> shapes, HeadGroups groups, std::optional<DType> result, const char* message) {
    CHECK_THROWS_WITH_AS(to_heads(vars(shapes), groups, true, result), message, Error);
  };
  refused({{2, 3, 4}, {2, 5}, {6, 4}, {6, 5}, {6}}, {2}, {},
          "project_to_heads: v has shape [2, 3, 4], expected 4 components along its second axis");
  refused({{2, 4, 4}, {3, 5}, {6, 4}, {6, 5}, {6}}, {2}, {}, "project_to_heads: s has 3 tokens, v has 2");
  refused({{2, 4, 4}, {2, 5}, {6, 3}, {6, 5}, {6}}, {2}, {}, "project_to_heads: w_v has shape [6, 3], expected [6, 4]");
  refused({{2, 4, 4}, {2, 5}, {6, 4}, {6, 5}, {6}}, {4}, {},
          "project_to_heads: w_v has 6 rows and w_s 6, expected multiples of 4 groups");
  refused({{2, 4, 4}, {2, 5}, {6, 4}, {6, 5}, {6}}, {2, 1, 3}, {},
          "project_to_heads: groups 1 to 3 are lowered, expected some of 2");
  refused({{2, 4, 4}, {2, 5}, {6, 4}, {6, 5}, {5}}, {2}, {}, "project_to_heads: bias has shape [5], expected [6]");
  refused({{2, 4, 4}, {2, 5}, {6, 4}, {6, 5}, {6}}, {2}, DType::bf16, "project_to_heads: y is bf16, expected f32");
  auto refused_back = [&](std::vector<Shape> shapes, const char* message) {
    CHECK_THROWS_WITH_AS(from_heads(vars(shapes)), message, Error);
  };
  refused_back({{2, 3}, {4, 6}, {5, 6}, {5}}, "project_from_heads: x has shape [2, 3], expected 3 axes");
  refused_back({{2, 3, 14}, {4, 6}, {5, 6}, {5}}, "project_from_heads: x has shape [2, 3, 14], expected [2, 3, 15]");
  refused_back({{4, 3, 15}, {4, 6}, {5, 6}, {5}},
               "project_from_heads: w_v has 6 columns and w_s 6, expected multiples of 4 groups");
  refused_back({{2, 3, 15}, {4, 6}, {5, 6}, {5}, {3, 4, 5}, {3, 5}},
               "project_from_heads: residual_v has shape [3, 4, 5], expected [3, 4, 4]");
}
