#pragma once
#include "autograd/tape.h"
#include "kernels/pair_aggregations.h"

namespace lightcone {

using kernels::count_all_pairs;
using kernels::MatrixOfMaps;
using kernels::Pool;

// Numbers of all ordered pairs of a jet, [E, C], and what belongs to constituents and jets; see
// kernels/pair_aggregations.h.

struct PairPools {
  Var tokens;  ///< [T, 3C]
  Var jets;    ///< [B, 2C]
};
PairPools pair_pool(const Var& x, const Tensor& ptr, Pool pool);

/// ab [E, 2C] (Var{} = none), tokens [T, 3C] -> [E, C]
Var pair_combine(const Var& ab, const Var& tokens, const Tensor& ptr);

/// Var{} where there is none.
struct AggregationParameters {
  Var direct, c00, c01, c10, c11, multipliers, scale;
};
std::vector<Var> aggregation_matrices(const AggregationParameters& k, const std::vector<MatrixOfMaps>& layout);

}  // namespace lightcone
