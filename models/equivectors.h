#pragma once
#include <memory>
#include <string>

#include "autograd/edge_vectors.h"
#include "models/tagger.h"

namespace lightcone {

/// Predicts n four-vectors for each token, which transform as the four-momenta do.
class Equivectors : public Module {
 public:
  /// fourmomenta [T, 4], scalars [T, S], ptr [B + 1] -> [T, n, 4] in the dtype of fourmomenta
  virtual Var operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) = 0;
  /// Fixes what is measured on the first training batch; does nothing where that has been done.
  virtual void standardise(Context&, const Tensor& /*fourmomenta*/, const Tensor& /*ptr*/) {}
  /// Draws the parameters again.
  virtual void initialise(Context& ctx) = 0;
};

/// What model.framesnet.equivectors describes. `reference_behaviour`: with the references' mistakes (lgatr_vectors.h,
/// pelican_vectors.h). Throws Error on unknown keys and values, NotInThisVersion on a network that this version does
/// not have.
std::unique_ptr<Equivectors> make_equivectors(Context& ctx, const Json& options, int64_t num_vectors,
                                              int64_t num_scalars, DType dtype, bool reference_behaviour);

// What the networks have in common. Options by name; throws Error naming the key and all of its options.
EdgeMomentum edge_momentum(const std::string& operation);  ///< add, diff or single
EdgeWeight edge_weight(const std::string& nonlinearity);   ///< softmax, exp or softplus
kernels::Pool edge_aggregation(const std::string& aggr);   ///< sum (add) or mean

/// Mean and spread of ln (p_i + p_j)^2 on the first training batch: buffers edge_inited, edge_mean, edge_std,
/// which stay on the CPU.
struct PairStandard {
  Buffer inited, mean, std;
  explicit PairStandard(Context& ctx);
  void measure(Context& ctx, const Tensor& fourmomenta, const Tensor& ptr);  ///< unless that has been done
  /// Throws Error in the name of this network unless they have been measured.
  EdgeStatistics statistics(const char* network) const;
};

}  // namespace lightcone
