#include "kernels/edge_vectors.h"

#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

// The frames network of a training step: 128 jets with their spurions, three vectors.
struct Operands {
  Tensor p, ptr, vectors, dvectors, lse, norm;
  kernels::EdgeMlp mlp, gradients;
};

void edge_vectors_case(Runner& run, bool backward, DType dtype, int64_t H) {
  Context& ctx = run.context();
  const int64_t n = 3;
  const std::vector<double> offsets = jet_offsets(128, 58);
  const auto T = static_cast<int64_t>(offsets.back());
  const Tensor ptr = ctx.of({129}, DType::i32, offsets);
  const kernels::EdgeVectorsOptions options{.edge_mean = 6, .edge_std = 1.5};
  auto operands = [&run, ptr, T, H](DType dtype) {
    auto perceptron = [&](int seed) {
      return kernels::EdgeMlp{run.normal({T, H}, dtype, seed),
                              run.normal({T, H}, dtype, seed + 1),
                              run.normal({H}, dtype, seed + 2),
                              {run.normal({H, H}, dtype, seed + 3), run.normal({n, H}, dtype, seed + 4)},
                              {run.normal({H}, dtype, seed + 5), run.normal({n}, dtype, seed + 6)}};
    };
    Operands o{.p = momenta(run, T, DType::f64, 1),
               .ptr = ptr,
               .vectors = run.empty({T, n, 4}, DType::f64),
               .dvectors = run.normal({T, n, 4}, DType::f64, 2),
               .lse = run.empty({T, n}, dtype),
               .norm = run.empty({T}, DType::f64),
               .mlp = perceptron(3),
               .gradients = perceptron(3)};
    // Sums over H channels of order one.
    auto shrink = [&](auto* w, int64_t count) {
      for (int64_t i = 0; i < count; ++i) w[i] /= std::sqrt(static_cast<double>(H));
    };
    for (Tensor& w : o.mlp.weights)
      dtype == DType::f64 ? shrink(w.template data<double>(), w.numel()) : shrink(w.template data<float>(), w.numel());
    return o;
  };
  auto forward_call = [&ctx, options](Operands& o) {
    kernels::edge_vectors(ctx, o.p, o.ptr, o.mlp, options, Draw{}, o.vectors, o.lse, o.norm);
  };
  auto call = [&ctx, options, backward, forward_call](Operands& o) {
    if (!backward) return forward_call(o);
    kernels::edge_vectors_backward(ctx, o.dvectors, o.p, o.ptr, o.mlp, options, Draw{}, o.vectors, o.lse, o.norm,
                                   o.gradients, nullptr);
  };
  double pairs = 0;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) pairs += std::pow(offsets[b + 1] - offsets[b], 2);
  run({.name = fmt::format("edge_vectors{} {} T {} H {}", backward ? "_backward" : "", dtype, T, H),
       .dtype = dtype,
       .bytes = static_cast<double>(T * (4 + 4 * n) * 8 + 2 * T * H * size_of(dtype)),
       .flops = pairs * 2 * H * (H + n) * (backward ? 3 : 1),
       .ceiling = Ceiling::gemm,
       // Of f32 from f64 (which the tests hold against simple functions).
       .error =
           [&] {
             Operands o = operands(dtype), reference = operands(DType::f64);
             for (Operands* x : {&o, &reference}) {
               forward_call(*x);
               if (backward) call(*x);
             }
             return backward ? relative_error(o.gradients.sender, reference.gradients.sender)
                             : relative_error(o.vectors, reference.vectors);
           },
       .tolerance = tolerance(dtype),
       .make = [&]() -> std::function<void()> {
         Operands o = operands(dtype);
         forward_call(o);  // what the backward reads
         return [o, call]() mutable { call(o); };
       }});
}

const Family edge_vectors([](Runner& run) {
  for (int64_t H : {4, 32, 128})
    for (bool backward : {false, true}) edge_vectors_case(run, backward, DType::f32, H);
  for (bool backward : {false, true}) edge_vectors_case(run, backward, DType::f64, 32);
});

}  // namespace
}  // namespace lightcone::bench
