#include "tests/support/op_case.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/support/devices.h"

namespace lightcone::test {

Array zeros(Shape shape) { return {shape, std::vector<double>(shape.numel(), 0.0)}; }

Array normal(Shape shape, uint64_t seed, double scale) {
  const Draw draw = Rng(seed).draw("normal", shape.numel());
  Array a = zeros(shape);
  for (int64_t i = 0; i < shape.numel(); ++i) a[i] = scale * draw.normal(i);
  return a;
}

Array uniform(Shape shape, uint64_t seed, double low, double high) {
  const Draw draw = Rng(seed).draw("uniform", shape.numel());
  Array a = zeros(shape);
  for (int64_t i = 0; i < shape.numel(); ++i) a[i] = low + (high - low) * draw.uniform53(i);
  return a;
}

Array to_array(const Tensor& t) {
  if (t.device() != Device::cpu) return to_array(Context(1).copy(t));
  Array a = zeros(t.shape());
  dispatch_all(t.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    for (int64_t i = 0; i < t.numel(); ++i) a[i] = static_cast<double>(t.data<T>()[i]);
  });
  return a;
}

Tensor to_tensor(Context& ctx, const Array& a, DType dtype) { return ctx.of(a.shape, dtype, a.values); }

double tolerance(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 1e-12;
    case DType::f32:
      return 2e-5;
    case DType::bf16:
      return 3e-2;
    default:
      fail("tolerance", "none for {}", dtype);
  }
}

double largest_difference(const Array& a, const Array& b) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if (!(a.shape == b.shape)) return infinite;
  double largest = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    if (a.values[i] == b.values[i] || (std::isnan(a.values[i]) && std::isnan(b.values[i]))) continue;
    const double d = std::abs(a.values[i] - b.values[i]);
    if (!(d <= largest)) largest = std::isnan(d) ? infinite : d;
  }
  return largest;
}

double relative_error(const Array& a, const Array& b) {
  double largest = 0;
  for (double v : b.values)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  return largest_difference(a, b) / (largest > 0 ? largest : 1);
}

namespace {

struct Result {
  std::vector<Array> outputs, gradients;
  int64_t violations = 0;
};

// Numbers that every dtype holds, so that rounding them is not counted as an error of the gradient.
std::vector<Array> cotangents(const std::vector<Array>& outputs, uint64_t seed) {
  std::vector<Array> out;
  for (size_t i = 0; i < outputs.size(); ++i) {
    out.push_back(normal(outputs[i].shape, seed * 1000 + 17 + i));
    for (double& v : out.back().values) v = std::round(v * 32) / 32;
  }
  return out;
}

Tensor input(Context& ctx, const Array& a, DType dtype, bool narrowed) {
  const Tensor t = to_tensor(ctx, a, dtype);
  if (!narrowed || a.shape.rank() == 0) return t;
  Shape longer = a.shape;
  longer[0] += 2;
  Tensor rows = ctx.empty(longer, dtype).narrow(1, a.shape[0]);
  ctx.allocator().copy_within(rows.raw(), t.raw(), t.bytes());
  return rows;
}

Result run(const OpCase& c, const std::vector<Array>& inputs, DType dtype, int threads, bool backward,
           Device device = Device::cpu) {
  Context ctx(device, threads, c.seed);
  ctx.allocator().set_guard(true);
  Result r;
  {
    Tape tape(ctx);
    std::vector<Var> x;
    for (const Array& a : inputs) x.push_back(tape.variable(input(ctx, a, dtype, c.narrowed)));
    std::vector<Var> leaves = x;
    const std::vector<Var> y = c.op(x);
    for (const Var& v : y) r.outputs.push_back(to_array(v.value()));
    if (backward) {
      std::vector<Tensor> dy;
      const auto cotangent = cotangents(r.outputs, c.seed);
      for (size_t i = 0; i < y.size(); ++i) dy.push_back(to_tensor(ctx, cotangent[i], y[i].dtype()));
      tape.backward(y, std::move(dy));
      for (size_t i = 0; i < leaves.size(); ++i) {
        const Tensor& g = tape.gradient(leaves[i]);
        r.gradients.push_back(g.defined() ? to_array(g) : zeros(inputs[i].shape));
      }
    }
  }
  r.violations = ctx.allocator().guard_violations();
  return r;
}

// <cotangent, f(x)> in long double: the sum must not be what limits the differences.
long double projected(const OpCase& c, const std::vector<Array>& inputs, const std::vector<Array>& cotangent) {
  const Result r = run(c, inputs, DType::f64, 1, false);
  long double sum = 0;
  for (size_t i = 0; i < r.outputs.size(); ++i)
    for (size_t k = 0; k < r.outputs[i].values.size(); ++k)
      sum += static_cast<long double>(r.outputs[i][k]) * cotangent[i][k];
  return sum;
}

// Central differences along up to 24 elements per input and along one random direction through all of them.
void check_gradient(const OpCase& c, const Result& f64, std::vector<std::string>& faults) {
  const auto cotangent = cotangents(f64.outputs, c.seed);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Array& x = c.inputs[i];
    const int64_t n = x.shape.numel();
    if (n == 0) continue;
    double largest_x = 0, largest_g = 0;
    for (int64_t k = 0; k < n; ++k) {
      largest_x = std::max(largest_x, std::abs(x[k]));
      largest_g = std::max(largest_g, std::abs(f64.gradients[i][k]));
    }
    const double h = c.step * std::max(largest_x, 1e-3);
    auto difference = [&](const std::vector<double>& direction) {
      std::vector<Array> plus = c.inputs, minus = c.inputs;
      for (int64_t k = 0; k < n; ++k) {
        plus[i][k] += h * direction[k];
        minus[i][k] -= h * direction[k];
      }
      return static_cast<double>((projected(c, plus, cotangent) - projected(c, minus, cotangent)) /
                                 (2 * static_cast<long double>(h)));
    };
    auto compare = [&](const std::string& where, double numeric, double analytic, double scale) {
      if (!(std::abs(numeric - analytic) <= c.gradient_tolerance * std::max(scale, 1e-6)))
        faults.push_back(fmt::format("{}: gradient of input {} at {} is {:.10g}, central difference {:.10g}", c.name, i,
                                     where, analytic, numeric));
    };
    const int64_t stride = std::max<int64_t>(1, n / 24);
    for (int64_t k = 0; k < n; k += stride) {
      std::vector<double> direction(n, 0.0);
      direction[k] = 1;
      compare(std::to_string(k), difference(direction), f64.gradients[i][k], largest_g);
    }
    const Array random = normal(x.shape, c.seed + 5);
    double analytic = 0, scale = 0;
    for (int64_t k = 0; k < n; ++k) {
      analytic += random[k] * f64.gradients[i][k];
      scale += std::abs(random[k] * f64.gradients[i][k]);
    }
    compare("a random direction", difference(random.values), analytic, scale);
  }
}

void same_bits(const OpCase& c, const Result& a, const Result& b, const std::string& what,
               std::vector<std::string>& faults) {
  auto equal = [](const std::vector<Array>& x, const std::vector<Array>& y) {
    for (size_t i = 0; i < x.size(); ++i)
      if (!x[i].values.empty() &&
          std::memcmp(x[i].values.data(), y[i].values.data(), x[i].values.size() * sizeof(double)))
        return false;
    return true;
  };
  if (!equal(a.outputs, b.outputs)) faults.push_back(fmt::format("{}: result differs {}", c.name, what));
  if (!equal(a.gradients, b.gradients)) faults.push_back(fmt::format("{}: gradients differ {}", c.name, what));
}

}  // namespace

std::vector<std::string> find_faults(const OpCase& c) {
  std::vector<std::string> faults;
  for (DType dtype : c.dtypes) {
    // The inputs as this dtype holds them, so that rounding them is not counted as the function's error.
    Context ctx(1);
    std::vector<Array> inputs;
    for (const Array& a : c.inputs) inputs.push_back(to_array(to_tensor(ctx, a, dtype)));
    const Result r = run(c, inputs, dtype, 1, c.differentiable);
    const double limit = tolerance(dtype) * c.tolerance_factor;
    const auto expected = c.oracle(inputs);
    if (expected.size() != r.outputs.size()) {
      faults.push_back(fmt::format("{}: {} results, the oracle has {}", c.name, r.outputs.size(), expected.size()));
      return faults;
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      const double e = relative_error(r.outputs[i], expected[i]);
      if (!(e <= limit))
        faults.push_back(
            fmt::format("{} {}: result {} is off by {:.3g}, tolerance {:.3g}", c.name, dtype, i, e, limit));
    }
    if (c.differentiable) {
      const Result f64 = dtype == DType::f64 ? r : run(c, inputs, DType::f64, 1, true);
      if (dtype == DType::f64) check_gradient(c, f64, faults);
      for (size_t i = 0; i < inputs.size(); ++i) {
        const double e = relative_error(r.gradients[i], f64.gradients[i]);
        if (!(e <= limit))
          faults.push_back(
              fmt::format("{} {}: gradient {} is off by {:.3g}, tolerance {:.3g}", c.name, dtype, i, e, limit));
      }
    }
    if (r.violations)
      faults.push_back(fmt::format("{} {}: {} blocks were written outside", c.name, dtype, r.violations));
    same_bits(c, r, run(c, inputs, dtype, 1, c.differentiable), "from run to run", faults);
    same_bits(c, r, run(c, inputs, dtype, 2, c.differentiable), "between 1 and 2 threads", faults);
    for (Device device : devices()) {
      if (device == Device::cpu) continue;
      const Result there = run(c, inputs, dtype, 1, c.differentiable, device);
      auto compare = [&](const char* what, const std::vector<Array>& a, const std::vector<Array>& b) {
        for (size_t i = 0; i < b.size(); ++i) {
          const double e = relative_error(a[i], b[i]);
          if (!(e <= limit))
            faults.push_back(fmt::format("{} {}: {} {} on {} is off by {:.3g}, tolerance {:.3g}", c.name, dtype, what,
                                         i, device, e, limit));
        }
      };
      compare("result", there.outputs, r.outputs);
      compare("gradient", there.gradients, r.gradients);
      same_bits(c, there, run(c, inputs, dtype, 1, c.differentiable, device), "from run to run on the device", faults);
    }
  }
  return faults;
}

void check_op(const OpCase& c) {
  for (const std::string& fault : find_faults(c)) FAIL_CHECK(fault);
  CHECK_MESSAGE(true, c.name);
}

}  // namespace lightcone::test
