#pragma once
#include <optional>

#include "autograd/orthonormal.h"
#include "models/equivectors.h"
#include "models/framesnet.h"

namespace lightcone {

/// Options of the learned frames, named as in the reference's configuration.
struct LearnedFramesConfig {
  std::string type = "LearnedPDFrames";
  bool is_global = false;   ///< the mean of the vectors over a jet's tokens (spurions too) makes one frame for all
  bool random = false;      ///< the vectors' network is drawn again for every training batch and not trained
  bool fix_params = false;  ///< it is drawn once and not trained
  std::optional<double> gamma_max;                 ///< of the boosts, for LearnedPDFrames and LearnedZFrames
  std::optional<double> gamma_hardness;            ///< of that limit, which is hard where this is null
  std::optional<std::string> deterministic_boost;  ///< of the reference, where it has to be null
  bool compile = false;                            ///< of the reference; nothing to compile here
  bool checks = false;                             ///< the same as ortho_kwargs.checks
  OrthoKwargs ortho_kwargs;
  Json equivectors = Json::object();
  void fields(auto& f) {
    f("type", type), f("is_global", is_global), f("random", random), f("fix_params", fix_params);
    f("gamma_max", gamma_max), f("gamma_hardness", gamma_hardness), f("deterministic_boost", deterministic_boost);
    f("compile", compile), f("checks", checks), f("ortho_kwargs", ortho_kwargs), f("equivectors", equivectors);
  }
};

/// Frames made of predicted vectors v_k (Spinner et al., arXiv:2505.20280, section 4; kernels/orthonormal.h), by type:
///
///     LearnedSO13Frames   three vectors, orthonormalised                               all of SO(1,3)
///     LearnedPDFrames     boost v_0, references v_1, v_2                               all of SO(1,3)
///     LearnedRestFrames   boost the token's own four-momentum, references v_0, v_1     all of SO(1,3)
///     LearnedSO3Frames    no boost, references v_0, v_1                                rotations
///     LearnedSO2Frames    no boost, references the z axis, v_0                         rotations about the beam
///     LearnedZFrames      boost (v_0.E, 0, 0, v_0.pz), references v_1, the z axis      boosts along the beam and those
///
/// Frames are f64. Passes observe reg_lightlike, reg_collinear (or reg_coplanar), gamma_mean, gamma_max and, with a
/// limit, reg_gammamax (Tape::observe).
class LearnedFrames : public FramesNet {
 public:
  /// `reference_behaviour` is for the vectors' network, see equivectors.h.
  LearnedFrames(Context& ctx, const Json& options, int64_t num_scalars, DType dtype, bool reference_behaviour = false);
  bool is_learned() const override { return true; }
  bool is_rest_frame() const override { return type_ == Type::rest; }
  Frames operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr,
                    Intermediates* intermediates) override;
  /// The frames that given vectors [T, n, 4] make.
  Frames from_vectors(const Var& fourmomenta, Var vectors, const Tensor& ptr, Intermediates* intermediates) const;
  void standardise(Context& ctx, const Tensor& fourmomenta, const Tensor& ptr) override {
    equivectors_->standardise(ctx, fourmomenta, ptr);
  }
  void begin_batch(Context& ctx) override;

 private:
  enum class Type { pd, so13, rest, so3, so2, z };
  Var matrices(const Var& fourmomenta, const Var& vectors, Intermediates* intermediates) const;
  LearnedFramesConfig config_;
  Type type_;
  std::unique_ptr<Equivectors> equivectors_;
};

/// The types of the table above.
std::vector<std::string> learned_frames_types();

}  // namespace lightcone
