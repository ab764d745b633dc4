// L-GATr-slim: what its symmetry and its tokens demand.
#include <doctest/doctest.h>

#include <numeric>

#include "autograd/loss.h"
#include "models/lgatr_slim.h"
#include "models/lgatr_slim_tagger.h"
#include "tests/support/amp.h"
#include "tests/support/lorentz.h"
#include "tests/support/naive_lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Options {
  Json net = {{"type", "LGATrSlim"}, {"hidden_v_channels", 6}, {"hidden_s_channels", 12},
              {"num_blocks", 2},     {"num_heads", 2},         {"attn_ratio", 2}};
  bool mean_aggregation = false, use_amp = false;
  EmbeddingConfig embedding = {};
  std::unique_ptr<Tagger> tagger(Context& ctx, DType dtype) const {
    return std::make_unique<LGATrSlimTagger>(
        ctx, Json{{"net", net}, {"mean_aggregation", mean_aggregation}, {"use_amp", use_amp}}, TaggingTask{}, embedding,
        dtype);
  }
};

JetSet jets_of(Context& ctx, const Array& p, const std::vector<int64_t>& lengths, DType dtype = DType::f64) {
  std::vector<double> ptr{0};
  for (int64_t n : lengths) ptr.push_back(ptr.back() + n);
  return {.fourmomenta = to_tensor(ctx, p, dtype),
          .ptr = ctx.of({int64_t(ptr.size())}, DType::i32, ptr),
          .labels = {},
          .scalars = {}};
}

/// Momenta of a jet: forward, of 10 to 500 GeV.
Array constituents(int64_t n, uint64_t seed, double mass) {
  Array p = normal({n, 4}, seed, 5);
  for (int64_t t = 0; t < n; ++t) {
    p.at(t, 1) += 100 / (1 + t);
    p.at(t, 0) = std::sqrt(mass * mass + p.at(t, 1) * p.at(t, 1) + p.at(t, 2) * p.at(t, 2) + p.at(t, 3) * p.at(t, 3));
  }
  return p;
}

Array logits(const Options& o, const Array& p, const std::vector<int64_t>& lengths, int threads = 1,
             DType dtype = DType::f64) {
  Context ctx(threads, 3);
  Tape tape(ctx, Tape::Mode::evaluate);
  return to_array((*o.tagger(ctx, dtype))(tape, jets_of(ctx, p, lengths)).value());
}

}  // namespace

TEST_CASE("slim: without spurions and features logits are invariant under Lorentz transformations") {
  const std::vector<int64_t> lengths = {9, 4, 1, 2, 14};
  for (bool mean : {false, true}) {
    Options o;
    o.mean_aggregation = mean;
    o.embedding.tagging_features.reset(), o.embedding.beam_reference.reset(), o.embedding.add_time_reference = false;
    o.embedding.mass_reg.reset();
    const Array p = constituents(30, 1, 1), y = logits(o, p, lengths);
    CHECK(*std::max_element(y.values.begin(), y.values.end()) - *std::min_element(y.values.begin(), y.values.end()) >
          1e-4);
    for (double rapidity : {0.1, 1., 2.})
      for (uint64_t seed : {1, 2}) {
        const Lorentz a = random_rotation(seed) * random_boost(seed + 5, rapidity) * random_rotation(seed + 9);
        CHECK(largest_difference(logits(o, transformed(a, p), lengths), y) < 1e-9);
      }
    // With the beams the same transformation does show.
    o.embedding.beam_reference = "lightlike";
    CHECK(largest_difference(logits(o, transformed(random_boost(1, 1), p), lengths), logits(o, p, lengths)) > 1e-6);
  }
}

TEST_CASE("slim: the network is covariant, spurions transformed too") {
  Context ctx(1, 4);
  LGATrSlimConfig c;
  c.in_v_channels = 1, c.in_s_channels = 2, c.out_v_channels = 3, c.out_s_channels = 2;
  c.hidden_v_channels = 6, c.hidden_s_channels = 12, c.num_blocks = 2, c.num_heads = 2;
  LGATrSlim net(ctx, c, DType::f64);
  Array p = constituents(12, 1, 1);
  for (int64_t jet : {0, 6})  // beam and time in front of each jet
    for (int64_t i = 0; i < 4; ++i) p.at(jet, i) = i == 0 || i == 3, p.at(jet + 1, i) = i == 0;
  const Array s = normal({12, 2}, 2);
  auto run = [&](const Array& p) {
    Tape tape(ctx, Tape::Mode::evaluate);
    const LorentzVar y = net({tape.constant(to_tensor(ctx, p, DType::f64).reshape({12, 4, 1})),
                              tape.constant(to_tensor(ctx, s, DType::f64))},
                             ctx.of({3}, DType::i32, std::vector<double>{0, 6, 12}));
    return std::pair{components_last(to_array(y.vectors.value())), to_array(y.scalars.value())};
  };
  const auto [v, scalars] = run(p);
  for (double rapidity : {0.1, 1., 2.}) {
    const Lorentz a = random_rotation(3) * random_boost(4, rapidity);
    const auto [there, same] = run(transformed(a, p));
    CHECK(relative_error(there, transformed(a, v)) < 1e-9);
    CHECK(largest_difference(same, scalars) < 1e-9);
  }
}

TEST_CASE("slim: a jet's score does not depend on its batch or the threads, bit by bit") {
  std::vector<int64_t> lengths;
  for (int64_t jet = 0; jet < 80; ++jet) lengths.push_back(1 + jet * 7 % 41);
  const int64_t T = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const Array p = constituents(T, 1, 0);
  for (DType dtype : {DType::f64, DType::f32})
    for (bool amp : {false, true}) {
      Options o;
      o.use_amp = amp && dtype == DType::f32;
      const Array all = logits(o, p, lengths, 1, dtype);
      CHECK(logits(o, p, lengths, 3, dtype).values == all.values);
      int64_t first = 0;
      for (int64_t jet = 0; jet < 80; first += lengths[jet++]) {
        if (jet % 9) continue;
        Array alone = zeros({lengths[jet], 4});
        std::copy_n(p.values.begin() + 4 * first, 4 * lengths[jet], alone.values.begin());
        CHECK(logits(o, alone, {lengths[jet]}, 1, dtype)[0] == all[jet]);
      }
    }
}

namespace {

/// Loss and gradients of one step, by name.
std::map<std::string, Tensor> step(const Options& o, const Array& p, const std::vector<int64_t>& lengths, int threads,
                                   DType dtype) {
  Context ctx(threads, 7);
  ctx.allocator().set_guard(true);
  std::map<std::string, Tensor> out;
  {
    const auto tagger = o.tagger(ctx, dtype);
    Tape tape(ctx);
    const Var y = (*tagger)(tape, jets_of(ctx, p, lengths));
    const Var loss = bce_with_logits(y, to_tensor(ctx, uniform(y.shape(), 2, 0, 1), dtype));
    tape.backward(loss);
    out["loss"] = loss.value();
    for (const auto& [name, parameter] : tagger->parameters())
      if (parameter->grad.defined()) out[name] = parameter->grad;
  }
  CHECK(ctx.allocator().guard_violations() == 0);
  return out;
}

void check_same(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, t] : a) {
    INFO(name);
    CHECK(same_bits(t, b.at(name)));
  }
}

}  // namespace

TEST_CASE("slim: gradients have the same bits for any number of threads, and with activations computed again") {
  const std::vector<int64_t> lengths(60, 37);
  const Array p = constituents(60 * 37, 1, 0);
  for (bool amp : {false, true})
    for (double dropout : {0., 0.2}) {
      Options o;
      o.use_amp = amp;
      if (dropout > 0) o.net["dropout_prob"] = dropout;
      const auto one = step(o, p, lengths, 1, DType::f32);
      check_same(step(o, p, lengths, 3, DType::f32), one);
      o.net["checkpoint_blocks"] = true;
      check_same(step(o, p, lengths, 2, DType::f32), one);
    }
}

TEST_CASE("slim: dropout takes all components of a vector or none, and none in evaluation") {
  Context ctx(1, 5);
  const Array v = normal({200, 4, 5}, 1), s = normal({200, 7}, 2);
  auto dropped = [&](Tape::Mode mode) {
    Tape tape(ctx, mode);
    const LorentzVar y = slim::dropout(
        {tape.constant(to_tensor(ctx, v, DType::f64)), tape.constant(to_tensor(ctx, s, DType::f64))}, 0.25);
    return std::pair{to_array(y.vectors.value()), to_array(y.scalars.value())};
  };
  CHECK(dropped(Tape::Mode::evaluate).first.values == v.values);
  const auto [dv, ds] = dropped(Tape::Mode::train);
  int64_t gone = 0;
  for (int64_t t = 0; t < 200; ++t)
    for (int64_t c = 0; c < 5; ++c) {
      const double factor = component(dv, t, 0, c) == 0 ? 0 : 4. / 3;
      gone += factor == 0;
      for (int64_t k = 0; k < 4; ++k)
        CHECK(component(dv, t, k, c) == doctest::Approx(factor * component(v, t, k, c)).epsilon(1e-14));
    }
  CHECK(std::abs(gone / 1000. - 0.25) < 4 * std::sqrt(0.25 * 0.75 / 1000));
  CHECK(std::count(ds.values.begin(), ds.values.end(), 0.) > 200);
}

TEST_CASE("slim: degenerate jets have finite scores and gradients") {
  // One and two constituents, collinear and equal ones, exactly light-like, one at rest, very soft and very hard ones.
  const std::vector<int64_t> lengths = {1, 2, 3, 2, 1, 2};
  const Array p = {{11, 4}, {50, 30, 40, 0, 5, 3, 4, 0, 10, 6, 8, 0, 10, 0, 0,    10, 20,   0, 0,   20,  30, 0,
                             0,  30, 7,  0, 7, 0, 7, 0, 7,  0, 1, 0, 0,  0, 1e-3, 0,  1e-3, 0, 3e4, 3e4, 0,  0}};
  for (DType dtype : {DType::f64, DType::f32})
    for (bool regularised : {true, false})
      for (bool mean : {true, false}) {
        Options o;
        o.mean_aggregation = mean;
        if (!regularised) o.embedding.mass_reg.reset();
        for (const auto& [name, t] : step(o, p, lengths, 1, dtype)) {
          INFO(name);
          for (double x : to_array(t).values) CHECK(std::isfinite(x));
        }
      }
}

// Amp rounds both factors of every product by 2^-9 of each number at most. Vectors are squared with the metric, which
// loses what energy and momentum have in common: measured against the scalars' share, a handful of roundings.
TEST_CASE("slim: gradients under amp are those of f32, as far as bf16 factors allow") {
  const std::vector<int64_t> lengths(40, 20);
  const Array p = constituents(800, 1, 1);
  Options o;
  const auto exact = step(o, p, lengths, 2, DType::f32);
  o.use_amp = true;
  const auto amp = step(o, p, lengths, 2, DType::f32);
  double difference = 0, norm = 0;
  for (const auto& [name, t] : exact) {
    const Array a = to_array(amp.at(name)), b = to_array(t);
    for (int64_t i = 0; i < b.shape.numel(); ++i) difference += std::pow(a[i] - b[i], 2), norm += std::pow(b[i], 2);
  }
  INFO(std::sqrt(difference / norm));
  CHECK(difference < std::pow(20 * 0x1p-9, 2) * norm);
  CHECK(difference > 0);
}

TEST_CASE("slim: what is refused, and the weights at the start") {
  Context ctx(1);
  auto refused = [&](const char* option, const Json& value, const char* message) {
    Options o;
    o.net[option] = value;
    CHECK_THROWS_WITH_AS(o.tagger(ctx, DType::f32), message, Error);
  };
  refused("num_heads", 0, "LGATrSlim: num_heads is 0, expected a number from 1 to 100000");
  refused("hidden_v_channels", -1, "LGATrSlim: hidden_v_channels is -1, expected a number from 1 to 100000");
  refused("num_layers_mlp", 1, "LGATrSlim: num_layers_mlp is 1, expected a number from 2 to 100000");
  refused("dropout_prob", 1.0, "LGATrSlim: dropout_prob is 1, expected a number in [0, 1)");
  refused("nonlinearity", "exp", "LGATrSlim: nonlinearity has no option 'exp'; all: relu, sigmoid, tanh, gelu, silu");
  refused("out_v_channels", 2,
          "model: model.net.out_v_channels is 2, but the data and the options make it 0; leave it null");
  refused("in_s_channels", 3,
          "model: model.net.in_s_channels is 3, but the data and the options make it 8; leave it null");
  CHECK_THROWS_WITH_AS(
      LGATrSlimTagger(ctx, {{"net", Options().net}, {"framesnet", {{"type", "LearnedPDFrames"}}}}, {}, {}, DType::f32),
      "model: model.framesnet is \"LearnedPDFrames\"; L-GATr-slim is equivariant by itself and takes only identity",
      Error);

  const slim::BlockOptions options = {.channels = {3, 5},
                                      .num_heads = 2,
                                      .mlp_ratio = 2,
                                      .attn_ratio = 4,
                                      .num_layers_mlp = 2,
                                      .nonlinearity = Unary::gelu,
                                      .dropout_prob = {}};
  slim::SelfAttention attention(ctx, options, DType::f64);
  for (const auto& [name, p] : attention.parameters()) {
    const Array a = to_array(p->value);
    double largest = 0;
    for (double x : a.values) largest = std::max(largest, std::abs(x));
    const bool in = name.starts_with("linear_in."), bias = name.ends_with("bias");
    const double fan = name.ends_with("weight_v") ? (in ? 3 : 12) : in ? 5 : 20;
    const double bound = (bias ? 1 : 0.1) / std::sqrt(fan);
    INFO(name, ": ", largest);
    CHECK(largest <= bound);
    CHECK(largest > (bias ? 0.5 : 0.8) * bound);
  }
}
