#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "engine/safetensors.h"
#include "tests/support/devices.h"
#include "tests/support/edge_network.h"

using namespace lightcone;
using namespace lightcone::test;
using kernels::Pool;

namespace {
using Network = EdgeNetwork;
namespace composite = composite_edge_vectors;

// Largest difference of anything, relative to its largest element; of a gradient that is nothing but rounding (the last
// bias in front of a softmax), relative to 1.
double difference(const std::vector<Array>& a, const std::vector<Array>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    double largest = 0;
    for (double v : b[i].values) largest = std::max(largest, std::abs(v));
    const double d = largest_difference(a[i], b[i]) / (largest > 1e-9 ? largest : 1);
    if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

bool finite(const std::vector<Array>& arrays) {
  for (const Array& a : arrays)
    for (double v : a.values)
      if (!std::isfinite(v)) return false;
  return true;
}

// Every combination that the networks allow.
std::vector<EdgeVectorsOptions> all_options() {
  std::vector<EdgeVectorsOptions> all;
  for (EdgeMomentum operation : {EdgeMomentum::add, EdgeMomentum::diff, EdgeMomentum::single})
    for (EdgeWeight nonlinearity : {EdgeWeight::softmax, EdgeWeight::exp, EdgeWeight::softplus})
      for (Pool aggregation : {Pool::sum, Pool::mean})
        for (bool fm_norm : {false, true})
          for (bool layer_norm : {false, true})
            all.push_back({operation, nonlinearity, aggregation, fm_norm, layer_norm, 5, 1.5});
  return all;
}
std::string name_of(const EdgeVectorsOptions& o) {
  return fmt::format("operation {} weight {} aggregation {} fm_norm {} layer_norm {} dropout {}",
                     static_cast<int>(o.operation), static_cast<int>(o.nonlinearity), static_cast<int>(o.aggregation),
                     o.fm_norm, o.layer_norm, o.dropout);
}

}  // namespace

TEST_CASE("edge_vectors is what simple functions of all pairs give, with every option") {
  for (const EdgeVectorsOptions& options : all_options())
    for (double dropout : {0., 0.3}) {
      Network net{.jets = {5, 1, 0, 18, 2}, .options = options};
      net.options.dropout = dropout;
      const auto x = net.inputs();
      // Lengths whose squares cancel carry rounding on.
      CHECK_MESSAGE(difference(with_gradients(net, x, false), with_gradients(net, x, true)) < 1e-9,
                    name_of(net.options));
    }
}

TEST_CASE("edge_vectors of no scalars, and of some") {
  for (int64_t scalars : {0, 1, 7})
    for (bool edges : {false, true}) {
      const Network net{.jets = {3, 6}, .scalars = scalars, .edges = edges};
      const auto x = net.inputs();
      if (scalars + edges > 0) CHECK(difference(with_gradients(net, x, false), with_gradients(net, x, true)) < 1e-9);
    }
}

TEST_CASE("edge_vectors") {
  struct Size {
    std::vector<int64_t> jets;
    int64_t hidden, layers, vectors;
    bool edges = true;
  };
  // No tokens; no pairs; around the width of a register, a warp and a block; channels of every network, and odd ones.
  for (const Size& s : {Size{{}, 4, 2, 3}, Size{{0, 1}, 4, 2, 3}, Size{{2, 16, 4}, 32, 2, 3},
                        Size{{17, 7, 1, 9}, 8, 2, 3}, Size{{33, 3}, 16, 1, 2}, Size{{5, 12}, 1, 1, 1},
                        Size{{3, 6}, 5, 3, 5}, Size{{5, 8}, 70, 3, 2, false}, Size{{9}, 128, 2, 3}})
    for (EdgeWeight nonlinearity : {EdgeWeight::softmax, EdgeWeight::softplus}) {
      Network net{s.jets, 3, s.hidden, s.layers, s.vectors, s.edges};
      net.options.nonlinearity = nonlinearity;
      auto inputs = net.part_inputs();
      Array last_bias = inputs.back();
      // In front of a softmax its gradient is nothing but rounding.
      const bool constant = nonlinearity == EdgeWeight::softmax;
      if (constant) inputs.pop_back();
      auto complete = [=](std::vector<Var> x) {
        if (constant) x.push_back(x[0].tape().constant(to_tensor(x[0].context(), last_bias, x[0].dtype())));
        return x;
      };
      check_op({.name = fmt::format("edge_vectors of {} jets, {} channels, {} layers, {} vectors, weight {}",
                                    s.jets.size(), s.hidden, s.layers, s.vectors, static_cast<int>(nonlinearity)),
                .inputs = inputs,
                .op = [&](auto& x) { return std::vector{from_parts(net, complete(x))}; },
                .oracle =
                    [&](const auto& x) {
                      Context ctx(1);
                      Tape tape(ctx, Tape::Mode::evaluate);
                      std::vector<Var> in;
                      for (const Array& a : x) in.push_back(tape.constant(to_tensor(ctx, a, DType::f64)));
                      Array y = to_array(composite::vectors_from_parts(net, complete(in)).value());
                      y.shape = {net.tokens(), net.vectors, 4};
                      return std::vector{y};
                    },
                .dtypes = {DType::f64, DType::f32},
                .step = 1e-6});
    }
}

TEST_CASE("edge_vectors: numbers of the reference implementation") {
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/equimlp.safetensors");
  nlohmann::json cases = nlohmann::json::parse(file.metadata().at("equimlp"));
  cases["equimlp/noedges_mean"] = {
      {"operation", "add"}, {"nonlinearity", "softmax"}, {"fm_norm", true}, {"layer_norm", true}};
  CHECK(cases.size() == 19);
  for (const auto& [name, config] : cases.items()) {
    CAPTURE(name);
    Context ctx(2);
    Tape tape(ctx);
    auto load = [&](const std::string& key) { return file.load(ctx, name + "/" + key); };
    const bool edges = file.has(name + "/param/block.edge_mean");
    EdgeVectorsOptions o;
    const std::string operation = config["operation"], nonlinearity = config["nonlinearity"];
    o.operation = operation == "add"    ? EdgeMomentum::add
                  : operation == "diff" ? EdgeMomentum::diff
                                        : EdgeMomentum::single;
    o.nonlinearity = nonlinearity == "softmax" ? EdgeWeight::softmax
                     : nonlinearity == "exp"   ? EdgeWeight::exp
                                               : EdgeWeight::softplus;
    o.fm_norm = config["fm_norm"];
    o.layer_norm = config["layer_norm"];
    if (!edges) o.aggregation = Pool::mean;
    const Var p = tape.variable(file.load(ctx, "in/fourmomenta")), s = tape.variable(file.load(ctx, "in/scalars"));
    const Tensor ptr = ctx.of({4}, DType::i32, to_array(file.load(ctx, "in/ptr")).values);
    if (edges) {
      o.edge_mean = load("param/block.edge_mean").item();
      o.edge_std = load("param/block.edge_std").item();
      const EdgeStatistics statistics = edge_statistics(ctx, p.value(), ptr);
      CHECK(statistics.mean == doctest::Approx(o.edge_mean).epsilon(1e-13));
      CHECK(statistics.std == doctest::Approx(o.edge_std).epsilon(1e-13));
    }
    EdgePerceptron mlp;
    std::vector<std::pair<std::string, Var>> variables{{"fourmomenta", p}, {"scalars", s}};
    for (int layer : {0, 2, 4})
      for (const char* kind : {"weight", "bias"}) {
        const std::string key = fmt::format("param/block.mlp.mlp.{}.{}", layer, kind);
        if (!file.has(name + "/" + key)) continue;
        variables.emplace_back(key, tape.variable(load(key)));
        (kind[0] == 'w' ? mlp.weights : mlp.biases).push_back(variables.back().second);
      }
    const Var y = edge_vectors(p, s, ptr, mlp, o);
    CHECK(relative_error(to_array(y.value()), to_array(load("vectors"))) <= 1e-12);
    tape.backward(y, load("grad_out"));
    for (const auto& [key, x] : variables) {
      CAPTURE(key);
      CHECK(difference({to_array(tape.gradient(x))}, {to_array(load("grad/" + key))}) <= 1e-11);
    }
  }
}

TEST_CASE("edge_vectors on the devices, with every option") {
  for (const EdgeVectorsOptions& options : all_options())
    for (double dropout : {0., 0.3})
      for (DType dtype : {DType::f64, DType::f32}) {
        Network net{.jets = {5, 1, 0, 18, 2}, .options = options};
        net.options.dropout = dropout;
        auto x = net.part_inputs();
        Context ctx(1);
        for (size_t i = 1; i < x.size(); ++i) x[i] = to_array(to_tensor(ctx, x[i], dtype));
        const auto exact = part_gradients(net, x, {});
        const bool constant = options.nonlinearity == EdgeWeight::softmax;  // the last bias: its gradient is rounding
        for (Device device : devices()) {
          auto y = part_gradients(net, x, {.device = device, .dtype = dtype});
          y.resize(y.size() - constant);
          CHECK_MESSAGE(difference(y, {exact.begin(), exact.end() - constant}) <= tolerance(dtype),
                        name_of(net.options), " on ", name_of(device), " in ", fmt::format("{}", dtype));
        }
      }
}

TEST_CASE("edge_vectors: f64 momenta and a network in f32; long jets, deep and wide networks") {
  struct Size {
    std::vector<int64_t> jets;
    int64_t hidden, layers;
    DType dtype = DType::f32;
  };
  // The fifth needs smaller tiles on a GPU; the last two do not fit its shared memory.
  for (const Size& s : {Size{{20, 50, 3}, 32, 2}, Size{{150, 1, 70}, 8, 1}, Size{{33, 2}, 24, 2}, Size{{40}, 64, 2},
                        Size{{9}, 30, 5}, Size{{6, 3}, 128, 9, DType::f64}, Size{{5}, 700, 1, DType::f64}}) {
    Network net{.jets = s.jets, .hidden = s.hidden, .layers = s.layers};
    auto inputs = net.part_inputs();
    Context ctx(1);
    for (size_t i = 1; i < inputs.size(); ++i) inputs[i] = to_array(to_tensor(ctx, inputs[i], s.dtype));
    const auto exact = part_gradients(net, inputs, {});
    for (Device device : devices()) {
      const auto low = part_gradients(net, inputs, {.device = device, .dtype = s.dtype});
      for (size_t i = 0; i + 1 < low.size(); ++i) {  // without the last bias, in front of a softmax
        CAPTURE(s.hidden);
        CAPTURE(name_of(device));
        CAPTURE(i);
        CHECK(relative_error(low[i], exact[i]) <= tolerance(s.dtype));
      }
    }
  }
}

TEST_CASE("edge_vectors: scalars in bf16, and the perceptron in f32 under amp") {
  Network net;
  Context ctx(1);
  const auto inputs = net.inputs();
  const Tensor bf16_scalars = to_tensor(ctx, inputs[1], DType::bf16);
  auto value = [&](bool amp, const Tensor& scalars) {
    Tape tape(ctx);
    tape.set_amp(amp);
    std::vector<Var> x;
    for (const Array& a : inputs) x.push_back(tape.constant(to_tensor(ctx, a, x.empty() ? DType::f64 : DType::f32)));
    x[1] = tape.constant(scalars);
    const Array y = to_array(fused(net, x).value());
    CHECK(tape.amp() == amp);
    return y.values;
  };
  const Tensor rounded = to_tensor(ctx, to_array(bf16_scalars), DType::f32);
  CHECK(value(true, bf16_scalars) == value(false, rounded));
}

TEST_CASE("edge_vectors turn with their jets") {
  for (const EdgeVectorsOptions& options : all_options()) {
    const Network net{.jets = {5, 20}, .options = options};
    auto inputs = net.inputs();
    const Array y = with_gradients(net, inputs, false)[0], p = inputs[0];
    for (const Lorentz& L : lorentz_transformations(3)) {
      inputs[0] = transformed(L, p);
      // Squares of sums that are nearly light-like cancel; a boost of rapidity 3 adds a factor 10 to their parts.
      CHECK_MESSAGE(relative_error(with_gradients(net, inputs, false)[0], transformed(L, y)) < 1e-9, name_of(options));
    }
  }
}

TEST_CASE("edge_vectors: a jet's rows depend on that jet alone, the bits not on the threads") {
  Network net{.jets = {40, 17, 1, 60, 3}, .scalars = 5, .hidden = 13};
  const auto inputs = net.inputs();
  const auto all = with_gradients(net, inputs, false, 1, DType::f32);
  const auto two = with_gradients(net, inputs, false, 2, DType::f32),
             three = with_gradients(net, inputs, false, 3, DType::f32);
  for (size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i].values == two[i].values);
    CHECK(all[i].values == three[i].values);
  }
  int64_t begin = 0;
  for (int64_t n : net.jets) {
    Network alone = net;
    alone.jets = {n};
    auto x = inputs;
    for (int i : {0, 1}) {
      const int64_t cols = x[i].shape[1];
      x[i] = {{n, cols}, {x[i].values.begin() + begin * cols, x[i].values.begin() + (begin + n) * cols}};
    }
    const Array y = with_gradients(alone, x, false, 1, DType::f32)[0];
    CHECK(std::equal(y.values.begin(), y.values.end(), all[0].values.begin() + begin * net.vectors * 4));
    begin += n;
  }
}

TEST_CASE("edge_vectors: a jet's rows and their gradients depend on that jet alone, on every device") {
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32})
      for (int64_t n : {1, 2, 17, 40, 70}) {
        const Network net{.jets = {n, 5, 0, 33}, .hidden = 13};
        Network alone = net;
        alone.jets = {n};
        const auto inputs = net.part_inputs();
        auto x = inputs;
        for (int i : {0, 1, 2}) {  // momenta, receiver, sender
          const int64_t cols = x[i].shape[1];
          x[i] = {{n, cols}, {x[i].values.begin(), x[i].values.begin() + n * cols}};
        }
        const EdgeRun run{.device = device, .dtype = dtype};
        const auto all = part_gradients(net, inputs, run), one = part_gradients(alone, x, run);
        for (int i : {0, 1, 2, 3})
          CHECK(std::ranges::equal(one[i].values, std::span(all[i].values).first(one[i].values.size())));
      }
}

TEST_CASE("edge_vectors: a NaN stays in its jet") {
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32}) {
      Network net{.jets = {6, 5, 4}};
      auto inputs = net.part_inputs();
      const Array y = part_gradients(net, inputs, {.device = device, .dtype = dtype})[0];
      inputs[1][net.hidden * 6] = inputs[2][net.hidden * 6] = NAN;
      const Array with_nan = part_gradients(net, inputs, {.device = device, .dtype = dtype})[0];
      for (int64_t i = 0; i < 15 * 12; ++i)
        if (i >= 6 * 12 && i < 11 * 12)
          CHECK(std::isnan(with_nan[i]));
        else
          CHECK(with_nan[i] == y[i]);
    }
}

TEST_CASE("edge_vectors: degenerate momenta give finite results and gradients") {
  const std::vector<double> special = {
      5,    0, 0,    5, 10,  0,   0, 10, 3, 0, 0, 3,   // light-like and collinear
      7,    1, 2,    3, 7,   1,   2, 3,                // equal
      0,    0, 0,    0,                                // nothing
      1,    0, 0,    2, 1,   0,   0, -2, 1, 0, 3, 0,   // space-like
      1e-8, 0, 1e-8, 0, 1e6, 1e6, 0, 0,  5, 0, 0, -5,  // tiny, huge, back to back
  };
  for (const EdgeVectorsOptions& options : all_options())
    for (DType dtype : {DType::f64, DType::f32})
      for (const std::vector<int64_t>& jets : {std::vector<int64_t>{12}, {3, 2, 1, 3, 3}, {2, 1, 3, 1, 1, 1, 1, 2}}) {
        Network net{.jets = jets, .options = options};
        auto inputs = net.inputs();
        inputs[0].values = special;
        CHECK_MESSAGE(finite(with_gradients(net, inputs, false, 1, dtype)), name_of(options));
        inputs = net.part_inputs();
        inputs[0].values = special;
        for (Device device : devices())
          CHECK_MESSAGE(finite(part_gradients(net, inputs, {.device = device, .dtype = dtype})), name_of(options));
      }
}

TEST_CASE("edge_vectors: below the bounds of masses and lengths") {
  for (const EdgeVectorsOptions& options : all_options()) {
    const Network net{.jets = {5, 3}, .options = options};
    auto inputs = net.inputs();
    for (double& v : inputs[0].values) v *= 1e-8;
    CHECK_MESSAGE(difference(with_gradients(net, inputs, false), with_gradients(net, inputs, true)) < 1e-9,
                  name_of(options));
    auto parts = net.part_inputs();
    parts[0] = inputs[0];
    const auto expected = part_gradients(net, parts, {});
    for (Device device : devices())
      CHECK_MESSAGE(difference(part_gradients(net, parts, {.device = device}), expected) < 1e-9, name_of(options));
  }
}

TEST_CASE("edge_vectors: no pairs, no vectors") {
  for (const EdgeVectorsOptions& options : all_options()) {
    const Network net{.jets = {1, 1, 0, 1}, .options = options};
    for (Device device : devices())
      for (const Array& a : part_gradients(net, net.part_inputs(), {.device = device}))
        for (double v : a.values) CHECK(v == 0);
  }
}

TEST_CASE("edge_vectors: large logits") {
  for (EdgeWeight nonlinearity : {EdgeWeight::softmax, EdgeWeight::exp, EdgeWeight::softplus}) {
    Network net;
    net.options.nonlinearity = nonlinearity;
    auto inputs = net.inputs();
    for (double& w : inputs[inputs.size() - 2].values) w *= 3000;
    const auto simple = with_gradients(net, inputs, true);
    CHECK(difference(with_gradients(net, inputs, false), simple) < 1e-8);
    CHECK(finite(with_gradients(net, inputs, false, 1, DType::f32)));
    auto parts = net.part_inputs();
    for (double& w : parts[parts.size() - 2].values) w *= 3000;
    const auto expected = part_gradients(net, parts, {});
    for (Device device : devices()) {
      CHECK(difference(part_gradients(net, parts, {.device = device}), expected) < 1e-8);
      CHECK(finite(part_gradients(net, parts, {.device = device, .dtype = DType::f32})));
    }
  }
}

TEST_CASE("edge_vectors keep no pairs") {
  for (Device device : devices()) {
    Context ctx(device, 2);
    const Network net{.jets = {400}, .hidden = 8};
    const auto inputs = net.part_inputs();
    Tape tape(ctx);
    std::vector<Var> x;
    for (const Array& a : inputs) x.push_back(tape.variable(to_tensor(ctx, a, x.empty() ? DType::f64 : DType::f32)));
    ctx.allocator().reset_peak();
    const int64_t before = ctx.allocator().statistics().peak;
    const Var y = from_parts(net, x);
    tape.backward(y, to_tensor(ctx, normal(y.shape(), 5), DType::f64));
    // Hidden values of all pairs would take 5 MB, one number a pair 640 kB; those of all tokens take 13 kB.
    CHECK(ctx.allocator().statistics().peak - before < 500000);
  }
}

TEST_CASE("edge_vectors: dropout acts in training alone") {
  Network net;
  const auto inputs = net.part_inputs();
  auto value = [&](Device device, Tape::Mode mode, double p) {
    Context ctx(device, 1, 3);
    Tape tape(ctx, mode);
    std::vector<Var> x;
    for (const Array& a : inputs) x.push_back(tape.constant(to_tensor(ctx, a, DType::f64)));
    net.options.dropout = p;
    return to_array(from_parts(net, x).value());
  };
  for (Device device : devices()) {
    const Array without = value(device, Tape::Mode::train, 0), with = value(device, Tape::Mode::train, 0.3);
    CHECK(value(device, Tape::Mode::evaluate, 0.3).values == without.values);
    CHECK(with.values != without.values);
    CHECK(relative_error(with, value(Device::cpu, Tape::Mode::train, 0.3)) <= tolerance(DType::f64));
  }
}

TEST_CASE("edge_statistics") {
  std::vector<std::pair<Device, int>> contexts{{Device::cpu, 2}};
  for (Device device : devices()) contexts.emplace_back(device, 1);
  for (auto [device, threads] : contexts) {
    Context ctx(device, threads);
    Network net{.jets = {70, 0, 1, 5, 2, 66}};
    const Array p = net.inputs()[0];
    std::vector<double> e;
    int64_t begin = 0;
    for (int64_t n : net.jets) {
      for (int64_t i = begin; i < begin + n; ++i)
        for (int64_t j = begin; j < begin + n; ++j) {
          double m2 = 0;
          for (int c = 0; c < 4; ++c) m2 += (c ? -1 : 1) * std::pow(p.at(i, c) + p.at(j, c), 2);
          if (i != j) e.push_back(std::log(std::max(m2, 1e-10)));
        }
      begin += n;
    }
    double mean = 0, variance = 0;
    for (double v : e) mean += v / e.size();
    for (double v : e) variance += (v - mean) * (v - mean) / (e.size() - 1);
    const EdgeStatistics s = edge_statistics(ctx, to_tensor(ctx, p, DType::f64), net.ptr(ctx));
    CHECK(s.mean == doctest::Approx(mean).epsilon(1e-12));
    CHECK(s.std == doctest::Approx(std::sqrt(variance)).epsilon(1e-12));
    // Two constituents: one mass.
    net.jets = {2};
    const Array pair = {{2, 4}, {p.values.begin(), p.values.begin() + 8}};
    CHECK(edge_statistics(ctx, to_tensor(ctx, pair, DType::f64), net.ptr(ctx)).std == 1e-5);
    net.jets = {1, 1};
    CHECK_THROWS_WITH_AS(edge_statistics(ctx, to_tensor(ctx, pair, DType::f64), net.ptr(ctx)),
                         "edge_statistics: no jet has two constituents, so there are no pairs to standardise by",
                         Error);
  }
}
