#include "kernels/optimizer.h"

#include <cmath>

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

using kernels::ParameterStep;
using kernels::UpdateRule;

/// A transformer's parameters: per block four matrices and eight biases or norms; 2.0e6 elements. Small: a tagger of a
/// thousand parameters, where a step is all overhead.
std::vector<Shape> shapes(bool small) {
  std::vector<Shape> out;
  const int64_t c = small ? 4 : 128;
  for (int block = 0; block < 10; ++block) {
    for (int64_t rows : {3 * c, c, 4 * c, 4 * c}) out.push_back({rows, c});
    for (int i = 0; i < 8; ++i) out.push_back({c});
  }
  return out;
}

struct Parameters {
  std::vector<ParameterStep> steps;
  std::vector<Tensor> values, gradients, averages;
};

Parameters parameters(Runner& run, bool small) {
  Parameters out;
  uint64_t seed = 0;
  for (const Shape& shape : shapes(small)) {
    auto normal = [&] { return run.normal(shape, DType::f32, ++seed); };
    ParameterStep s{normal(), normal(), normal(), normal(), 100, 1e-3, 0.1};
    for (float& v : s.v.span<float>()) v *= v;
    out.values.push_back(s.value);
    out.gradients.push_back(s.gradient);
    out.averages.push_back(s.m);
    out.steps.push_back(std::move(s));
  }
  return out;
}

int64_t elements(bool small) {
  int64_t n = 0;
  for (const Shape& s : shapes(small)) n += s.numel();
  return n;
}

/// The parameter after one step of adamw or lion, from the formulas in f64.
double expected(UpdateRule rule, double p, double g, double m, double v) {
  p *= 1 - 1e-3 * 0.1;
  if (rule == UpdateRule::lion) {
    const double u = 0.9 * m + 0.1 * g;
    return p - 1e-3 * (u > 0 ? 1 : -1);
  }
  m = 0.9 * m + 0.1 * g;
  v = 0.999 * v + 0.001 * g * g;
  return p - 1e-3 / (1 - std::pow(0.9, 100)) * m / (std::sqrt(v) / std::sqrt(1 - std::pow(0.999, 100)) + 1e-8);
}

double step_error(Runner& run, UpdateRule rule, bool small) {
  Context& ctx = run.context();
  Parameters p = parameters(run, small);
  std::vector<Tensor> right;
  for (ParameterStep& s : p.steps) {
    Tensor r = converted(ctx, s.value, DType::f64);
    const float *g = s.gradient.data<float>(), *m = s.m.data<float>(), *v = s.v.data<float>();
    for (int64_t i = 0; i < r.numel(); ++i) r.data<double>()[i] = expected(rule, r.data<double>()[i], g[i], m[i], v[i]);
    right.push_back(r);
  }
  kernels::optimizer_step(ctx, rule, p.steps, {});
  double error = 0;
  for (size_t i = 0; i < right.size(); ++i) error = std::max(error, relative_error(p.values[i], right[i]));
  return error;
}

const Family optimizer([](Runner& run) {
  Context& ctx = run.context();
  for (const bool small : {false, true}) {
    const double n = static_cast<double>(elements(small));
    auto name = [&](const char* what) { return fmt::format("{} f32, {} parameters", what, elements(small)); };
    for (const auto& [text, rule, tensors] : {std::tuple{"adamw", UpdateRule::adamw, 7}, {"lion", UpdateRule::lion, 5}})
      run({.name = name(text),
           .bytes = tensors * sizeof(float) * n,
           .flops = 14 * n,
           .error = [&, rule = rule] { return step_error(run, rule, small); },
           .tolerance = tolerance(DType::f32),
           .make = [&, rule = rule]() -> std::function<void()> {
             return [p = parameters(run, small), &ctx, rule]() mutable {
               kernels::optimizer_step(ctx, rule, p.steps, {});
             };
           }});
    run({.name = name("gradient_norm"),
         .bytes = sizeof(float) * n,
         .flops = 2 * n,
         .error =
             [&] {
               const Parameters p = parameters(run, small);
               double squares = 0;
               for (const Tensor& t : p.gradients)
                 for (float g : t.span<float>()) squares += static_cast<double>(g) * g;
               Tensor norm = ctx.empty({1}, DType::f64);
               kernels::gradient_norm(ctx, p.gradients, norm);
               return std::abs(norm.item() / std::sqrt(squares) - 1);
             },
         .tolerance = tolerance(DType::f64),
         .make = [&]() -> std::function<void()> {
           return [p = parameters(run, small), norm = ctx.empty({1}, DType::f64), &ctx]() mutable {
             kernels::gradient_norm(ctx, p.gradients, norm);
           };
         }});
    run({.name = name("ema_update"),
         .bytes = 3 * sizeof(float) * n,
         .flops = 3 * n,
         .error =
             [&] {
               Parameters p = parameters(run, small);
               Tensor right = converted(ctx, p.averages[0], DType::f64);
               for (int64_t i = 0; i < right.numel(); ++i)
                 right.data<double>()[i] += 0.01 * (p.values[0].data<float>()[i] - right.data<double>()[i]);
               kernels::ema_update(ctx, p.values, p.averages, 0.99);
               return relative_error(p.averages[0], right);
             },
         .tolerance = tolerance(DType::f32),
         .make = [&]() -> std::function<void()> {
           return
               [p = parameters(run, small), &ctx]() mutable { kernels::ema_update(ctx, p.values, p.averages, 0.99); };
         }});
  }
});

}  // namespace
}  // namespace lightcone::bench
