#pragma once
#include <vector>

#include "bench/harness.h"

namespace lightcone::bench {

/// Offsets of jets of about `mean` constituents, or of one jet of exactly that many.
std::vector<double> jet_offsets(int64_t jets, int64_t mean);

/// Four-momenta [T, 4] of 5 GeV in mass, some 20 GeV in each component.
Tensor momenta(Runner& run, int64_t T, DType dtype, uint64_t seed);

/// All seven features of jet_features.h, of one constituent p relative to its jet.
void naive_jet_features(const double* p, const double* jet, double* y);

}  // namespace lightcone::bench
