#include "kernels/message_passing.h"

#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

// One block of the GraphNet in a training step: 128 jets, messages of two layers behind the first; with edge attributes
// and, where there are frames, 16 vectors that go from frame to frame.
struct Operands {
  Tensor ptr, y;
  kernels::MessagePerceptron mlp, gradients;
};

void message_passing_case(Runner& run, bool backward, DType dtype, int64_t H, bool frames) {
  Context& ctx = run.context();
  const std::vector<double> offsets = jet_offsets(128, 50);
  const auto T = static_cast<int64_t>(offsets.back());
  double edges = 0;
  for (size_t b = 0; b + 1 < offsets.size(); ++b)
    edges += (offsets[b + 1] - offsets[b]) * (offsets[b + 1] - offsets[b] - 1);
  const auto P = static_cast<int64_t>(edges);
  const TensorReps reps(fmt::format("{}x1n", H / 8));
  kernels::MessageOptions options;
  options.reps = reps;
  auto operands = [=, &run, &ctx](DType dtype) {
    auto perceptron = [&](uint64_t seed) {
      kernels::MessagePerceptron m;
      m.receiver = run.normal({T, H}, dtype, seed), m.sender = run.normal({T, H}, dtype, seed + 1);
      m.edge = run.normal({P, 1}, dtype, seed + 2), m.edge_weight = run.normal({H, 1}, dtype, seed + 3);
      if (frames) {
        // Boosts along z, numbers of the size of one.
        std::vector<double> L(16 * T);
        for (int64_t t = 0; t < T; ++t) {
          double* l = L.data() + 16 * t;
          const double rapidity = 0.01 * double(t % 100);
          l[0] = l[15] = std::cosh(rapidity), l[3] = l[12] = std::sinh(rapidity), l[5] = l[10] = 1;
        }
        m.frames = ctx.of({T, 4, 4}, dtype, L);
        m.features = run.normal({T, reps.dim()}, dtype, seed + 4);
        m.feature_weight = run.normal({H, reps.dim()}, dtype, seed + 5);
      }
      for (uint64_t l = 0; l < 2; ++l) {
        m.weights.push_back(run.normal({H, H}, dtype, seed + 6 + l));
        m.biases.push_back(run.normal({H}, dtype, seed + 8 + l));
      }
      return m;
    };
    Operands o{.ptr = ctx.of({129}, DType::i32, offsets),
               .y = run.empty({T, H}, dtype),
               .mlp = perceptron(1),
               .gradients = perceptron(1)};
    // Sums over H channels of order one.
    auto shrink = [&](Tensor& t) {
      auto by = [&](auto* w) {
        for (int64_t i = 0; i < t.numel(); ++i) w[i] /= std::sqrt(static_cast<double>(H));
      };
      dtype == DType::f64 ? by(t.data<double>()) : by(t.data<float>());
    };
    for (Tensor& w : o.mlp.weights) shrink(w);
    if (frames) shrink(o.mlp.feature_weight);
    return o;
  };
  auto call = [&ctx, options, backward](Operands& o) {
    if (!backward) return kernels::message_passing(ctx, o.ptr, o.mlp, options, Draw{}, o.y);
    kernels::message_passing_backward(ctx, o.mlp.receiver, o.ptr, o.mlp, options, Draw{}, o.gradients);
  };
  const double weights = 2. * H * H + H + (frames ? double(H) * reps.dim() : 0);
  run({.name = fmt::format("message_passing{} {} T {} H {}{}", backward ? "_backward" : "", dtype, T, H,
                           frames ? " frames" : ""),
       .dtype = dtype,
       .bytes = static_cast<double>(3 * T * H + P) * size_of(dtype) * (backward ? 2 : 1),
       .flops = 2 * edges * weights * (backward ? 3 : 1),
       .ceiling = Ceiling::gemm,
       // Of f32 from f64 (which the tests hold against simple functions).
       .error =
           [&] {
             Operands o = operands(dtype), reference = operands(DType::f64);
             call(o), call(reference);
             return backward ? relative_error(o.gradients.sender, reference.gradients.sender)
                             : relative_error(o.y, reference.y);
           },
       .tolerance = tolerance(dtype),
       .make = [&]() -> std::function<void()> { return [o = operands(dtype), call]() mutable { call(o); }; }});
}

void edge_attributes_case(Runner& run, bool backward) {
  Context& ctx = run.context();
  const std::vector<double> offsets = jet_offsets(128, 50);
  const auto T = static_cast<int64_t>(offsets.back());
  int64_t P = 0;
  for (size_t b = 0; b + 1 < offsets.size(); ++b)
    P += static_cast<int64_t>((offsets[b + 1] - offsets[b]) * (offsets[b + 1] - offsets[b] - 1));
  const Tensor ptr = ctx.of({129}, DType::i32, offsets);
  run({.name = fmt::format("edge_attributes{} P {}", backward ? "_backward" : "", P),
       .dtype = DType::f32,
       .bytes = static_cast<double>(P * 4 + T * 32 * (backward ? 2 : 1)),
       .flops = 12. * static_cast<double>(P) * (backward ? 2 : 1),
       .error =
           [&] {
             const Tensor p = momenta(run, T, DType::f64, 1);
             Tensor e = run.empty({P, 1}, DType::f32), exact = run.empty({P, 1}, DType::f64);
             kernels::edge_attributes(ctx, p, ptr, 6, 1.5, e);
             kernels::edge_attributes(ctx, p, ptr, 6, 1.5, exact);
             return relative_error(e, exact);
           },
       .tolerance = tolerance(DType::f32),
       .make = [&, P, T]() -> std::function<void()> {
         return [=, &ctx, p = momenta(run, T, DType::f64, 1), e = run.normal({P, 1}, DType::f32, 2),
                 dp = run.empty({T, 4}, DType::f64)]() mutable {
           if (backward)
             kernels::edge_attributes_backward(ctx, e, p, ptr, 1.5, dp);
           else
             kernels::edge_attributes(ctx, p, ptr, 6, 1.5, e);
         };
       }});
}

const Family message_passing([](Runner& run) {
  for (int64_t H : {32, 128})
    for (bool frames : {false, true})
      for (bool backward : {false, true}) message_passing_case(run, backward, DType::f32, H, frames);
  for (bool backward : {false, true}) message_passing_case(run, backward, DType::f64, 32, true);
  for (bool backward : {false, true}) edge_attributes_case(run, backward);
});

}  // namespace
}  // namespace lightcone::bench
