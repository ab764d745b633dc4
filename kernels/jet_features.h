#pragma once
#include <string_view>

#include "engine/context.h"

namespace lightcone::kernels {

/// Which of the tagging features: all 7; zinvariant 0,2,4,5,6 (boosts along and rotations about the beam); so3invariant
/// 1,3 (rotations); none. Columns keep their order.
enum class TaggingFeatures { none, all, zinvariant, so3invariant };
int64_t num_tagging_features(TaggingFeatures which);  ///< 0, 7, 5, 2
/// "all", "zinvariant" or "so3invariant". Throws Error listing these.
TaggingFeatures tagging_features_from(std::string_view name);

/// Features of a constituent p relative to its jet j, both four-momenta (E, px, py, pz) in GeV; standardised as by
/// the Particle Transformer (Qu, Li, Qian, arXiv:2202.03772, and its published configuration), (feature - mean) factor:
///
///                                          mean   factor
///     0   ln pt                             1.7    0.7
///     1   ln E                              2      0.7
///     2   ln pt - ln pt_j                  -4.7    0.7
///     3   ln E - ln E_j                    -4.7    0.7
///     4   dphi = phi - phi_j, in [-pi, pi)  0      1
///     5   deta = eta_j - eta                0      1
///     6   sqrt(max(dphi^2 + deta^2, e))     0.2    4
///
/// pt, phi and eta with their clamps as in minkowski.h, energies at least e = 1e-10; a clamped quantity has no
/// gradient.
///
///   p, jet   [T, 4]  f64 or f32. The jet is given per token: in LLoCa each particle sees it in its own frame.
///   y        [T, F]  f64, f32 or bf16, F = num_tagging_features(which)
///
/// Arithmetic is f64; a row depends on its own inputs alone. T = 0 or F = 0 writes nothing. Throws Error if a shape or
/// dtype differs.
void jet_features(Context& ctx, TaggingFeatures which, const Tensor& p, const Tensor& jet, Tensor& y);

/// dy [T, F] in y's dtype; dp, djet [T, 4] in that of p, overwritten. Either may be null if it is not wanted.
void jet_features_backward(Context& ctx, TaggingFeatures which, const Tensor& dy, const Tensor& p, const Tensor& jet,
                           Tensor* dp, Tensor* djet);

}  // namespace lightcone::kernels
