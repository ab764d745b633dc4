// The families that work on rows and elements; jets are in random_ops_jets.cpp, what is not differentiated in
// random_ops_steps.cpp.
#include "tests/support/random_ops.h"

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.h"
#include "autograd/loss.h"
#include "autograd/matmul.h"
#include "autograd/norm.h"
#include "autograd/reduce.h"
#include "autograd/softmax.h"
#include "tests/support/naive_linear.h"

namespace lightcone::test {

Shape Choice::shape(int64_t most, int64_t last) {
  Shape out;
  int64_t left = large_ ? 50 * most : most;
  for (int64_t axes = integer(1, 4); out.rank() < axes - 1;) {
    out.append(extent(std::max<int64_t>(1, std::min<int64_t>(left / 2, 40))));
    left /= std::max<int64_t>(1, out[-1]);
  }
  out.append(extent(std::max(last, left), last));
  return out;
}

std::vector<double> Choice::offsets(int64_t least_length) {
  std::vector<double> ptr = {0};
  for (int64_t jets = extent(6); jets > 0; --jets)
    ptr.push_back(ptr.back() + double(extent(large_ ? 200 : 20, least_length)));
  return ptr;
}

namespace {

// Where the header gives the formula element by element.
OpCase each(std::string name, std::vector<Array> inputs, std::function<Var(std::vector<Var>&)> op,
            std::function<double(const std::vector<Array>&, int64_t i)> f) {
  return {.name = std::move(name),
          .inputs = std::move(inputs),
          .op = [=](auto& x) { return std::vector{op(x)}; },
          .oracle =
              [=](const std::vector<Array>& x) {
                Array y = zeros(x[0].shape);
                for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] = f(x, i);
                return std::vector{y};
              }};
}

struct Function {
  const char* name;
  Unary f;
  double (*value)(double);
  bool positive = false, kink = false;
};
const Function functions[] = {
    {"gelu", Unary::gelu, gelu},
    {"relu", Unary::relu, [](double x) { return std::max(x, 0.); }, false, true},
    {"silu", Unary::silu, [](double x) { return x / (1 + std::exp(-x)); }},
    {"sigmoid", Unary::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }},
    {"tanh", Unary::tanh, [](double x) { return std::tanh(x); }},
    {"softplus", Unary::softplus, [](double x) { return std::log1p(std::exp(x)); }},
    {"leaky_relu", Unary::leaky_relu, [](double x) { return x > 0 ? x : 0.01 * x; }, false, true},
    {"exp", Unary::exp, [](double x) { return std::exp(x); }},
    {"log", Unary::log, [](double x) { return std::log(x); }, true},
    {"sqrt", Unary::sqrt, [](double x) { return std::sqrt(x); }, true},
    {"abs", Unary::abs, [](double x) { return std::abs(x); }, false, true},
    {"square", Unary::square, [](double x) { return x * x; }},
};

// Rows of the last axis: f(x's row, y's row, length).
std::function<std::vector<Array>(const std::vector<Array>&)> per_row(
    std::function<void(const double*, double*, int64_t)> f) {
  return [=](const std::vector<Array>& x) {
    Array y = zeros(x[0].shape);
    const int64_t C = y.shape[-1];
    for (int64_t t = 0; t < y.shape[0]; ++t) f(&x[0].values[t * C], &y.values[t * C], C);
    return std::vector{y};
  };
}

}  // namespace

OpCase random_elementwise(Choice& c) {
  const Shape shape = c.shape();
  const Array a = c.normal(shape), b = c.normal(shape);
  const double factor = c.real(-3, 3), low = c.real(-2, 0), high = c.real(0, 2);
  switch (c.integer(0, 9)) {
    case 0:
      return each(
          "add", {a, b}, [](auto& x) { return add(x[0], x[1]); }, [](auto& x, int64_t i) { return x[0][i] + x[1][i]; });
    case 1:
      return each(
          "subtract", {a, b}, [](auto& x) { return subtract(x[0], x[1]); },
          [](auto& x, int64_t i) { return x[0][i] - x[1][i]; });
    case 2:
      return each(
          "multiply", {a, b}, [](auto& x) { return multiply(x[0], x[1]); },
          [](auto& x, int64_t i) { return x[0][i] * x[1][i]; });
    case 3:
      return each(
          fmt::format("scale by {}", factor), {a}, [=](auto& x) { return scale(x[0], factor); },
          [=](auto& x, int64_t i) { return factor * x[0][i]; });
    case 4: {
      OpCase out = each(
          fmt::format("clamp to {}, {}", low, high), {a}, [=](auto& x) { return clamp(x[0], low, high); },
          [=](auto& x, int64_t i) { return std::clamp(x[0][i], low, high); });
      out.step = 1e-7;
      return out;
    }
    case 5:
      return each(
          "add_row", {a, c.normal({shape[-1]})}, [](auto& x) { return add_row(x[0], x[1]); },
          [](auto& x, int64_t i) { return x[0][i] + x[1][i % x[1].shape[0]]; });
    case 6: {
      OpCase out{.name = "concat of concat",
                 .inputs = {a, b},
                 .op =
                     [](auto& x) {
                       return std::vector{concat({x[0], x[1], x[0]})};
                     },
                 .oracle =
                     [](auto& x) {
                       Shape wide = x[0].shape;
                       const int64_t C = wide[-1];
                       wide[-1] = 3 * C;
                       Array y = zeros(wide);
                       for (int64_t i = 0; i < y.shape.numel(); ++i)
                         y[i] = x[i % (3 * C) / C == 1][i / (3 * C) * C + i % C];
                       return std::vector{y};
                     }};
      return out;
    }
    case 7: {
      const int64_t begin = c.integer(0, shape[-1]), count = c.integer(0, shape[-1] - begin);
      return {.name = fmt::format("slice {} from {}", count, begin),
              .inputs = {a},
              .op = [=](auto& x) { return std::vector{slice(x[0], begin, count)}; },
              .oracle =
                  [=](auto& x) {
                    Shape narrow = x[0].shape;
                    const int64_t C = narrow[-1];
                    narrow[-1] = count;
                    Array y = zeros(narrow);
                    for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] = x[0][i / count * C + begin + i % count];
                    return std::vector{y};
                  }};
    }
    default: {
      const Function& f = functions[c.integer(0, 11)];
      OpCase out = each(
          f.name, {f.positive ? c.positive(shape) : a}, [&](auto& x) { return unary(f.f, x[0]); },
          [&](auto& x, int64_t i) { return f.value(x[0][i]); });
      if (f.kink) out.step = 1e-7;
      return out;
    }
  }
}

namespace {

// Under amp activations that products alone read are bf16: the norm of x, and what the first of two linear maps gives.
// Factors are rounded to bf16, whose tolerance therefore holds, in sizes where many roundings average.
OpCase random_amp(Choice& c) {
  const int64_t T = c.extent(c.large() ? 1000 : 70, 8), K = c.extent(70, 8), H = c.extent(70, 8), N = c.extent(70, 8);
  const bool perceptron = c.chance(0.5);
  return {.name = fmt::format("amp {} T {} K {} H {} N {}", perceptron ? "mlp" : "linear maps", T, K, H, N),
          .inputs = {c.normal({T, K}), c.normal({H, K}, 1 / std::sqrt(K)), c.normal({H}),
                     c.normal({N, H}, 1 / std::sqrt(H)), c.normal({N}), c.normal({T, N})},
          .op =
              [=](auto& v) {
                v[0].tape().set_amp(true);
                const DType factors = v[0].tape().factors(v[0].dtype());
                const Var x = rms_norm(v[0], 1e-3, factors);
                if (perceptron) return std::vector{mlp(x, v[1], v[2], v[3], v[4], v[5])};
                return std::vector{linear_residual(linear(x, v[1], v[2], factors), v[3], v[4], v[5])};
              },
          .oracle =
              [=](auto& v) {
                Array x = v[0];
                for (int64_t t = 0; t < T; ++t) {
                  double square = 0;
                  for (int64_t k = 0; k < K; ++k) square += x.at(t, k) * x.at(t, k) / K;
                  for (int64_t k = 0; k < K; ++k) x.at(t, k) /= std::sqrt(square + 1e-3);
                }
                Array hidden = naive_linear({x, v[1], v[2]});
                if (perceptron)
                  for (double& h : hidden.values) h = gelu(h);
                Array y = naive_linear({hidden, v[3], v[4]});
                for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] += v[5][i];
                return std::vector{y};
              },
          .dtypes = {DType::f32},
          .tolerance_factor = tolerance(DType::bf16) / tolerance(DType::f32)};
}

}  // namespace

OpCase random_matmul(Choice& c) {
  const int64_t T = c.extent(c.large() ? 1000 : 70), N = c.extent(40), K = c.extent(40);
  const std::string size = fmt::format("T {} N {} K {}", T, N, K);
  // Of order 1 and positive on average: no product cancels.
  const Array x = c.positive({T, K}), w = c.positive({N, K}), b = c.normal({N}), r = c.normal({T, N});
  const bool bias = c.chance(0.7), ta = c.chance(0.5), tb = c.chance(0.5);
  const auto affine = [bias](auto& v) { return bias ? naive_linear({v[0], v[1], v[2]}) : naive_linear({v[0], v[1]}); };
  std::vector<Array> inputs = {x, w};
  if (bias) inputs.push_back(b);
  const int64_t kind = c.integer(0, 3);
  if (c.chance(0.2)) return random_amp(c);
  switch (kind) {
    case 0:
      return {.name = "linear " + size,
              .inputs = inputs,
              .op = [=](auto& v) { return std::vector{linear(v[0], v[1], bias ? v[2] : Var{})}; },
              .oracle = [=](auto& v) { return std::vector{affine(v)}; }};
    case 1:
      return {.name = "linear_gelu " + size,
              .inputs = inputs,
              .op = [=](auto& v) { return std::vector{linear_gelu(v[0], v[1], bias ? v[2] : Var{})}; },
              .oracle =
                  [=](auto& v) {
                    Array y = affine(v);
                    for (double& e : y.values) e = gelu(e);
                    return std::vector{y};
                  }};
    case 2:
      inputs.push_back(r);
      return {.name = "linear_residual " + size,
              .inputs = inputs,
              .op = [=](auto& v) { return std::vector{linear_residual(v[0], v[1], bias ? v[2] : Var{}, v.back())}; },
              .oracle =
                  [=](auto& v) {
                    Array y = affine(v);
                    for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] += v.back()[i];
                    return std::vector{y};
                  }};
    default:
      return {.name = fmt::format("matmul {} {} {}", size, ta, tb),
              .inputs = {ta ? transposed(x) : x, tb ? w : transposed(w)},
              .op = [=](auto& v) { return std::vector{matmul(v[0], v[1], ta, tb)}; },
              .oracle =
                  [=](auto& v) {
                    return std::vector{naive_linear({ta ? transposed(v[0]) : v[0], tb ? v[1] : transposed(v[1])})};
                  }};
  }
}

OpCase random_norm(Choice& c) {
  const Shape shape{c.extent(c.large() ? 1000 : 40), c.extent(70, 1)};
  const double eps = c.of({1e-5, 1e-3, 0.1});
  const bool layer = c.chance(0.5);
  // Where all columns but one are given by the norm, the result is a sign, and the gradient what eps leaves of 0.
  const bool smooth = shape[-1] > (layer ? 2 : 1);
  return {.name = fmt::format("{} eps {}", layer ? "layer_norm" : "rms_norm", eps),
          .inputs = {c.normal(shape)},
          .op = [=](auto& x) { return std::vector{layer ? layer_norm(x[0], eps) : rms_norm(x[0], eps)}; },
          .oracle = per_row([=](const double* x, double* y, int64_t C) {
            double mean = 0, square = 0;
            for (int64_t i = 0; layer && i < C; ++i) mean += x[i] / C;
            for (int64_t i = 0; i < C; ++i) square += (x[i] - mean) * (x[i] - mean) / C;
            for (int64_t i = 0; i < C; ++i) y[i] = (x[i] - mean) / std::sqrt(square + eps);
          }),
          .differentiable = smooth};
}

OpCase random_softmax(Choice& c) {
  // In one peaked row the gradient is what rounding leaves of 1 - y; among many rows others are larger.
  const Shape shape{c.extent(c.large() ? 1000 : 40), c.extent(70, 1)};
  const bool log = c.chance(0.5);
  return {.name = log ? "log_softmax" : "softmax",
          .inputs = {c.normal(shape, c.real(0.1, shape[0] < 8 ? 1 : 4))},
          .op = [=](auto& x) { return std::vector{log ? log_softmax(x[0]) : softmax(x[0])}; },
          .oracle = per_row([=](const double* x, double* y, int64_t C) {
            const double top = *std::max_element(x, x + C);
            double sum = 0;
            for (int64_t i = 0; i < C; ++i) sum += std::exp(x[i] - top);
            for (int64_t i = 0; i < C; ++i) y[i] = log ? x[i] - top - std::log(sum) : std::exp(x[i] - top) / sum;
          })};
}

OpCase random_reduce(Choice& c) {
  Shape shape = c.shape(600);
  if (shape.rank() == 1) shape = {c.extent(c.large() ? 600 : 30), shape[0] % 1000};
  const Over over = c.of({Over::last, Over::leading, Over::all});
  const double count = double(kernels::count_of_sum(shape, over));
  const bool average = count > 0 && c.chance(0.5);
  return {.name = fmt::format("{} {}", average ? "mean" : "sum", static_cast<int>(over)),
          .inputs = {c.positive(shape)},
          .op = [=](auto& x) { return std::vector{average ? mean(x[0], over) : sum(x[0], over)}; },
          .oracle =
              [=](auto& x) {
                Array y = zeros(kernels::shape_of_sum(shape, over));
                const int64_t n = y.shape.numel();
                for (int64_t i = 0; i < shape.numel(); ++i)
                  y[over == Over::last ? i / shape[-1] : over == Over::leading ? i % n : 0] += x[0][i];
                for (double& e : y.values) e /= average ? count : 1;
                return std::vector{y};
              },
          .step = 0.1};  // linear: a long step is exact
}

OpCase random_loss(Choice& c) {
  const int64_t kind = c.integer(0, 2);
  Shape shape = kind == 2 ? Shape{c.extent(c.large() ? 2000 : 60, 1), c.extent(30, 1)} : c.shape(300, 1);
  for (int axis = 0; axis < shape.rank(); ++axis) shape[axis] = std::max<int64_t>(1, shape[axis]);
  const int64_t n = shape.numel();
  // Targets that every dtype holds.
  std::vector<double> targets, labels;
  for (int64_t i = 0; i < n; ++i) targets.push_back(double(c.integer(0, 8)) / 8);
  for (int64_t b = 0; b < shape[0]; ++b) labels.push_back(double(c.integer(0, shape[-1] - 1)));
  const auto mean_of = [=](auto f) {
    return [=](const std::vector<Array>& x) {
      Array loss = zeros({1});
      for (int64_t i = 0; i < n; ++i) loss[0] += f(x[0][i], targets[i]) / n;
      return std::vector{loss};
    };
  };
  const auto as_tensor = [=](const Var& x) { return x.context().of(shape, x.dtype(), targets); };
  if (kind == 0)
    return {.name = "bce_with_logits",
            .inputs = {c.normal(shape, 3)},
            .op = [=](auto& x) { return std::vector{bce_with_logits(x[0], as_tensor(x[0]))}; },
            .oracle = mean_of([](double x, double t) { return std::log1p(std::exp(x)) - t * x; })};
  if (kind == 1)
    return {.name = "mse",
            .inputs = {c.normal(shape)},
            .op = [=](auto& x) { return std::vector{mse(x[0], as_tensor(x[0]))}; },
            .oracle = mean_of([](double x, double t) { return (x - t) * (x - t); })};
  return {
      .name = "cross_entropy",
      .inputs = {c.normal(shape, 2)},
      .op =
          [=](auto& x) { return std::vector{cross_entropy(x[0], x[0].context().of({shape[0]}, DType::i64, labels))}; },
      .oracle =
          [=](auto& x) {
            Array loss = zeros({1});
            for (int64_t b = 0; b < shape[0]; ++b) {
              const double label = x[0].at(b, static_cast<int64_t>(labels[b]));
              double sum = 0;
              for (int64_t k = 0; k < shape[1]; ++k) sum += std::exp(x[0].at(b, k) - label);
              loss[0] += std::log(sum) / shape[0];
            }
            return std::vector{loss};
          }};
}

}  // namespace lightcone::test
