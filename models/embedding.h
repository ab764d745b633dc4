#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/context.h"

namespace lightcone {

/// How jets become the tokens of a tagging network: the embedding's keys of the configuration's `data` table.
struct EmbeddingConfig {
  std::optional<std::string> tagging_features = "all";      ///< all, zinvariant, so3invariant or null
  bool boost_jet = false;                                   ///< into the rest frame of the jet
  std::optional<std::string> beam_reference = "lightlike";  ///< lightlike, timelike, spacelike, all or null
  bool two_beams = true;                                    ///< the second with pz flipped; not for beam_reference all
  bool add_time_reference = true;
  std::optional<double> mass_reg = 5e-3;  ///< GeV: tokens lighter than this get this mass
  double spurion_scale = 1;
  std::optional<int64_t> max_particles;  ///< the first ones of each jet
  bool momentum_float64 = true;
  /// For tests of equivariance, not in the configuration: a Lorentz transformation, row-major, that the jets have been
  /// through; the reference vectors follow it.
  std::optional<std::array<double, 16>> laboratory;

  void fields(auto& f) {
    f("tagging_features", tagging_features);
    f("boost_jet", boost_jet);
    f("beam_reference", beam_reference);
    f("two_beams", two_beams);
    f("add_time_reference", add_time_reference);
    f("mass_reg", mass_reg);
    f("spurion_scale", spurion_scale);
    f("max_particles", max_particles);
    f("momentum_float64", momentum_float64);
  }

  /// Throws Error naming the key, what it may be and what it is.
  void validate() const;
  /// What embed_jets() should be given. (f32 momenta with learned frames give wrong logits.)
  DType momentum_dtype() const { return momentum_float64 ? DType::f64 : DType::f32; }
};

using FourMomentum = std::array<double, 4>;

/// The reference vectors in front of each jet, scaled: the beams, then the direction of time.
///
///     lightlike (1,0,0,1)    timelike (sqrt2,0,0,1)    spacelike (0,0,0,1)    time (1,0,0,0)
///     all (1,0,0,1), (1,0,1,0), (1,1,0,0)
std::vector<FourMomentum> spurions(const EmbeddingConfig& config);

/// Tokens of B jets, ragged; S spurions stand at the front of each jet.
struct Embedding {
  Tensor fourmomenta;       ///< [T, 4] in the dtype that came in
  Tensor scalars;           ///< [T, number of scalars] in the network's dtype; zero for spurions
  Tensor is_spurion;        ///< [T] bool
  Tensor tagging_features;  ///< [T, F] in the network's dtype; zero for spurions (kernels/jet_features.h)
  Tensor batch;             ///< [T] i32, the jet of a token
  Tensor ptr;               ///< [B + 1] i32, the first token of a jet
  Tensor jets;              ///< [B, 4], the sum of a jet's constituents, in the dtype of fourmomenta
  int64_t spurions;         ///< S
  /// The same where ctx computes, but for is_spurion and batch, which stay on the CPU.
  Embedding on(Context& ctx) const;
};

/// What a network reads of an embedding. A part that is left out has no rows (spurions) or columns (tagging features);
/// the rest is the same to the last bit.
struct EmbeddingParts {
  bool spurions = true;
  bool tagging_features = true;
};

/// In this order: the first max_particles of each jet, spurions in front, mass regulator (spurions too; p^2 <
/// mass_reg^2 sets E = sqrt(|p|^2 + mass_reg^2)), boost into the rest frame of the sum of the constituents (spurions
/// too), features relative to the sum of the boosted constituents.
///
///   fourmomenta   [T, 4]   f64 or f32, (E, px, py, pz) in GeV
///   scalars       [T, S]   f64, f32 or bf16; S may be 0
///   ptr           [B + 1]  i32
///
/// One pass over each jet, in f64, on the CPU: all tensors are there, and the result, whatever ctx computes on. Throws
/// Error if a shape or dtype differs, if ptr does not run from 0 to T, if a jet has no constituents or if `config` is
/// not valid.
Embedding embed_jets(Context& ctx, const EmbeddingConfig& config, const Tensor& fourmomenta, const Tensor& scalars,
                     const Tensor& ptr, DType network_dtype, EmbeddingParts parts = {});

}  // namespace lightcone
