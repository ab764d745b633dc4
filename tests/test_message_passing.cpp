// Message passing between the constituents of a jet, against simple functions of all edges.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.h"
#include "autograd/frames.h"
#include "autograd/matmul.h"
#include "autograd/message_passing.h"
#include "autograd/random.h"
#include "autograd/segment.h"
#include "tests/support/devices.h"
#include "tests/support/edge_network.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Messages {
  std::vector<int64_t> jets = {5, 1, 4};  // constituents
  int64_t hidden = 4, attributes = 0, layers = 1;
  std::string reps = {};  // of what depends on frames; none if empty
  Pool aggregation = Pool::sum;
  double dropout = 0;

  int64_t tokens() const { return std::accumulate(jets.begin(), jets.end(), int64_t{0}); }
  int64_t edges() const {
    return std::accumulate(jets.begin(), jets.end(), int64_t{0},
                           [](int64_t sum, int64_t n) { return sum + n * (n - 1); });
  }
  Tensor ptr(Context& ctx) const { return EdgeNetwork{.jets = jets}.ptr(ctx); }
  MessageOptions options() const {
    return {.aggregation = aggregation, .reps = reps.empty() ? TensorReps() : TensorReps(reps), .dropout = dropout};
  }
  // receiver, sender, (edge, edge_weight), (features, feature_weight, frames), weights and biases.
  std::vector<Array> inputs(uint64_t seed = 1) const {
    const int64_t T = tokens(), H = hidden, D = options().reps.dim();
    std::vector<Array> x{normal({T, H}, seed), normal({T, H}, seed + 1)};
    if (attributes) {
      x.push_back(normal({edges(), attributes}, seed + 2));
      x.push_back(normal({H, attributes}, seed + 3));
    }
    if (D) {
      x.push_back(normal({T, D}, seed + 4));
      x.push_back(normal({H, D}, seed + 5, 1 / std::sqrt(double(D))));
      x.push_back(zeros({T, 4, 4}));
      for (int64_t t = 0; t < T; ++t) {
        Lorentz l = random_rotation(seed + 7 * t) * random_boost(seed + 7 * t + 1, 0.2 + 0.1 * double(t % 5));
        for (int i = 0; t % 3 == 2 && i < 4; ++i) l[4 + i] = -l[4 + i];  // a reflection
        std::copy(l.begin(), l.end(), x.back().values.begin() + 16 * t);
      }
    }
    for (int64_t l = 0; l < layers; ++l) {
      x.push_back(normal({H, H}, seed + 20 + l, 1 / std::sqrt(double(H))));
      x.push_back(normal({H}, seed + 30 + l, 0.3));
    }
    return x;
  }
  MessagePerceptron perceptron(const std::vector<Var>& x) const {
    MessagePerceptron m;
    m.receiver = x[0], m.sender = x[1];
    size_t next = 2;
    if (attributes) m.edge = x[next++], m.edge_weight = x[next++];
    if (!reps.empty()) m.features = x[next++], m.feature_weight = x[next++], m.frames = x[next++];
    while (next < x.size()) m.weights.push_back(x[next++]), m.biases.push_back(x[next++]);
    return m;
  }
};

Var fused(const Messages& net, const std::vector<Var>& x) {
  return message_passing(net.ptr(x[0].context()), net.perceptron(x), net.options());
}

// The same from simple functions of all edges.
Var composite(const Messages& net, const std::vector<Var>& x) {
  Context& ctx = x[0].context();
  const auto pairs = composite_edge_vectors::pairs_of(ctx, {.jets = net.jets});
  const MessagePerceptron m = net.perceptron(x);
  Var h = add(gather_rows(m.receiver, pairs.receiver), gather_rows(m.sender, pairs.sender));
  if (net.attributes) h = add(h, linear(m.edge, m.edge_weight, Var{}));
  if (!net.reps.empty()) {
    const Var frames = reshape(gather_rows(reshape(m.frames, {net.tokens(), 16}), pairs.receiver), {net.edges(), 4, 4});
    const Var local =
        frames_transform(gather_rows(m.features, pairs.sender), frames, net.options().reps, FrameMap::to_local);
    h = add(h, linear(local, m.feature_weight, Var{}));
  }
  for (size_t l = 0; l < m.weights.size(); ++l)
    h = linear(unary(Unary::gelu, dropout(h, net.dropout)), m.weights[l], m.biases[l]);
  h = unary(Unary::gelu, dropout(h, net.dropout));
  return net.aggregation == Pool::sum ? segment_sum(h, pairs.ptr) : segment_mean(h, pairs.ptr);
}

// Value, then the gradient of each input, for a random cotangent.
std::vector<Array> with_gradients(const Messages& net, const std::vector<Array>& inputs, bool simple, int threads = 1,
                                  DType dtype = DType::f64, Device device = Device::cpu) {
  Context ctx(device, threads);
  Tape tape(ctx);
  std::vector<Var> x;
  for (const Array& a : inputs) x.push_back(tape.variable(to_tensor(ctx, a, dtype)));
  if (net.dropout > 0) ctx.rng().replace("dropout", uniform({100000}, 77, 0, 1).values);
  const Var y = simple ? composite(net, x) : fused(net, x);
  tape.backward(y, to_tensor(ctx, normal({net.tokens(), net.hidden}, 5), dtype));
  std::vector<Array> out{to_array(y.value())};
  for (size_t i = 0; i < x.size(); ++i) {
    const Tensor& g = tape.gradient(x[i]);
    out.push_back(g.defined() ? to_array(g) : zeros(inputs[i].shape));
  }
  return out;
}

}  // namespace

TEST_CASE("message_passing") {
  // No tokens; no edges; around the 128 edges of a block; every part alone and all of them, odd numbers of channels.
  for (const Messages& net :
       {Messages{.jets = {}}, Messages{.jets = {0, 1, 1}, .attributes = 1, .reps = "1x1n"},
        Messages{.jets = {12, 2, 1, 3}, .hidden = 3, .layers = 0}, Messages{.jets = {2, 8}, .attributes = 1},
        Messages{.jets = {9, 8}, .hidden = 5, .attributes = 3, .layers = 2, .aggregation = Pool::mean},
        Messages{.jets = {4, 3}, .hidden = 8, .reps = "2x1n"},
        Messages{.jets = {3, 4}, .hidden = 6, .reps = "1x0p+1x1n+1x1p+1x2n", .aggregation = Pool::mean},
        Messages{.jets = {13, 2, 1}, .hidden = 17, .attributes = 1, .layers = 2, .reps = "1x0n+2x1n"}})
    check_op({.name = fmt::format("message_passing of {} jets, {} channels, {} attributes, {} layers, reps '{}'",
                                  net.jets.size(), net.hidden, net.attributes, net.layers, net.reps),
              .inputs = net.inputs(),
              .op = [&](auto& x) { return std::vector{fused(net, x)}; },
              .oracle =
                  [&](const auto& x) {
                    Context ctx(1);
                    Tape tape(ctx, Tape::Mode::evaluate);
                    std::vector<Var> in;
                    for (const Array& a : x) in.push_back(tape.constant(to_tensor(ctx, a, DType::f64)));
                    return std::vector{to_array(composite(net, in).value())};
                  },
              .dtypes = {DType::f64, DType::f32}});
}

TEST_CASE("message_passing is what simple functions of all edges give, dropout too") {
  for (int64_t hidden : {7, 64, 130})  // products in registers and in tiles
    for (double dropout : {0., 0.3})
      for (Pool aggregation : {Pool::sum, Pool::mean})
        for (const char* reps : {"", "3x1n"}) {
          if (dropout > 0 && hidden > 7) continue;
          const Messages net{.jets = {14, 1, 0, 20, 2},
                             .hidden = hidden,
                             .attributes = 1,
                             .layers = 2,
                             .reps = reps,
                             .aggregation = aggregation,
                             .dropout = dropout};
          const auto x = net.inputs();
          for (DType dtype : {DType::f64, DType::f32}) {
            const auto expected = with_gradients(net, x, true, 1, dtype);
            for (Device device : devices()) {
              if (device == Device::cuda && hidden > 64) continue;  // products there have one way
              const auto y = with_gradients(net, x, false, 1, dtype, device);
              for (size_t i = 0; i < y.size(); ++i) {
                CAPTURE(hidden);
                CAPTURE(reps);
                CAPTURE(i);
                CHECK(relative_error(y[i], expected[i]) <= tolerance(dtype));
              }
            }
          }
        }
}

TEST_CASE("message_passing: a jet's rows depend on that jet alone, the bits not on the threads") {
  for (Device device : devices()) {
    Messages net{.jets = {40, 17, 1, 60, 3}, .hidden = 72, .attributes = 1, .reps = "2x1n"};
    if (device == Device::cuda) net.jets = {11, 5, 1, 20, 3}, net.hidden = 20;  // it may be simulated
    const auto inputs = net.inputs();
    const auto all = with_gradients(net, inputs, false, 1, DType::f32, device);
    for (int threads : {2, 3}) {
      const auto same = with_gradients(net, inputs, false, threads, DType::f32, device);
      for (size_t i = 0; i < all.size(); ++i) CHECK(all[i].values == same[i].values);
    }
    int64_t begin = 0, edge = 0;
    for (int64_t n : net.jets) {
      Messages alone = net;
      alone.jets = {n};
      auto x = inputs;
      auto cut = [&](size_t i, int64_t first, int64_t rows) {
        Shape shape = x[i].shape;
        const int64_t columns = shape.numel() / shape[0];
        shape[0] = rows;
        x[i] = {shape, {x[i].values.begin() + first * columns, x[i].values.begin() + (first + rows) * columns}};
      };
      for (size_t i : {0, 1, 4, 6}) cut(i, begin, n);
      cut(2, edge, n * (n - 1));
      const Array y = with_gradients(alone, x, false, 1, DType::f32, device)[0];
      CHECK(std::equal(y.values.begin(), y.values.end(), all[0].values.begin() + begin * net.hidden));
      begin += n, edge += n * (n - 1);
    }
  }
}

TEST_CASE("message_passing of more edges than a GPU works on at a time") {
  // Cut within the second jet.
  const Messages net{.jets = {90, 170}, .hidden = 2, .attributes = 1, .reps = "1x1n"};
  const auto inputs = net.inputs();
  const auto expected = with_gradients(net, inputs, false);
  for (Device device : devices()) {
    const auto y = with_gradients(net, inputs, false, 1, DType::f64, device);
    for (size_t i = 0; i < y.size(); ++i) CHECK(relative_error(y[i], expected[i]) <= tolerance(DType::f64));
  }
}

TEST_CASE("message_passing: a NaN stays in its jet") {
  for (Device device : devices()) {
    const Messages net{.jets = {6, 5, 4}};
    auto inputs = net.inputs();
    const Array y = with_gradients(net, inputs, false, 1, DType::f64, device)[0];
    inputs[1].at(7, 2) = NAN;
    const Array with_nan = with_gradients(net, inputs, false, 1, DType::f64, device)[0];
    for (int64_t t = 0; t < 15; ++t)
      for (int64_t h = 0; h < 4; ++h)
        if (t < 6 || t == 7 || t >= 11)  // the sender itself hears the others alone
          CHECK(with_nan.at(t, h) == y.at(t, h));
        else
          CHECK(std::isnan(with_nan.at(t, h)));
  }
}

TEST_CASE("message_passing refuses what does not fit") {
  Context ctx(1);
  Tape tape(ctx);
  const Messages net{.jets = {3, 2}, .attributes = 1, .reps = "1x1n"};
  auto refused = [&](size_t input, const Shape& shape, const char* message) {
    auto arrays = net.inputs();
    arrays[input] = zeros(shape);
    std::vector<Var> x;
    for (const Array& a : arrays) x.push_back(tape.variable(to_tensor(ctx, a, DType::f64)));
    CHECK_THROWS_WITH_AS(fused(net, x), message, Error);
  };
  refused(1, {5, 3}, "message_passing: sender has shape [5, 3], expected [5, 4]");
  refused(2, {7, 1}, "message_passing: edge has shape [7, 1], expected [8, 1]");
  refused(3, {4, 2}, "message_passing: edge has shape [8, 1], expected [8, 2]");
  refused(4, {5, 3}, "message_passing: features has shape [5, 3], expected [5, 4]");
  refused(5, {4, 3}, "message_passing: feature_weight has shape [4, 3], expected [4, 4]");
  refused(6, {5, 3, 4}, "message_passing: frames has shape [5, 3, 4], expected [5, 4, 4]");
  refused(7, {4, 3}, "message_passing: weights[0] has shape [4, 3], expected [4, 4]");
  refused(8, {3}, "message_passing: biases[0] has shape [3], expected [4]");
  std::vector<Var> x;
  for (const Array& a : net.inputs()) x.push_back(tape.variable(to_tensor(ctx, a, DType::f64)));
  MessageOptions options = net.options();
  options.dropout = 1;
  CHECK_THROWS_WITH_AS(message_passing(net.ptr(ctx), net.perceptron(x), options),
                       "message_passing: dropout is 1, expected 0 <= dropout < 1", Error);
  MessagePerceptron m = net.perceptron(x);
  m.biases.clear();
  CHECK_THROWS_WITH_AS(message_passing(net.ptr(ctx), m, net.options()),
                       "message_passing: 1 weights and 0 biases, expected as many of both", Error);
  m = net.perceptron(x);
  m.edge_weight = Var{};
  CHECK_THROWS_WITH_AS(message_passing(net.ptr(ctx), m, net.options()), "message_passing: edge_weight is not there",
                       Error);
  CHECK_THROWS_WITH_AS(edge_attributes(tape.constant(ctx.zeros({5, 4}, DType::f64)), net.ptr(ctx), 0, 0, DType::f64),
                       "edge_attributes: std is 0, expected a positive, finite number", Error);
}

namespace {
const std::vector<double> special = {
    5,    0, 0,    5, 10,  0,   0, 10, 3, 0, 0, 3,   // light-like and collinear
    7,    1, 2,    3, 7,   1,   2, 3,                // equal
    0,    0, 0,    0,                                // nothing
    1,    0, 0,    2, 1,   0,   0, -2, 1, 0, 3, 0,   // space-like
    1e-8, 0, 1e-8, 0, 1e6, 1e6, 0, 0,  5, 0, 0, -5,  // tiny, huge, back to back
};
}  // namespace

TEST_CASE("edge_attributes") {
  for (const std::vector<int64_t>& jets : {std::vector<int64_t>{}, {1, 0, 1}, {5, 1, 4}, {2, 70, 65}}) {
    const EdgeNetwork net{.jets = jets};
    check_op(
        {.name = fmt::format("edge_attributes of {} jets", jets.size()),
         .inputs = {momenta(net.tokens(), 3)},
         .op =
             [&](auto& x) { return std::vector{edge_attributes(x[0], net.ptr(x[0].context()), 5, 1.5, x[0].dtype())}; },
         .oracle =
             [&](const auto& x) {
               const Array& p = x[0];
               Array e = zeros({0, 1});
               for (int64_t begin = 0, b = 0; b < int64_t(jets.size()); begin += jets[b++])
                 for (int64_t i = begin; i < begin + jets[b]; ++i)
                   for (int64_t j = begin; j < begin + jets[b]; ++j) {
                     if (i == j) continue;
                     double m2 = 0;
                     for (int c = 0; c < 4; ++c) m2 += (c ? -1 : 1) * std::pow(p.at(i, c) + p.at(j, c), 2);
                     e.values.push_back((std::log(std::max(m2, 1e-10)) - 5) / 1.5);
                   }
               e.shape[0] = int64_t(e.values.size());
               return std::vector{e};
             },
         .dtypes = {DType::f64, DType::f32},
         // The squares of masses of 1 GeV are differences of squares of momenta ten times as large.
         .tolerance_factor = 10,
         .step = 1e-6});
  }
}

TEST_CASE("edge_attributes: degenerate momenta give finite results and gradients, and none where the bound acts") {
  for (Device device : devices())
    for (const std::vector<int64_t>& jets : {std::vector<int64_t>{12}, {3, 2, 1, 3, 3}}) {
      Context ctx(device, 1);
      Tape tape(ctx);
      const EdgeNetwork net{.jets = jets};
      const Var p = tape.variable(ctx.of({12, 4}, DType::f64, special));
      const Var e = edge_attributes(p, net.ptr(ctx), 0, 1, DType::f32);
      tape.backward(e, to_tensor(ctx, {e.shape(), std::vector<double>(size_t(e.value().numel()), 1)}, DType::f32));
      for (const Array& a : {to_array(e.value()), to_array(tape.gradient(p))})
        CHECK(std::all_of(a.values.begin(), a.values.end(), [](double v) { return std::isfinite(v); }));
      if (jets.size() == 1) continue;
      // Three collinear, light-like momenta, all at the bound.
      CHECK(to_array(e.value())[0] == doctest::Approx(std::log(1e-10)));
      for (int64_t k = 0; k < 12; ++k) CHECK(to_array(tape.gradient(p))[k] == 0);
    }
}
