#pragma once
#include "autograd/tape.h"
#include "kernels/message_passing.h"

namespace lightcone {

using kernels::MessageOptions;
using kernels::Pool;

/// The perceptron of messages as kernels/message_passing.h has it; Var{} where a part is not there.
struct MessagePerceptron {
  Var receiver, sender;
  Var edge, edge_weight;
  Var features, feature_weight, frames;
  std::vector<Var> weights, biases;
};

/// What every constituent pools over the others of its jet, [T, H]. Products are in f32 or f64, also under tape.amp().
/// Dropout acts while training and draws from the stream "dropout".
Var message_passing(const Tensor& ptr, const MessagePerceptron& mlp, const MessageOptions& options);

/// (ln (p_i + p_j)^2 - mean) / std of every edge, [P, 1] in `dtype`.
Var edge_attributes(const Var& fourmomenta, const Tensor& ptr, double mean, double std, DType dtype);

}  // namespace lightcone
