#include "experiments/metrics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "engine/error.h"

using namespace lightcone;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

struct Jets {
  std::vector<int> labels;
  std::vector<double> scores;
};

// Overlapping Gaussians; a positive grid rounds the scores, so that many are equal.
Jets random_jets(int signals, int backgrounds, double grid, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> gauss;
  Jets jets;
  for (int i = 0; i < signals + backgrounds; ++i) {
    const int label = i < signals;
    const double score = gauss(random) + 1.5 * label;
    jets.labels.push_back(label);
    jets.scores.push_back(grid > 0 ? std::round(score / grid) * grid : score);
  }
  for (size_t i = jets.labels.size(); i > 1; --i) {
    const size_t j = random() % i;
    std::swap(jets.labels[i - 1], jets.labels[j]);
    std::swap(jets.scores[i - 1], jets.scores[j]);
  }
  return jets;
}

// All pairs, as the definition has it: the AUC, and DeLong's variance from each jet's mean over the other class.
std::pair<double, double> pairwise_auc(const Jets& jets) {
  std::vector<double> ranked(jets.labels.size());
  double size[2] = {}, mean = 0, squares[2] = {};
  for (int label : jets.labels) size[label] += 1;
  for (size_t i = 0; i < ranked.size(); ++i) {
    for (size_t j = 0; j < ranked.size(); ++j) {
      if (jets.labels[i] == jets.labels[j]) continue;
      const double margin = (jets.scores[i] - jets.scores[j]) * (jets.labels[i] ? 1 : -1);
      ranked[i] += (margin > 0 ? 1 : margin == 0 ? 0.5 : 0) / size[!jets.labels[i]];
    }
    if (jets.labels[i]) mean += ranked[i] / size[1];
  }
  for (size_t i = 0; i < ranked.size(); ++i) squares[jets.labels[i]] += std::pow(ranked[i] - mean, 2);
  return {mean, std::sqrt(squares[0] / (size[0] - 1) / size[0] + squares[1] / (size[1] - 1) / size[1])};
}

}  // namespace

TEST_CASE("metrics: ten jets with ties give numpy's numbers") {
  const std::vector<int> labels{1, 0, 1, 0, 1, 1, 0, 0, 1, 0};
  const std::vector<double> logits{2.5, -1.25, 0.5, 0.5, -0.75, 3, -3, 1.5, 0.0, 0.0};
  const BinaryMetrics m = binary_metrics(labels, logits);
  CHECK(m.jets == 10);
  CHECK(m.auc == 0.72);
  CHECK(m.auc_uncertainty == doctest::Approx(0.17549928774784243).epsilon(1e-14));
  CHECK(m.loss == doctest::Approx(0.6100726132363163).epsilon(1e-14));
  CHECK(m.accuracy ==
        0.6);  // of the two logits that are exactly 0, the background jet is right and the signal jet wrong

  CHECK(m.roc.threshold == std::vector<double>{3, 2.5, 1.5, 0.5, 0, -0.75, -1.25, -3});
  CHECK(m.roc.signal == std::vector<int64_t>{1, 2, 2, 3, 4, 5, 5, 5});
  CHECK(m.roc.background == std::vector<int64_t>{0, 0, 1, 2, 3, 3, 4, 5});
  CHECK(m.roc.signal_efficiency(3) == 0.6);
  CHECK(m.roc.background_efficiency(3) == 0.4);

  CHECK(m.rejections[0].threshold == 2.5);  // 0.3 of 5 jets is 1.5, so the cut must keep 2
  CHECK(m.rejections[0].value == infinity);
  CHECK(m.rejections[1].value == 2.5);  // 3 signal jets, and the 2 background jets at or above 0.5
  CHECK(m.rejections[1].uncertainty == doctest::Approx(2.5 / std::sqrt(2.0)));
  CHECK(m.rejections[2].background_passing == 3);  // 4 of 5 is exactly 0.8
  CHECK(text(m.rejections[0]) == "> 5");
  CHECK(text(m.rejections[1]) == "2.5 ± 1.8");
}

TEST_CASE("metrics: AUC and its uncertainty agree with the sum over all pairs") {
  for (double grid : {0.0, 0.01, 0.3, 2.0, 100.0})
    for (auto [signals, backgrounds] : {std::pair{2, 2}, {2, 300}, {300, 2}, {211, 307}}) {
      CAPTURE(grid);
      CAPTURE(signals);
      const Jets jets = random_jets(signals, backgrounds, grid, 7 + unsigned(signals));
      const Roc curve = roc(jets.labels, jets.scores);
      const auto [area, uncertainty] = pairwise_auc(jets);
      CHECK(std::abs(auc(curve) - area) < 1e-12);
      CHECK(std::abs(auc_uncertainty(curve) - uncertainty) < 1e-12);
    }
}

TEST_CASE("metrics: the uncertainty is the spread of the AUC over independent test sets") {
  double sum = 0, squares = 0, quoted = 0;
  const int sets = 400;
  for (int i = 0; i < sets; ++i) {
    const Jets jets = random_jets(150, 250, 0, unsigned(1000 + i));
    const Roc curve = roc(jets.labels, jets.scores);
    sum += auc(curve);
    squares += auc(curve) * auc(curve);
    quoted += auc_uncertainty(curve) / sets;
  }
  const double spread = std::sqrt(squares / sets - sum / sets * sum / sets);
  CHECK(std::abs(quoted / spread - 1) < 0.15);  // the spread itself is known to 1/sqrt(2*400) = 3.5%, taken four times
}

TEST_CASE("metrics: the rejection is that of the tightest cut which keeps enough signal") {
  for (double grid : {0.0, 0.2}) {
    const Jets jets = random_jets(400, 900, grid, 3);
    const Roc curve = roc(jets.labels, jets.scores);
    for (double efficiency : {0.001, 0.1, 0.3, 0.5, 0.8, 0.999, 1.0}) {
      double best = -infinity;  // every score is a candidate cut
      for (double cut : jets.scores) {
        double kept = 0;
        for (size_t i = 0; i < jets.scores.size(); ++i) kept += jets.labels[i] && jets.scores[i] >= cut;
        if (kept / 400 >= efficiency) best = std::max(best, cut);
      }
      int64_t passing = 0;
      for (size_t i = 0; i < jets.scores.size(); ++i) passing += !jets.labels[i] && jets.scores[i] >= best;
      const Rejection r = rejection(curve, efficiency);
      CHECK(r.threshold == best);
      CHECK(r.background_passing == passing);
      CHECK(r.value == (passing ? 900.0 / double(passing) : infinity));
    }
  }
}

TEST_CASE("metrics: order of jets and monotone maps of the score change nothing") {
  Jets jets = random_jets(300, 500, 0.05, 11);
  const Roc before = roc(jets.labels, jets.scores);
  std::reverse(jets.labels.begin(), jets.labels.end());
  std::reverse(jets.scores.begin(), jets.scores.end());
  for (double& score : jets.scores) score = 1 / (1 + std::exp(-score));
  const Roc after = roc(jets.labels, jets.scores);
  CHECK(after.signal == before.signal);
  CHECK(after.background == before.background);
  CHECK(auc(after) == auc(before));
}

TEST_CASE("metrics: perfect, inverted and constant scores") {
  const std::vector<int> labels{0, 0, 0, 1, 1, 1};
  const BinaryMetrics good = binary_metrics(labels, std::vector<double>{-3, -2, -1, 1, 2, infinity});
  CHECK(good.auc == 1);
  CHECK(good.auc_uncertainty == 0);
  CHECK(good.accuracy == 1);
  CHECK(text(good.rejections[2]) == "> 3");
  const BinaryMetrics bad = binary_metrics(labels, std::vector<double>{3, 2, 1, -1, -2, -3});
  CHECK(bad.auc == 0);
  CHECK(bad.accuracy == 0);
  CHECK(bad.rejections[0].value == 1);
  const BinaryMetrics flat = binary_metrics(labels, std::vector<double>(6, 0.25));
  CHECK(flat.auc == 0.5);
  CHECK(flat.rejections[0].value == 1);
  CHECK(flat.roc.threshold.size() == 1);
}

TEST_CASE("metrics: pair counts past 2^64 stay exact") {
  Roc curve;
  const int64_t n = int64_t(6) << 31;  // twice n^2 is above 2^64
  curve.threshold = {1, 0};
  curve.signal = {n / 2, n};
  curve.background = {n / 2, n};
  CHECK(auc(curve) == 0.5);
}

TEST_CASE("metrics: cross entropy is stable for large logits and small losses") {
  const auto loss = [](int label, double logit) {
    return binary_cross_entropy(std::vector<int>{label}, std::vector<double>{logit});
  };
  CHECK(loss(0, 0) == doctest::Approx(std::log(2.0)).epsilon(1e-15));
  CHECK(loss(1, -1000) == 1000);
  CHECK(loss(0, 1000) == 1000);
  CHECK(loss(1, 40) == doctest::Approx(std::exp(-40.0)).epsilon(1e-15));
  CHECK(loss(1, infinity) == 0);
  CHECK(loss(0, infinity) == infinity);

  // A running sum of a million terms drifts past 1e-12. A balanced one rounds at most 127 times in a leaf and once in
  // each of 13 levels above it, each time by 2^-53.
  const size_t n = 1000000;
  const double exact = std::log1p(std::exp(-0.1));
  CHECK(std::abs(binary_cross_entropy(std::vector<int>(n, 1), std::vector<double>(n, 0.1)) / exact - 1) <
        140 * 0x1p-53);
}

TEST_CASE("metrics: what is exactly on the cut is background") {
  CHECK(accuracy(std::vector<int>{0, 0, 1}, std::vector<double>{0.5, 0.5, 0.50001}) == 1);
  CHECK(accuracy(std::vector<int>{1, 1, 1}, std::vector<double>{0.0, -0.0, 1e-9}, 0.0) == doctest::Approx(1 / 3.0));
}

TEST_CASE("metrics: multi-class accuracy") {
  const std::vector<double> logits{1, 3, 2, /**/ 5, 5, 1, /**/ -1, -2, 0};
  CHECK(multiclass_accuracy(std::vector<int>{1, 0, 2}, logits, 3) == 1);
  CHECK(multiclass_accuracy(std::vector<int>{1, 1, 0}, logits, 3) ==
        doctest::Approx(1 / 3.0));  // a tie is the lower class
  CHECK_THROWS_WITH_AS(multiclass_accuracy(std::vector<int>{1, 3, 2}, logits, 3),
                       "multiclass_accuracy: label of jet 1 is 3, expected 0 to 2", Error);
  CHECK_THROWS_WITH_AS(multiclass_accuracy(std::vector<int>{1, 0}, logits, 3), doctest::Contains("expected 6"), Error);
  CHECK_THROWS_AS(multiclass_accuracy(std::vector<int>{}, std::vector<double>{}, 3), Error);
  CHECK_THROWS_AS(multiclass_accuracy(std::vector<int>{0}, std::vector<double>{}, 0), Error);
  CHECK_THROWS_WITH_AS(multiclass_accuracy(std::vector<int>{0}, std::vector<double>{1, not_a_number}, 2),
                       doctest::Contains("NaN"), Error);
}

TEST_CASE("metrics: results.json holds null and a reason where there is no number") {
  const std::vector<int> labels{0, 0, 1};
  const Json json = to_json(binary_metrics(labels, std::vector<double>{0, 1, 2}));
  CHECK(json["jets"] == 3);
  CHECK(json["auc"] == 1.0);
  CHECK(json["auc_uncertainty"].is_null());  // one signal jet has no spread
  CHECK(json["rejection_0.3"].is_null());
  CHECK(json["rejection_0.3_note"] == "no background jet passes: above 2");
  CHECK(Json::parse(json.dump()) == json);
  const Json other = to_json(binary_metrics(labels, std::vector<double>{2, 1, 2}));
  CHECK(other["rejection_0.8"] == 2.0);
  CHECK(!other.contains("rejection_0.8_note"));
}

TEST_CASE("metrics: bad input is named") {
  const std::vector<int> labels{0, 1};
  const std::vector<double> scores{0.1, 0.2};
  CHECK_THROWS_WITH_AS(roc(labels, std::vector<double>{1}), doctest::Contains("2 labels but 1 scores"), Error);
  CHECK_THROWS_WITH_AS(binary_metrics({}, {}), doctest::Contains("no jets"), Error);
  CHECK_THROWS_WITH_AS(roc(std::vector<int>{1, 1}, scores), doctest::Contains("all 2 jets are signal"), Error);
  CHECK_THROWS_WITH_AS(roc(std::vector<int>{0, 0}, scores), doctest::Contains("all 2 jets are background"), Error);
  CHECK_THROWS_WITH_AS(roc(std::vector<int>{0, 2}, scores), doctest::Contains("label of jet 1 is 2"), Error);
  CHECK_THROWS_WITH_AS(accuracy(labels, std::vector<double>{0, not_a_number}),
                       doctest::Contains("score of jet 1 is NaN"), Error);
  CHECK_THROWS_WITH_AS(binary_cross_entropy(labels, std::vector<double>{not_a_number, 0}),
                       doctest::Contains("jet 0 is NaN"), Error);
  for (double efficiency : {0.0, -1.0, 1.1, not_a_number})
    CHECK_THROWS_AS(rejection(roc(labels, scores), efficiency), Error);
}
