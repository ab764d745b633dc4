#include "experiments/metrics.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace lightcone {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// Sums value(i) over [begin, end) as a balanced tree: rounding grows with log n, and the order depends on n alone.
template <class Value>
double pairwise_sum(size_t begin, size_t end, const Value& value) {
  if (end - begin <= 128) {
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += value(i);
    return sum;
  }
  const size_t middle = begin + (end - begin) / 2;
  return pairwise_sum(begin, middle, value) + pairwise_sum(middle, end, value);
}

void check(const char* where, std::span<const int> labels, std::span<const double> scores) {
  if (labels.size() != scores.size())
    fail(where, "{} labels but {} scores; there must be one score for each jet", labels.size(), scores.size());
  if (labels.empty()) fail(where, "no jets; the evaluated set is empty");
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] != 0 && labels[i] != 1)
      fail(where, "label of jet {} is {}, expected 0 (background) or 1 (signal)", i, labels[i]);
    if (std::isnan(scores[i])) fail(where, "score of jet {} is NaN; the network diverged or its input holds a NaN", i);
  }
}

}  // namespace

Roc roc(std::span<const int> labels, std::span<const double> scores) {
  check("roc", labels, scores);
  std::vector<std::pair<double, int>> jets(labels.size());
  for (size_t i = 0; i < jets.size(); ++i) jets[i] = {scores[i], labels[i]};
  std::sort(jets.begin(), jets.end(), [](auto& a, auto& b) { return a.first > b.first; });

  Roc curve;
  int64_t signal = 0, background = 0;
  for (size_t i = 0; i < jets.size(); ++i) {
    (jets[i].second ? signal : background) += 1;
    if (i + 1 < jets.size() && jets[i + 1].first == jets[i].first) continue;
    curve.threshold.push_back(jets[i].first);
    curve.signal.push_back(signal);
    curve.background.push_back(background);
  }
  if (signal == 0 || background == 0)
    fail("roc", "all {} jets are {}; efficiencies need both classes in the evaluated set", jets.size(),
         signal ? "signal" : "background");
  return curve;
}

double auc(const Roc& roc) {
  // Twice the number of pairs in the right order: a background jet at point k is beaten by the signal above it and
  // shares with the signal beside it.
  __extension__ using uint128_t = unsigned __int128;
  uint128_t twice = 0;
  int64_t signal = 0, background = 0;
  for (size_t k = 0; k < roc.threshold.size(); ++k) {
    twice += static_cast<uint128_t>(roc.background[k] - background) * static_cast<uint128_t>(signal + roc.signal[k]);
    signal = roc.signal[k];
    background = roc.background[k];
  }
  return double(twice) / (2.0 * double(signal) * double(background));
}

double auc_uncertainty(const Roc& roc) {
  const double area = auc(roc);
  const auto step = [](const std::vector<int64_t>& passing, size_t k) {
    return double(passing[k] - (k ? passing[k - 1] : 0));
  };
  const double signals = double(roc.signals()), backgrounds = double(roc.backgrounds());
  if (signals < 2 || backgrounds < 2) return std::numeric_limits<double>::quiet_NaN();
  const double signal_squares = pairwise_sum(0, roc.threshold.size(), [&](size_t k) {
    const double ranked = 1 - (double(roc.background[k]) - 0.5 * step(roc.background, k)) / backgrounds;
    return step(roc.signal, k) * (ranked - area) * (ranked - area);
  });
  const double background_squares = pairwise_sum(0, roc.threshold.size(), [&](size_t k) {
    const double ranked = (double(roc.signal[k]) - 0.5 * step(roc.signal, k)) / signals;
    return step(roc.background, k) * (ranked - area) * (ranked - area);
  });
  return std::sqrt(signal_squares / (signals - 1) / signals + background_squares / (backgrounds - 1) / backgrounds);
}

Rejection rejection(const Roc& roc, double signal_efficiency) {
  if (!(signal_efficiency > 0 && signal_efficiency <= 1))
    fail("rejection", "signal efficiency is {}, expected a number above 0 and up to 1", signal_efficiency);
  size_t low = 0, high = roc.threshold.size() - 1;  // the loosest cut keeps everything
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (roc.signal_efficiency(middle) >= signal_efficiency)
      high = middle;
    else
      low = middle + 1;
  }
  Rejection result{.signal_efficiency = signal_efficiency,
                   .value = infinity,
                   .uncertainty = infinity,
                   .threshold = roc.threshold[low],
                   .background_passing = roc.background[low],
                   .backgrounds = roc.backgrounds()};
  if (result.background_passing > 0) {
    result.value = double(result.backgrounds) / double(result.background_passing);
    result.uncertainty = result.value / std::sqrt(double(result.background_passing));
  }
  return result;
}

std::string text(const Rejection& rejection) {
  if (std::isinf(rejection.value)) return fmt::format("> {}", rejection.backgrounds);
  // Two digits of the uncertainty, as a measurement is quoted.
  const double unit = std::pow(10.0, std::max(-1.0, std::floor(std::log10(rejection.uncertainty)) - 1));
  const auto rounded = [&](double x) {
    return unit < 1 ? fmt::format("{:.1f}", x) : fmt::format("{:.0f}", std::round(x / unit) * unit);
  };
  return rounded(rejection.value) + " ± " + rounded(rejection.uncertainty);
}

double accuracy(std::span<const int> labels, std::span<const double> scores, double cut) {
  check("accuracy", labels, scores);
  int64_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) right += (scores[i] > cut) == (labels[i] == 1);
  return double(right) / double(labels.size());
}

double binary_cross_entropy(std::span<const int> labels, std::span<const double> logits) {
  check("binary_cross_entropy", labels, logits);
  const double sum = pairwise_sum(0, labels.size(), [&](size_t i) {
    const double wrong = labels[i] ? -logits[i] : logits[i];
    return std::max(wrong, 0.0) + std::log1p(std::exp(-std::abs(wrong)));
  });
  return sum / double(labels.size());
}

double multiclass_accuracy(std::span<const int> labels, std::span<const double> logits, int classes) {
  const char* where = "multiclass_accuracy";
  if (classes < 1) fail(where, "{} classes, expected at least 1", classes);
  if (labels.empty()) fail(where, "no jets; the evaluated set is empty");
  if (logits.size() != labels.size() * size_t(classes))
    fail(where, "{} logits for {} jets, expected {} (one for each of {} classes)", logits.size(), labels.size(),
         labels.size() * size_t(classes), classes);
  int64_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes)
      fail(where, "label of jet {} is {}, expected 0 to {}", i, labels[i], classes - 1);
    const auto row = logits.subspan(i * size_t(classes), size_t(classes));
    if (std::any_of(row.begin(), row.end(), [](double x) { return std::isnan(x); }))
      fail(where, "a logit of jet {} is NaN; the network diverged or its input holds a NaN", i);
    right += std::max_element(row.begin(), row.end()) - row.begin() == labels[i];
  }
  return double(right) / double(labels.size());
}

BinaryMetrics binary_metrics(std::span<const int> labels, std::span<const double> logits) {
  BinaryMetrics m;
  m.roc = roc(labels, logits);
  m.jets = static_cast<int64_t>(labels.size());
  m.loss = binary_cross_entropy(labels, logits);
  m.accuracy = accuracy(labels, logits, 0.0);
  m.auc = auc(m.roc);
  m.auc_uncertainty = auc_uncertainty(m.roc);
  for (double efficiency : {0.3, 0.5, 0.8}) m.rejections.push_back(rejection(m.roc, efficiency));
  return m;
}

Json to_json(const BinaryMetrics& m) {
  const auto number = [](double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); };
  Json json = {{"jets", m.jets},
               {"loss", number(m.loss)},
               {"accuracy", m.accuracy},
               {"auc", m.auc},
               {"auc_uncertainty", number(m.auc_uncertainty)}};
  for (const Rejection& r : m.rejections) {
    const std::string key = fmt::format("rejection_{:g}", r.signal_efficiency);
    json[key] = number(r.value);
    json[key + "_uncertainty"] = number(r.uncertainty);
    if (r.background_passing == 0)
      json[key + "_note"] = fmt::format("no background jet passes: above {}", r.backgrounds);
  }
  return json;
}

}  // namespace lightcone
