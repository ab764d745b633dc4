#pragma once
#include "kernels/all_pairs.h"
#include "kernels/edge_vectors.h"

namespace lightcone::kernels {

// Equivariantly predicted four-vectors from a network that gives numbers to pairs (edge_vectors.h has one inside), and
// two such numbers. Pairs are all ordered ones (all_pairs.h): row (i, j) is the edge from constituent i, the
// sender, to j, the receiver; i = j is among them. Metric (+,-,-,-).
//
//   p        [T, 4]       f64 or f32: (E, px, py, pz). All that is done with momenta is done in f64.
//   ptr      [B+1]        i32, see segment.h
//   e, logits [E, n]      f64 or f32, E = sum of N^2; their gradients likewise
//
// A jet's rows depend on that jet alone, bit by bit, for any number of threads; light-like, collinear and equal momenta
// give finite results and gradients. All results are overwritten. Throws Error if a shape, dtype or option does not
// fit.

/// e_ij = (ln max((p_i + p_j)^2, 1e-10) - mean) / std       [E, 1]
void pair_masses(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e);
/// dp [T, 4] in the dtype of p; the bound has no gradient where it acts.
void pair_masses_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std, Tensor& dp);

/// y_ijk = <q_ik, k_jk>, the plain sum over D numbers       q, k [T, n D], y [E, n], of one dtype
void pair_products(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& ptr, Tensor& y);
/// nullptr: not wanted.
void pair_products_backward(Context& ctx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& ptr,
                            Tensor* dq, Tensor* dk);

struct PairVectorsOptions {
  EdgeMomentum operation = EdgeMomentum::add;     ///< f_ij = p_j + p_i, p_j - p_i or p_i
  EdgeWeight nonlinearity = EdgeWeight::softmax;  ///< exp of a logit in [-10, 10]
  bool softmax_over_receivers = false;            ///< weights of one sender have the sum 1, and not of one receiver
  Pool aggregation = Pool::sum;                   ///< over the senders
  bool fm_norm = true, layer_norm = true;
};

///     v_jk = sum over i of weight(logit_ijk) f_ij / norm_ij
///     y_j  = v_j / max(sqrt |sum over k of v_jk^2|, 1e-5)             with layer_norm; else v_j
///
/// norm_ij = max(sqrt |f_ij^2|, 1e-6) with fm_norm, else 1. Bounds have no gradient where they act. A logit of -inf has
/// weight 0; weights of a softmax over nothing else are NaN.
///
///   vectors y   [T, n, 4]   the dtype of p
///   norm        [T]         f64: the denominator of y, read by the backward of layer_norm
void pair_vectors(Context& ctx, const Tensor& p, const Tensor& logits, const Tensor& ptr,
                  const PairVectorsOptions& options, Tensor& vectors, Tensor& norm);
/// nullptr: not wanted.
void pair_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& logits,
                           const Tensor& ptr, const PairVectorsOptions& options, const Tensor& vectors,
                           const Tensor& norm, Tensor* dlogits, Tensor* dp);

}  // namespace lightcone::kernels
