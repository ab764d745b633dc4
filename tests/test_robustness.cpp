// Random jets of every kind through forward and backward: scores and gradients stay finite.
// LIGHTCONE_RANDOM_JETS=100000 sends more of them than the fixed thousand for each network (a quarter with
// large weights).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "autograd/loss.h"
#include "tests/support/taggers.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

using Momentum = std::array<double, 4>;

/// Uniform numbers, one after the other.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : rng_(seed) {}
  double operator()(double from, double to) { return from + (to - from) * rng_.draw("jets", 1).uniform53(0); }
  bool chance(double probability) { return (*this)(0, 1) < probability; }
  double log_uniform(double from, double to) { return std::exp((*this)(std::log(from), std::log(to))); }
  std::array<double, 3> direction() {
    const double z = (*this)(-1, 1), phi = (*this)(0, 2 * M_PI), r = std::sqrt(1 - z * z);
    return {r * std::cos(phi), r * std::sin(phi), z};
  }

 private:
  Rng rng_;
};

/// 1 to 150 constituents of 1 MeV to 10 TeV: massless, massive, slightly space-like as rounding makes them, at rest,
/// along the beams, equal to one before, collinear with it; some jets boosted by up to gamma = 1e4.
void add_jet(Numbers& numbers, std::vector<double>& p, std::vector<int64_t>& lengths) {
  const auto n = static_cast<int64_t>(numbers.log_uniform(1, 151));
  const auto axis = numbers.direction();
  const double scale = numbers.log_uniform(1e-3, 1e4), width = numbers.log_uniform(1e-3, 10);
  std::vector<Momentum> jet;
  for (int64_t i = 0; i < n; ++i) {
    if (i > 0 && numbers.chance(0.1)) {
      Momentum again = jet[static_cast<size_t>(numbers(0, static_cast<double>(i)))];
      const double factor = numbers.chance(0.5) ? 1 : numbers.log_uniform(1e-3, 1e3);
      for (double& component : again) component *= factor;
      jet.push_back(again);
      continue;
    }
    auto d = numbers.direction();
    double length = 0;
    for (int k = 0; k < 3; ++k) d[k] = axis[k] + width * d[k], length += d[k] * d[k];
    length = std::sqrt(length);
    if (numbers.chance(0.03)) d = {0, 0, numbers.chance(0.5) ? 1. : -1.}, length = 1;
    const double size = scale * numbers.log_uniform(1e-3, 1);
    const double mass = numbers.chance(0.5) ? 0 : numbers.log_uniform(1e-3, 1e2);
    Momentum q = {0, size * d[0] / length, size * d[1] / length, size * d[2] / length};
    if (mass > 0 && numbers.chance(0.05)) q = {};
    q[0] = std::sqrt(mass * mass + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    if (numbers.chance(0.3))
      for (double& component : q) component = static_cast<float>(component);
    jet.push_back(q);
  }
  Array rows{{n, 4}, {}};
  for (const Momentum& q : jet) rows.values.insert(rows.values.end(), q.begin(), q.end());
  if (numbers.chance(0.3))
    rows = transformed(boost(std::acosh(numbers.log_uniform(1, 1e4)), numbers.direction()), rows);
  p.insert(p.end(), rows.values.begin(), rows.values.end());
  lengths.push_back(n);
}

JetSet random_jets(Context& ctx, Numbers& numbers, int64_t count) {
  std::vector<double> p;
  std::vector<int64_t> lengths;
  for (int64_t j = 0; j < count; ++j) add_jet(numbers, p, lengths);
  return jet_set(ctx, {{static_cast<int64_t>(p.size()) / 4, 4}, p}, lengths);
}

/// The number of batches with a score or gradient that is not finite.
int64_t failures(TaggerCase network, int64_t count) {
  constexpr int64_t batch = 50;
  Numbers numbers(11);
  Context ctx(1, 1);
  auto tagger = network.make(ctx);
  tagger->standardise(ctx, random_jets(ctx, numbers, batch));
  int64_t failed = 0;
  for (int64_t done = 0; done < count; done += batch) {
    const JetSet jets = random_jets(ctx, numbers, batch);
    Tape tape(ctx);
    const Var y = (*tagger)(tape, jets);
    tape.backward(bce_with_logits(y, to_tensor(ctx, uniform(y.shape(), done, 0, 1), network.dtype)));
    std::string bad = all_finite(y.value()) ? "" : "a score";
    for (const auto& [name, parameter] : tagger->parameters()) {
      if (bad.empty() && parameter->grad.defined() && !all_finite(parameter->grad)) bad = "the gradient of " + name;
      parameter->grad = {};
    }
    if (!bad.empty() && failed++ == 0) MESSAGE("batch ", done / batch, ": ", bad, " is not finite");
  }
  return failed;
}

}  // namespace

TEST_CASE("robustness: random jets have finite scores and gradients") {
  const char* wanted = std::getenv("LIGHTCONE_RANDOM_JETS");
  const int64_t count = wanted ? std::atol(wanted) : 1000;
  std::vector<TaggerCase> networks = {
      configured({"model=tag_slim_1k"}),
      configured({"model=tag_lgatr", "model.net.num_blocks=1", "model.net.hidden_mv_channels=4",
                  "model.net.hidden_s_channels=8", "model.net.attention.num_heads=2"})};
  for (const char* frames : {"learnedpd", "learnedso13", "learnedrest"})
    for (const char* boost_jet : {"true", "false"})
      networks.push_back(
          configured({"model=tag_transformer_1k", std::string("model/framesnet=") + frames,
                      "model/framesnet/equivectors=equimlp_1k", std::string("data.boost_jet=") + boost_jet}));
  for (TaggerCase& network : networks) {
    INFO(network.model.dump(), " boost_jet ", network.embedding.boost_jet);
    CHECK(failures(network, count) == 0);
    network.frames_weights = 3, network.net_weights = 3;  // as they may be after training
    CHECK(failures(network, std::max<int64_t>(1000, count / 4)) == 0);
  }
}
