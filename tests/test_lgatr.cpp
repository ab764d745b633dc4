#include "models/lgatr_tagger.h"

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/loss.h"
#include "engine/safetensors.h"
#include "models/registry.h"
#include "tests/support/amp.h"
#include "tests/support/lorentz.h"
#include "tests/support/multivectors.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

LGATrConfig small() {
  LGATrConfig c;
  c.in_mv_channels = 1, c.in_s_channels = 3, c.out_mv_channels = 1;
  c.hidden_mv_channels = 4, c.hidden_s_channels = 8, c.num_blocks = 2;
  c.attention = {.num_heads = 2, .multi_query = false, .increase_hidden_channels = 2, .head_scale = true};
  c.mlp.increase_hidden_channels = 2;
  return c;
}

Tensor to_ptr(Context& ctx, const std::vector<double>& offsets) {
  return ctx.of({static_cast<int64_t>(offsets.size())}, DType::i32, offsets);
}

/// Logits [jets, out] = the mean over each jet's tokens would hide them, so those of all tokens: [T, out].
Tensor logits(const LGATrConfig& config, const Array& p, const Array& s, const std::vector<double>& offsets,
              DType dtype = DType::f64, int threads = 1) {
  Context ctx(threads, 7);
  LGATr net(ctx, config, dtype);
  Tape tape(ctx, Tape::Mode::evaluate);
  Array momenta = p;
  momenta.shape = {p.shape[0], 4, 1};
  const Multivectors x = {embed(tape.constant(to_tensor(ctx, momenta, dtype)), Blades::vector),
                          tape.constant(to_tensor(ctx, s, dtype))};
  return scalar_part(net(x, to_ptr(ctx, offsets)).mv).value();
}

const std::vector<double> jets = {0, 5, 6, 8, 8, 20};

}  // namespace

TEST_CASE("lgatr: scalars of the result do not change under Lorentz transformations of everything") {
  for (bool multi_query : {false, true})
    for (bool duals : {true, false}) {
      LGATrConfig c = small();
      c.attention.multi_query = multi_query;
      c.use_fully_connected_subgroup = duals;
      // Masses of 1 GeV in units of some GeV; the last two tokens of a jet are "spurions" like all others.
      const Array p = momenta(20, 3, 1, 3), s = normal({20, 3}, 4);
      const Array plain = to_array(logits(c, p, s, jets));
      for (double rapidity : {0.1, 1., 2.})
        for (uint64_t seed : {1, 2}) {
          const Lorentz L = random_rotation(seed) * random_boost(seed + 5, rapidity) * random_rotation(seed + 9);
          const Array boosted = to_array(logits(c, transformed(L, p), s, jets));
          INFO(rapidity, " ", relative_error(boosted, plain));
          CHECK(relative_error(boosted, plain) < 1e-9);
        }
      // Parity changes what maps to duals make: invariants of four momenta at once, which are small at initial weights.
      Array mirrored = p;
      for (int64_t i = 0; i < mirrored.shape.numel(); ++i) mirrored[i] *= i % 4 ? -1 : 1;
      const double change = relative_error(to_array(logits(c, mirrored, s, jets)), plain);
      CAPTURE(duals);
      CAPTURE(change);
      CHECK((duals ? change > 1e-7 : change < 1e-9));
    }
}

TEST_CASE("lgatr: vectors of the result turn with the input") {
  LGATrConfig c = small();
  c.out_s_channels = 2;
  auto vectors = [&](const Array& p) {
    Context ctx(1, 7);
    LGATr net(ctx, c, DType::f64);
    Tape tape(ctx, Tape::Mode::evaluate);
    Array momenta = p;
    momenta.shape = {20, 4, 1};
    const Multivectors y = net({embed(tape.constant(to_tensor(ctx, momenta, DType::f64)), Blades::vector),
                                tape.constant(to_tensor(ctx, normal({20, 3}, 4), DType::f64))},
                               to_ptr(ctx, jets));
    CHECK(y.s.shape() == Shape{20, 2});
    return to_array(extract(y.mv, Blades::vector).value().reshape({20, 4}));
  };
  const Array p = momenta(20, 3, 1, 3);
  const Lorentz L = random_rotation(1) * random_boost(2, 1);
  CHECK(relative_error(vectors(transformed(L, p)), transformed(L, vectors(p))) < 1e-9);
}

TEST_CASE("lgatr: a jet's result depends neither on its batch nor on the order of its constituents") {
  const Array p = momenta(20, 3, 1, 3), s = normal({20, 3}, 4);
  for (DType dtype : {DType::f64, DType::f32}) {
    const Tensor all = logits(small(), p, s, jets, dtype);
    for (size_t b = 0; b + 1 < jets.size(); ++b) {
      const auto first = static_cast<int64_t>(jets[b]), n = static_cast<int64_t>(jets[b + 1]) - first;
      if (n == 0) continue;
      auto part = [&](const Array& a) {
        const int64_t cols = a.shape[1];
        return Array{{n, cols}, {a.values.begin() + first * cols, a.values.begin() + (first + n) * cols}};
      };
      const Tensor one = logits(small(), part(p), part(s), {0, double(n)}, dtype);
      CHECK(same_bits(one, all.narrow(first, n)));
    }
  }
  // The last jet backwards.
  Array q = p, r = s;
  for (int64_t t = 8; t < 20; ++t) {
    for (int64_t c = 0; c < 4; ++c) q.at(t, c) = p.at(27 - t, c);
    for (int64_t c = 0; c < 3; ++c) r.at(t, c) = s.at(27 - t, c);
  }
  const Array forward = to_array(logits(small(), p, s, jets)), backward = to_array(logits(small(), q, r, jets));
  for (int64_t t = 8; t < 20; ++t) CHECK(backward[t] == doctest::Approx(forward[27 - t]).epsilon(1e-12));
}

namespace {

struct Step {
  Tensor loss;
  std::vector<std::pair<std::string, Tensor>> gradients;
};
Step step(const LGATrConfig& c, const Array& p, DType dtype, bool amp, int threads) {
  Context ctx(threads, 7);
  ctx.allocator().set_guard(true);
  Step out;
  {
    LGATr net(ctx, c, dtype);
    Tape tape(ctx);
    tape.set_amp(amp);
    Array momenta = p;
    const int64_t T = p.shape[0];
    momenta.shape = {T, 4, 1};
    const Var logits = scalar_part(net({embed(tape.constant(to_tensor(ctx, momenta, dtype)), Blades::vector),
                                        tape.constant(to_tensor(ctx, normal({T, 3}, 4), dtype))},
                                       to_ptr(ctx, {0, 1, 3, T / 2. - T / 2 % 1, double(T)}))
                                       .mv);
    const Var loss = bce_with_logits(logits, to_tensor(ctx, uniform({T, 1}, 2, 0, 1), dtype));
    tape.backward(loss);
    out.loss = loss.value();
    for (const auto& [name, parameter] : net.parameters()) out.gradients.emplace_back(name, parameter->grad);
  }
  CHECK(ctx.allocator().guard_violations() == 0);
  return out;
}
void check_same(const Step& a, const Step& b) {
  CHECK(same_bits(a.loss, b.loss));
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (size_t i = 0; i < a.gradients.size(); ++i) {
    INFO(a.gradients[i].first);
    CHECK(same_bits(a.gradients[i].second, b.gradients[i].second));
  }
}

}  // namespace

TEST_CASE("lgatr: the same bits for any number of threads, and with activations computed again") {
  const Array p = momenta(400, 3, 1, 3);
  for (bool amp : {false, true})
    for (bool dropout : {false, true}) {
      LGATrConfig c = small();
      c.attention.multi_query = dropout;
      if (dropout) c.dropout_prob = 0.1;
      const Step one = step(c, p, DType::f32, amp, 1);
      check_same(step(c, p, DType::f32, amp, 2), one);
      check_same(step(c, p, DType::f32, amp, 3), one);
      c.checkpoint_blocks = true;
      check_same(step(c, p, DType::f32, amp, 2), one);
    }
}

// bf16 factors of products, 2^-9 of each number, in some 60 of them one after the other.
TEST_CASE("lgatr: amp rounds, and no more than that") {
  const Array p = momenta(100, 3, 1, 1);
  const double exact = to_array(step(small(), p, DType::f32, false, 1).loss)[0],
               amp = to_array(step(small(), p, DType::f32, true, 1).loss)[0];
  CHECK(amp != exact);
  CHECK(std::abs(amp - exact) < 60 * 0x1p-9 * exact);
}

TEST_CASE("lgatr: degenerate momenta give finite results and gradients") {
  // Zeros, light-like ones, equal ones, collinear ones, tiny and huge ones; jets of one and two.
  Array p = zeros({10, 4});
  const double rows[10][4] = {{0, 0, 0, 0},  {1, 0, 0, 1}, {1, 0, 0, 1}, {5, 3, 4, 0},         {10, 6, 8, 0},
                              {2, 0, 0, -2}, {0, 0, 0, 1}, {1, 0, 0, 0}, {1e-12, 1e-12, 0, 0}, {1e5, 0, 0, 1e5}};
  for (int t = 0; t < 10; ++t)
    for (int c = 0; c < 4; ++c) p.at(t, c) = rows[t][c];
  for (DType dtype : {DType::f64, DType::f32}) {
    const Step s = step(small(), p, dtype, false, 1);
    CHECK(std::isfinite(to_array(s.loss)[0]));
    for (const auto& [name, gradient] : s.gradients) {
      INFO(name);
      REQUIRE(gradient.defined());
      for (double v : to_array(gradient).values) REQUIRE(std::isfinite(v));
    }
  }
}

TEST_CASE("lgatr: initial weights") {
  Context ctx(1, 3);
  LGATrConfig c = small();
  c.hidden_mv_channels = 16, c.hidden_s_channels = 32, c.num_blocks = 1;
  LGATr net(ctx, c, DType::f64);
  // The largest number of each, which lies just below the bound.
  auto range = [&](const std::string& name, int64_t basis = -1) {
    for (const auto& [n, p] : net.parameters())
      if (n == name) {
        const Array a = to_array(p->value);
        double low = INFINITY, high = -INFINITY;
        for (int64_t i = 0; i < a.shape.numel(); ++i)
          if (basis < 0 || i % 10 == basis) low = std::min(low, a[i]), high = std::max(high, a[i]);
        return std::pair{low, high};
      }
    FAIL("no parameter " << name);
    return std::pair{0., 0.};
  };
  auto within = [&](const std::string& name, double bound, double middle = 0, int64_t basis = -1) {
    INFO(name, " ", basis);
    const auto [low, high] = range(name, basis);
    CHECK(low >= middle - bound);
    CHECK(high <= middle + bound);
    CHECK(high - low > 1.6 * bound);
  };
  const std::string at = "blocks.0.attention.qkv_module.in_linear.", mlp = "blocks.0.mlp.layers.0.";
  for (int64_t b : {1, 5, 8}) within(at + "weight", 0.25, 0, b);
  for (int64_t b : {0, 9}) within(at + "weight", 0.25 / std::sqrt(2), 0, b);
  within(at + "s2mvs.weight", 1 / std::sqrt(32 * 2.));
  within(at + "s2mvs.bias", 1 / std::sqrt(48.));
  within(at + "mvs2s.weight", 1 / std::sqrt(32 * 2.));
  within(at + "mvs2s.bias", 1 / std::sqrt(64.));
  within(at + "s2s.weight", 1 / std::sqrt(32 * 2.));
  within("blocks.0.attention.out_linear.weight", 0.1 / std::sqrt(32.), 0, 2);
  within("blocks.0.attention.out_linear.s2s.weight", 0.1 / std::sqrt(64 * 2.));
  within(mlp + "linear_right.weight", 0.5 / 4, 0, 2);
  within(mlp + "linear_right.s2mvs.bias", 1 / std::sqrt(48.), 1);
  within(mlp + "linear_left.s2mvs.bias", 1 / std::sqrt(48.));
  CHECK(range("blocks.0.attention.head_scale") == std::pair{1., 1.});
}

TEST_CASE("lgatr: refuses what makes no sense, by name") {
  Context ctx;
  auto refused = [&](const char* message, auto&& change) {
    LGATrConfig c = small();
    change(c);
    CHECK_THROWS_WITH_AS(LGATr(ctx, c, DType::f32), message, Error);
  };
  refused("LGATr: hidden_mv_channels is 0, expected a number from 1 to 100000",
          [](auto& c) { c.hidden_mv_channels = 0; });
  refused("LGATr: attention.num_heads is -1, expected a number from 1 to 1000",
          [](auto& c) { c.attention.num_heads = -1; });
  refused("LGATr: out_mv_channels is 0, expected a number from 1 to 100000",
          [](auto& c) { c.out_mv_channels.reset(); });
  refused("LGATr: dropout_prob is 1, expected a number in [0, 1)", [](auto& c) { c.dropout_prob = 1; });
  refused("LGATr: mlp.activation has no option 'tanh'; all: gelu, relu, sigmoid, silu",
          [](auto& c) { c.mlp.activation = "tanh"; });
  Json model = {{"net", {{"type", "LGATr"}, {"in_mv_channels", 2}}}};
  CHECK_THROWS_WITH_AS(make_tagger(ctx, model, {}, {}, DType::f32),
                       "model: model.net.in_mv_channels is 2, but a token has one momentum: expected 1", Error);
  model["net"] = {{"type", "LGATr"}, {"in_s_channels", 3}};
  CHECK_THROWS_WITH_AS(make_tagger(ctx, model, {}, {}, DType::f32),
                       "model: model.net.in_s_channels is 3, but the data and the options make it 8; leave it null",
                       Error);
  model["net"] = {{"type", "LGATr"}};
  model["framesnet"] = {{"type", "LearnedPDFrames"}};
  CHECK_THROWS_AS(make_tagger(ctx, model, {}, {}, DType::f32), Error);
}
