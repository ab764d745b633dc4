// What has no gradient: updates of parameters, and numbers from random streams. (Dropout has one.)
#include <algorithm>
#include <cmath>

#include "autograd/random.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "tests/support/random_ops.h"

namespace lightcone::test {

namespace {

// Kernels that write in place get copies.
Tensor copy(const Var& x) {
  Tensor y = x.context().empty(x.shape(), x.dtype());
  kernels::cast(x.context(), x.value(), y);
  return y;
}
std::vector<Tensor> copies(const std::vector<Var>& x, size_t begin, size_t end) {
  std::vector<Tensor> out;
  for (size_t i = begin; i < end; ++i) out.push_back(copy(x[i]));
  return out;
}
std::vector<Var> constants(Tape& tape, const std::vector<Tensor>& values) {
  std::vector<Var> out;
  for (const Tensor& t : values) out.push_back(tape.constant(t));
  return out;
}

double norm_of(const std::vector<Array>& x) {
  double squares = 0;
  for (const Array& a : x)
    for (double v : a.values) squares += v * v;
  return std::sqrt(squares);
}

// One update of value, gradient, m, v by the rule of the header.
void naive_update(kernels::UpdateRule rule, const kernels::UpdateOptions& o, int64_t t, double lr, double decay,
                  double& p, double g, double& m, double& v) {
  using enum kernels::UpdateRule;
  const double c1 = 1 - std::pow(o.beta1, t), c2 = 1 - std::pow(o.beta2, t);
  if (rule == adamw || rule == lion || rule == ranger) p -= lr * decay * p;
  if (rule == adam || rule == radam) g += decay * p;
  if (rule == lion) {
    const double u = o.beta1 * m + (1 - o.beta1) * g;
    p -= lr * (u > 0 ? 1 : u < 0 ? -1 : 0);
    m = o.beta2 * m + (1 - o.beta2) * g;
    return;
  }
  m = o.beta1 * m + (1 - o.beta1) * g;
  v = o.beta2 * v + (1 - o.beta2) * g * g;
  if (rule == adam || rule == adamw) {
    p -= lr / c1 * m / (std::sqrt(v) / std::sqrt(c2) + o.eps);
    return;
  }
  const double rho_inf = 2 / (1 - o.beta2) - 1, rho = rho_inf - 2 * double(t) * std::pow(o.beta2, t) / c2;
  const double r2 = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho);
  p -= lr * m / c1 * (rho > 5 ? std::sqrt(r2) * std::sqrt(c2) / (std::sqrt(v) + o.eps) : 1);
}

OpCase random_update(Choice& c, const std::vector<Shape>& shapes) {
  using enum kernels::UpdateRule;
  const auto rule = c.of({adam, adamw, radam, lion, ranger});
  const kernels::UpdateOptions o{c.of({0., 0.9, 0.95}), c.of({0.9, 0.99, 0.999}), c.of({1e-8, 1e-5})};
  const int64_t t = c.integer(1, 40);
  const double lr = c.real(0, 0.1), decay = c.of({0., 0.2});
  const size_t n = shapes.size();
  OpCase out{.name = fmt::format("optimizer_step {} number {}, beta {} {}, lr {}, decay {}", static_cast<int>(rule), t,
                                 o.beta1, o.beta2, lr, decay),
             .inputs = {},
             .op =
                 [=](auto& x) {
                   auto values = copies(x, 0, n), m = copies(x, 2 * n, 3 * n), v = copies(x, 3 * n, 4 * n);
                   std::vector<kernels::ParameterStep> steps;
                   for (size_t i = 0; i < n; ++i)
                     steps.push_back({values[i], x[n + i].value(), m[i], v[i], t, lr, decay});
                   kernels::optimizer_step(x[0].context(), rule, steps, o);
                   values.insert(values.end(), m.begin(), m.end());
                   values.insert(values.end(), v.begin(), v.end());
                   return constants(x[0].tape(), values);
                 },
             .oracle =
                 [=](auto x) {
                   for (size_t i = 0; i < n; ++i)
                     for (int64_t k = 0; k < shapes[i].numel(); ++k)
                       naive_update(rule, o, t, lr, decay, x[i][k], x[n + i][k], x[2 * n + i][k], x[3 * n + i][k]);
                   x.erase(x.begin() + n, x.begin() + 2 * n);
                   return x;
                 },
             .dtypes = {DType::f64, DType::f32},
             .differentiable = false};
  if (rule == ranger) out.dtypes = {DType::f32};  // it always computes in f32
  for (int what = 0; what < 4; ++what)
    for (const Shape& shape : shapes) out.inputs.push_back(what == 3 ? c.positive(shape) : c.normal(shape));
  return out;
}

}  // namespace

OpCase random_optimizer(Choice& c) {
  std::vector<Shape> shapes;
  for (int64_t n = c.integer(1, 4); n > 0; --n) shapes.push_back(c.shape(200));
  const int64_t kind = c.integer(0, 8);
  if (kind < 4) return random_update(c, shapes);
  const size_t n = shapes.size();
  const double share = c.of({0., 1., c.real(0, 1)}), limit = c.real(0.1, 2);
  OpCase out{
      .name = "", .inputs = {}, .op = {}, .oracle = {}, .dtypes = {DType::f64, DType::f32}, .differentiable = false};
  for (size_t i = 0; i < (kind < 6 ? 2 * n : n); ++i) out.inputs.push_back(c.normal(shapes[i % n]));
  if (kind == 4) {
    out.name = fmt::format("ema_update {}", share);
    out.op = [=](auto& x) {
      const auto values = copies(x, 0, n);
      auto shadow = copies(x, n, 2 * n);
      kernels::ema_update(x[0].context(), values, shadow, share);
      return constants(x[0].tape(), shadow);
    };
    out.oracle = [=](auto x) {
      for (size_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < shapes[i].numel(); ++k) x[n + i][k] -= (1 - share) * (x[n + i][k] - x[i][k]);
      return std::vector<Array>(x.begin() + n, x.end());
    };
  } else if (kind == 5) {
    out.name = fmt::format("lookahead {}", share);
    out.op = [=](auto& x) {
      auto values = copies(x, 0, n), slow = copies(x, n, 2 * n);
      kernels::lookahead(x[0].context(), values, slow, share);
      values.insert(values.end(), slow.begin(), slow.end());
      return constants(x[0].tape(), values);
    };
    out.oracle = [=](auto x) {
      for (size_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < shapes[i].numel(); ++k)
          x[i][k] = x[n + i][k] = share * x[i][k] + (1 - share) * x[n + i][k];
      return x;
    };
  } else if (kind == 6) {
    out.name = fmt::format("clip_by_value {}", limit);
    out.op = [=](auto& x) {
      auto gradients = copies(x, 0, n);
      kernels::clip_by_value(x[0].context(), gradients, limit);
      return constants(x[0].tape(), gradients);
    };
    out.oracle = [=](auto x) {
      for (Array& a : x)
        for (double& v : a.values) v = std::clamp(v, -limit, limit);
      return x;
    };
  } else {
    out.name = fmt::format("clip_by_norm {}", limit);
    out.op = [=](auto& x) {
      Context& ctx = x[0].context();
      auto gradients = copies(x, 0, n);
      Tensor norm = ctx.empty({1}, DType::f64);
      kernels::gradient_norm(ctx, gradients, norm);
      kernels::clip_by_norm(ctx, gradients, limit, norm);
      gradients.push_back(norm);
      return constants(x[0].tape(), gradients);
    };
    out.oracle = [=](auto x) {
      const double norm = norm_of(x), factor = std::min(1., limit / (norm + 1e-6));
      for (Array& a : x)
        for (double& v : a.values) v *= factor;
      x.push_back({{1}, {norm}});
      return x;
    };
  }
  return out;
}

OpCase random_random(Choice& c) {
  const Shape shape = c.shape();
  const double p = c.of({0., 0.5, c.real(0, 0.99)}), low = c.real(-3, 0), high = c.real(0.1, 3);
  const int64_t n = shape.numel(), kind = c.integer(0, 2);
  const auto draw = [](uint64_t seed, const char* stream, int64_t count) { return Rng(seed).draw(stream, count); };
  OpCase out{.name = fmt::format("dropout {}", p),
             .inputs = {c.normal(shape)},
             .op = [=](auto& x) { return std::vector{dropout(x[0], p)}; },
             .oracle = {},
             .seed = c.seed()};
  out.oracle = [=, seed = out.seed](auto x) {
    for (int64_t i = 0; i < n; ++i) x[0][i] *= p == 0 || draw(seed, "dropout", n).uniform(i) >= p ? 1 / (1 - p) : 0;
    return x;
  };
  if (kind == 0) return out;
  const bool uniform = kind == 1;
  out.name = uniform ? fmt::format("fill_uniform {} {}", low, high) : fmt::format("fill_normal {} {}", low, high);
  out.differentiable = false;
  out.op = [=](auto& x) {
    Context& ctx = x[0].context();
    Tensor y = ctx.empty(shape, x[0].dtype());
    (uniform ? kernels::fill_uniform : kernels::fill_normal)(ctx, ctx.rng().draw("fill", n), low, high, y);
    return std::vector{x[0].tape().constant(y)};
  };
  out.oracle = [=, seed = out.seed](auto x) {
    const Draw numbers = draw(seed, "fill", n);
    for (int64_t i = 0; i < n; ++i)
      x[0][i] = low + (uniform ? (high - low) * numbers.uniform53(i) : high * numbers.normal(i));
    return x;
  };
  return out;
}

}  // namespace lightcone::test
