#pragma once
#include "autograd/tape.h"
#include "kernels/edge_vectors.h"

namespace lightcone {

using kernels::edge_statistics;
using kernels::EdgeMomentum;
using kernels::EdgeStatistics;
using kernels::EdgeVectorsOptions;
using kernels::EdgeWeight;

/// A perceptron of [s_i, s_j, e_ij]: weights [H, 2S + 1], then [H, H] any number of times, then [n, H] (out, in) and
/// their biases. Without a column for e_ij, [H, 2S], pairs are known by their scalars alone.
struct EdgePerceptron {
  std::vector<Var> weights, biases;
};

/// n four-vectors per constituent from the pairs of its jet; see kernels/edge_vectors.h.
///     fourmomenta [T, 4] f64 or f32, scalars [T, S], ptr [B+1] -> [T, n, 4] in the dtype of the momenta
/// The perceptron is computed in the dtype of its weights, also under tape.amp(). Dropout acts while training and draws
/// from the stream "dropout".
Var edge_vectors(const Var& fourmomenta, const Var& scalars, const Tensor& ptr, const EdgePerceptron& perceptron,
                 const EdgeVectorsOptions& options);

/// From the parts of the first layer: receiver, sender [T, H], edge [H] or Var{}; `behind` are the other layers.
Var edge_vectors(const Var& fourmomenta, const Var& receiver, const Var& sender, const Var& edge, const Tensor& ptr,
                 const EdgePerceptron& behind, const EdgeVectorsOptions& options);

}  // namespace lightcone
