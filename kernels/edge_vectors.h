#pragma once
#include <vector>

#include "kernels/segment.h"

namespace lightcone::kernels {

// Equivariantly predicted four-vectors (Spinner et al., arXiv:2505.20280, sect. 3): every constituent i gets n vectors,
// sums over the other constituents j of its jet of four-momenta, weighted by a perceptron of the pair's scalars.
//
//     e_ij     = (ln max((p_i + p_j)^2, 1e-10) - edge_mean) / edge_std
//     h        = receiver_i + sender_j + edge e_ij                        [H]
//     h        = W_l gelu(h) + b_l     for l = 0 …, the last of which gives the n logits of the pair
//     v_ik     = sum over j != i of weight(logit_ijk) f_ij / norm_ij
//     y_i      = v_i / max(sqrt |sum over k of v_ik^2|, 1e-5)             with layer_norm; else v_i
//
// `receiver` = s W_a^T + b and `sender` = s W_b^T are the parts of a first layer on [s_i, s_j, e_ij] that belong to one
// constituent each; the caller computes them once per constituent. norm_ij = max(sqrt |f_ij^2|, 1e-6) with fm_norm,
// else 1. Squares are Minkowski's, metric (+,-,-,-); GELU is the exact one. Bounds have no gradient where they act.
//
//   p           [T, 4]        f64 or f32: (E, px, py, pz). All that is done with momenta is done in f64.
//   ptr         [B+1]         i32, see segment.h; pairs are those within a jet
//   EdgeMlp     see below     f64 or f32, the dtype in which the perceptron is computed
//   vectors y   [T, n, 4]     the dtype of p
//   lse         [T, n]        the dtype of the perceptron: ln sum_j exp(logit), read by the backward of a softmax
//   norm        [T]           f64: the denominator of y, read by the backward of layer_norm
//
// Memory is O(T H): pairs live in blocks of some dozens, and the backward computes them again. A jet's rows depend on
// that jet alone, bit by bit; gradients of the perceptron are sums over fixed groups of jets (on a GPU of receivers),
// combined in order. All bits are independent of the number of threads. A constituent without others gets v = 0.
// Light-like, collinear and equal momenta give finite results and gradients: a constituent sends none if that to its v
// is beyond the root of the largest number of the perceptron's dtype, as where frames hardly exist (an infinite one
// passes). Throws Error if a shape, dtype or option does not fit.

enum class EdgeMomentum : uint8_t { add, diff, single };     ///< f_ij = p_i + p_j, p_i - p_j or p_j
enum class EdgeWeight : uint8_t { softmax, exp, softplus };  ///< softmax over j; exp of a logit in [-10, 10]

struct EdgeVectorsOptions {
  EdgeMomentum operation = EdgeMomentum::add;
  EdgeWeight nonlinearity = EdgeWeight::softmax;
  Pool aggregation = Pool::sum;  ///< over j
  bool fm_norm = true, layer_norm = true;
  double edge_mean = 0, edge_std = 1;
  /// Every h before its GELU becomes h / (1 - dropout) where u >= dropout, else 0: for channel c in front of layer l, u
  /// is element (l P + pair) H + c of the Draw. The P ordered pairs are counted jet by jet, i by i, j by j, but for
  /// j = i.
  double dropout = 0;
};
int64_t count_pairs(const Tensor& ptr);  ///< P

/// The perceptron of pairs, or the gradients of all of it. H, n >= 1.
struct EdgeMlp {
  Tensor receiver, sender;              ///< [T, H]
  Tensor edge;                          ///< [H]; undefined: e_ij is not used
  std::vector<Tensor> weights, biases;  ///< [H, H] and [H] any number of times, then [n, H] and [n]
};

/// `dropout` is read if options.dropout is not 0.
void edge_vectors(Context& ctx, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp,
                  const EdgeVectorsOptions& options, const Draw& dropout, Tensor& vectors, Tensor& lse, Tensor& norm);

/// Gradients of the perceptron and, unless nullptr, dp [T, 4] in the dtype of p; all overwritten. The rest is what the
/// forward pass got and gave.
void edge_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp,
                           const EdgeVectorsOptions& options, const Draw& dropout, const Tensor& vectors,
                           const Tensor& lse, const Tensor& norm, EdgeMlp& gradients, Tensor* dp);

/// Mean and standard deviation (unbiased, at least 1e-5) of ln max((p_i + p_j)^2, 1e-10) over all ordered pairs.
/// Throws Error if there is no pair.
struct EdgeStatistics {
  double mean, std;
};
EdgeStatistics edge_statistics(Context& ctx, const Tensor& p, const Tensor& ptr);

}  // namespace lightcone::kernels
