#pragma once
#include "models/embedding.h"
#include "models/tagger.h"

namespace lightcone {

/// What taggers have in common whose network is equivariant by itself: constituents and spurions (beams, time) are its
/// tokens, and only the spurions, and features that belong to the laboratory, break the symmetry. Logits are the mean
/// over all tokens of a jet, or those of a global token in front of them.
class EquivariantTagger : public Tagger {
 protected:
  /// Throws Error if the model group asks for other than identity frames.
  EquivariantTagger(const std::string& title, const Json& framesnet, const EmbeddingConfig& embedding,
                    bool mean_aggregation, DType dtype);
  struct Tokens {
    Tensor momenta;  ///< [T, 4, 1] in the network's dtype: constituents' in units of 20 GeV, spurions as they are
    Var scalars;     ///< [T, S]: extra scalars, tagging features, (1 for the global token); zero for spurions
    Tensor ptr;      ///< [B + 1]
  };
  int64_t num_scalars(const TaggingTask& task) const;  ///< S
  Tokens tokens(Tape& tape, const JetSet& jets) const;
  Var aggregate(const Var& y, const Tensor& ptr) const;  ///< [T, C] -> [B, C]

 private:
  EmbeddingConfig embedding_;
  bool mean_aggregation_;
  DType dtype_;
};

}  // namespace lightcone
