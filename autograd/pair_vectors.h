#pragma once
#include "autograd/tape.h"
#include "kernels/pair_vectors.h"

namespace lightcone {

using kernels::EdgeMomentum;
using kernels::EdgeWeight;
using kernels::PairVectorsOptions;

// Four-vectors from all ordered pairs of a jet; see kernels/pair_vectors.h.

/// (ln (p_i + p_j)^2 - mean) / std, [E, 1] in `dtype`.
Var pair_masses(const Var& p, const Tensor& ptr, double mean, double std, DType dtype);
/// n products of each pair: q, k [T, n D] -> [E, n].
Var pair_products(const Var& q, const Var& k, const Tensor& ptr, int64_t n);
/// p [T, 4], logits [E, n] -> [T, n, 4] in the dtype of p.
Var pair_vectors(const Var& p, const Var& logits, const Tensor& ptr, const PairVectorsOptions& options);

}  // namespace lightcone
