#pragma once
#include "experiments/metrics.h"
#include "experiments/plots.h"

namespace lightcone {

/// The figures of a training run and of a jet tagger.

/// Background rejection 1/ε_B (log) against signal efficiency ε_S, one curve for each set with the band of its counting
/// uncertainty (1 ± 1/sqrt(background that passes)), the working points of the first, and a random tagger for
/// comparison.
Figure roc_figure(const EvaluatedSets& sets);

/// Normalised distributions of the probability 1/(1 + exp(-logit)) for both classes.
Figure score_figure(std::span<const int> labels, std::span<const double> logits, const std::string& signal = "signal",
                    const std::string& background = "background");

/// Training loss of each iteration, faint, its running mean over 1 % of them, and the validation loss where it was
/// taken.
Figure loss_figure(std::span<const double> training, std::span<const double> validation_iteration,
                   std::span<const double> validation);

/// A quantity of each iteration, raw and smoothed where it is noisy: gradient norm, learning rate.
Figure learning_rate_figure(std::span<const double> learning_rate);
Figure gradient_norm_figure(std::span<const double> norm);

}  // namespace lightcone
