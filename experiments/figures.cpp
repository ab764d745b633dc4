#include "experiments/figures.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace lightcone {
namespace {

std::vector<double> iterations(size_t n) {
  std::vector<double> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = double(i + 1);
  return x;
}

// A log axis, unless some value (a likelihood, a rate that reached zero) has no place on one.
bool positive(std::span<const double> y) {
  return std::none_of(y.begin(), y.end(), [](double v) { return v <= 0; });
}

std::vector<double> copy(std::span<const double> y) { return {y.begin(), y.end()}; }

void add_noisy(Figure& figure, std::span<const double> y, const std::string& label) {
  const size_t window = y.size() / 100;
  if (window < 2) {
    figure.series.push_back({.label = label, .x = iterations(y.size()), .y = copy(y)});
    return;
  }
  figure.series.push_back({.label = "", .x = iterations(y.size()), .y = copy(y), .style = Style::Faint});
  figure.series.push_back({.label = fmt::format("{} (mean of {} iterations)", label, window),
                           .x = iterations(y.size()),
                           .y = smooth(y, window)});
}

}  // namespace

Figure roc_figure(const EvaluatedSets& sets) {
  Figure figure{.title = "Background rejection",
                .x = {.label = "signal efficiency ε_{S}", .low = 0, .high = 1},
                .y = {.label = "background rejection 1/ε_{B}", .log = true, .low = 1},
                .series = {}};
  Series random{.label = "random", .x = {}, .y = {}, .style = Style::Dashed};
  for (int i = 1; i <= 200; ++i) random.x.push_back(i / 200.0), random.y.push_back(200.0 / i);

  std::vector<Series> curves;
  for (size_t k = 0; k < sets.size(); ++k) {
    const auto& [name, metrics] = sets[k];
    const Roc& roc = metrics.roc;
    Series curve{.label = name, .x = {}, .y = {}, .color = int(k)};
    Series band{.label = "", .x = {}, .y = {}, .style = Style::Band, .color = int(k)};
    for (size_t i = 0; i < roc.threshold.size(); ++i) {
      if (roc.background[i] == 0) continue;
      const double passing = double(roc.background[i]), value = 1 / roc.background_efficiency(i);
      curve.x.push_back(roc.signal_efficiency(i));
      curve.y.push_back(value);
      if (passing < 4) continue;  // the error of so few is no longer symmetric
      band.x.push_back(curve.x.back());
      band.y.push_back(value * (1 - 1 / std::sqrt(passing)));
      band.y_high.push_back(value * (1 + 1 / std::sqrt(passing)));
    }
    figure.series.push_back(std::move(band));
    curves.push_back(std::move(curve));
  }
  figure.series.insert(figure.series.end(), curves.begin(), curves.end());
  figure.series.push_back(std::move(random));
  if (!sets.empty()) {
    Series points{.label = "", .x = {}, .y = {}, .style = Style::Points};
    for (const Rejection& r : sets.front().second.rejections) {
      if (std::isinf(r.value)) continue;
      points.x.push_back(r.signal_efficiency);
      points.y.push_back(r.value);
      points.text.push_back(text(r));
    }
    figure.series.push_back(std::move(points));
  }
  return figure;
}

Figure score_figure(std::span<const int> labels, std::span<const double> logits, const std::string& signal,
                    const std::string& background) {
  if (labels.size() != logits.size()) fail("score_figure", "{} labels but {} logits", labels.size(), logits.size());
  std::vector<double> scores[2];
  for (size_t i = 0; i < labels.size(); ++i) scores[labels[i] == 1].push_back(1 / (1 + std::exp(-logits[i])));
  Figure figure{.title = "Classifier score",
                .x = {.label = "score", .low = 0, .high = 1},
                .y = {.label = "jets (normalised)", .log = true},
                .series = {histogram(background, scores[0], 0, 1, 50), histogram(signal, scores[1], 0, 1, 50)}};
  figure.series[1].color = 1;
  return figure;
}

Figure loss_figure(std::span<const double> training, std::span<const double> validation_iteration,
                   std::span<const double> validation) {
  Figure figure{.title = "Loss", .x = {.label = "iteration", .low = 0}, .y = {.label = "loss"}, .series = {}};
  figure.y.log = positive(training) && positive(validation);
  add_noisy(figure, training, "training");
  figure.series.push_back({.label = "validation",
                           .x = copy(validation_iteration),
                           .y = copy(validation),
                           .style = validation.size() <= 25 ? Style::Marked : Style::Line,
                           .color = 1});
  return figure;
}

Figure learning_rate_figure(std::span<const double> learning_rate) {
  Figure figure{.title = "Learning rate",
                .x = {.label = "iteration", .low = 0},
                .y = {.label = "learning rate", .low = 0},
                .series = {}};
  figure.series.push_back({.label = "", .x = iterations(learning_rate.size()), .y = copy(learning_rate), .color = 2});
  return figure;
}

Figure gradient_norm_figure(std::span<const double> norm) {
  Figure figure{
      .title = "Gradient norm", .x = {.label = "iteration", .low = 0}, .y = {.label = "gradient norm"}, .series = {}};
  figure.y.log = positive(norm);
  add_noisy(figure, norm, "norm");
  for (Series& s : figure.series) s.color = 3;
  return figure;
}

}  // namespace lightcone
