// The Transformer under automatic mixed precision.
#include "models/transformer.h"

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/loss.h"
#include "tests/support/amp.h"
#include "tests/support/naive_attention.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

TransformerConfig small() {
  TransformerConfig c;
  c.in_channels = 7, c.out_channels = 1;
  c.num_blocks = 2, c.num_heads = 2;  // of 16 channels
  return c;
}

struct Step {
  Tensor logits, loss;
  std::vector<std::pair<std::string, Tensor>> gradients;
};

/// The gradient of one training step. Weights, tokens and dropout are the same for all; 3000 tokens are shared by
/// threads in every kernel.
Step step(const TransformerConfig& config, bool amp, int threads) {
  std::vector<int64_t> lengths;
  for (int64_t jet = 0; jet < 100; ++jet) lengths.push_back(jet % 61);
  const Offsets jets = offsets(lengths);
  const auto T = static_cast<int64_t>(jets.back());
  Context ctx(threads, 7);
  ctx.allocator().set_guard(true);
  Step out;
  {
    Transformer net(ctx, config, DType::f32);
    Tape tape(ctx);
    tape.set_amp(amp);
    const Var x = tape.constant(to_tensor(ctx, normal({T, 7}, 1), DType::f32));
    const Var logits = net(x, to_ptr(ctx, jets));
    const Var loss = bce_with_logits(logits, to_tensor(ctx, uniform({T, 1}, 2, 0, 1), DType::f32));
    tape.backward(loss);
    out.logits = logits.value(), out.loss = loss.value();
    for (const auto& [name, p] : net.parameters()) out.gradients.emplace_back(name, p->grad);
  }
  CHECK(ctx.allocator().guard_violations() == 0);
  return out;
}

void check_same(const Step& a, const Step& b) {
  CHECK(same_bits(a.logits, b.logits));
  CHECK(same_bits(a.loss, b.loss));
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (size_t i = 0; i < a.gradients.size(); ++i) {
    INFO(a.gradients[i].first);
    CHECK(same_bits(a.gradients[i].second, b.gradients[i].second));
  }
}

/// |a - b| / |b|, Euclidean norms.
double distance(const Tensor& a, const Tensor& b) {
  const Array x = to_array(a), y = to_array(b);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < y.values.size(); ++i)
    difference += std::pow(x.values[i] - y.values[i], 2), norm += std::pow(y.values[i], 2);
  return std::sqrt(difference / norm);
}

}  // namespace

// Amp rounds the two factors of every product, by 2^-9 of each number at most. On the way to a gradient lie, forward, 6
// products of each block and those of linear_in and linear_out, and about as many backward: 4 (6 · 2 + 2) = 56
// roundings of independent signs, which move it by √56 2^-9 of its length.
TEST_CASE("transformer: gradients under amp are those of f32, as far as bf16 factors allow") {
  constexpr double limit = 7.5 * 0x1p-9;
  for (const char* variant : {"plain", "multi-query", "dropout"}) {
    TransformerConfig c = small();
    c.multi_query = std::string(variant) == "multi-query";
    if (std::string(variant) == "dropout") c.dropout_prob = 0.1;
    const Step exact = step(c, false, 2), amp = step(c, true, 2);
    INFO(variant);
    CHECK(distance(amp.logits, exact.logits) < limit);
    CHECK(distance(amp.logits, exact.logits) > 0x1p-12);  // it did round
    REQUIRE(amp.gradients.size() == exact.gradients.size());
    for (size_t i = 0; i < amp.gradients.size(); ++i) {
      const auto& [name, gradient] = amp.gradients[i];
      REQUIRE(gradient.defined());
      CHECK(gradient.dtype() == DType::f32);
      // Of the keys' bias, which adds the same to all scores of a query, the exact gradient is 0.
      if (name.ends_with("k_linear.bias")) continue;
      INFO(name, ": ", distance(gradient, exact.gradients[i].second));
      CHECK(distance(gradient, exact.gradients[i].second) < limit);
    }
  }
}

TEST_CASE("transformer: under amp the same bits for any number of threads, and with activations computed again") {
  for (bool multi_query : {false, true})
    for (double dropout : {0., 0.1}) {
      TransformerConfig c = small();
      c.multi_query = multi_query;
      if (dropout > 0) c.dropout_prob = dropout;
      const Step one = step(c, true, 1);
      check_same(step(c, true, 2), one);
      check_same(step(c, true, 3), one);
      c.checkpoint_blocks = true;
      check_same(step(c, true, 2), one);
    }
}

// Per token and block f32 keeps 4 (32 normed + 96 q, k, v + 32 attended + 32 normed + 128 hidden) bytes, amp 2 for each
// and the hidden values not at all.
TEST_CASE("transformer: under amp a training keeps less than half of the activations") {
  auto kept = [](bool amp) {
    Context ctx(1, 7);
    Transformer net(ctx, small(), DType::f32);
    Tape tape(ctx);
    tape.set_amp(amp);
    const Var x = tape.constant(to_tensor(ctx, normal({3000, 7}, 1), DType::f32));
    const int64_t before = ctx.allocator().statistics().in_use;
    const Var y = net(x, to_ptr(ctx, {0, 3000}));
    return ctx.allocator().statistics().in_use - before;
  };
  CHECK(kept(true) < kept(false) / 2);
}
