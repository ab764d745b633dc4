#pragma once
#include "autograd/lorentz_norm.h"
#include "kernels/elementwise.h"

namespace lightcone {

using kernels::Unary;

/// Weights of the two layers, up and down; biases of scalars (Var{} = none).
struct GatedMlpWeights {
  Var up_v, down_v;  ///< Var{} for both: vectors only enter the norm, and none come out
  Var up_s, up_bias, down_s, down_bias;
};

/// The feed-forward half of a block of L-GATr-slim with its norm and residual connection; see kernels/gated_mlp.h.
LorentzVar gated_mlp(const LorentzVar& x, const GatedMlpWeights& w, double eps, Unary f);

}  // namespace lightcone
