#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/fields.h"

namespace lightcone {

/// Figures of merit of a jet tagger, from labels (1 signal, 0 background) and scores (higher means more signal-like:
/// logits, or probabilities where only the order counts). All sums run in f64 in an order that depends on the number of
/// jets alone. Throws Error if the lengths differ, there is no jet, a label is not 0 or 1, or a score is NaN; roc() and
/// what follows from it also if one of the two classes is missing. Infinite scores are allowed: they have an order.

/// The receiver operating characteristic: one point for each distinct score, from the tightest cut (highest score) to
/// the loosest, which passes all. A jet passes point k if score >= threshold[k]. Jets of equal score pass together.
struct Roc {
  std::vector<double> threshold;            // decreasing
  std::vector<int64_t> signal, background;  // jets that pass; the last entries are the numbers of jets
  int64_t signals() const { return signal.back(); }
  int64_t backgrounds() const { return background.back(); }
  double signal_efficiency(size_t k) const { return double(signal[k]) / double(signals()); }
  double background_efficiency(size_t k) const { return double(background[k]) / double(backgrounds()); }
};
Roc roc(std::span<const int> labels, std::span<const double> scores);

/// Area under the curve: the probability that a signal jet scores above a background jet, ties counting one half (Mann
/// and Whitney with midranks). Exact: pairs are counted in integers.
double auc(const Roc& roc);

/// Standard deviation of the AUC over test sets of this size (DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988)
/// 837): var = var_S(F_B)/N_S + var_B(F_S)/N_B, with F the share of the other class that each jet is ranked correctly
/// against. No assumption on the distribution of scores. NaN with fewer than two jets in a class; 0 for perfect
/// separation.
double auc_uncertainty(const Roc& roc);

/// Background rejection 1/eps_B at a signal efficiency: the tightest cut that keeps at least this share of the signal.
/// It is a cut that an analysis can apply, and an integer number of background jets pass it.
///
/// The field's Python scripts take the point nearest in eps_S among the corners of the curve. With distinct scores that
/// point passes as many background jets as ours, or leaves out those that lie between two neighbouring signal jets
/// (mostly one): their rejection is equal or a little larger. With ties it may also be smaller.
struct Rejection {
  double signal_efficiency = 0;  // what was asked for
  double value = 0;              // 1/eps_B; infinite if no background jet passes
  double uncertainty = 0;        // value / sqrt(background_passing); infinite if none passes
  double threshold = 0;
  int64_t background_passing = 0, backgrounds = 0;
};
Rejection rejection(const Roc& roc, double signal_efficiency);  // Error unless 0 < signal_efficiency <= 1

/// "1243 ± 50" (two digits of the uncertainty), or "> 40000" (the number of background jets) if none passes.
std::string text(const Rejection& rejection);

/// Share of jets on the right side of the cut. A jet counts as signal if score > cut, so that one exactly on it is
/// background, as np.round(0.5) = 0 has it. The cut of a probability is 0.5, that of a logit 0.
double accuracy(std::span<const int> labels, std::span<const double> scores, double cut = 0.5);

/// Mean binary cross entropy, log(1 + exp(-x)) for signal and log(1 + exp(x)) for background, in a form that does not
/// overflow.
double binary_cross_entropy(std::span<const int> labels, std::span<const double> logits);

/// Share of jets whose label is the class of the highest logit, the lowest class where several are equal.
/// logits [N, classes] row-major, labels in [0, classes).
double multiclass_accuracy(std::span<const int> labels, std::span<const double> logits, int classes);

/// All of the above for one evaluated set.
struct BinaryMetrics {
  int64_t jets = 0;
  double loss = 0, accuracy = 0, auc = 0, auc_uncertainty = 0;
  std::vector<Rejection> rejections;  // at signal efficiencies 0.3, 0.5 and 0.8
  Roc roc;
};
BinaryMetrics binary_metrics(std::span<const int> labels, std::span<const double> logits);

/// What a run evaluated, by name: "test", "val", "test_ema".
using EvaluatedSets = std::vector<std::pair<std::string, BinaryMetrics>>;

/// For results.json: jets, loss, accuracy, auc, auc_uncertainty, rejection_0.3, rejection_0.5, rejection_0.8 and
/// their uncertainties, without the curve. What is not finite is null; a rejection that is null has a note
/// rejection_0.3_note that says why.
Json to_json(const BinaryMetrics& metrics);

}  // namespace lightcone
