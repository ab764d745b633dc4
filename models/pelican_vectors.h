#pragma once
#include "autograd/pair_vectors.h"
#include "models/equivectors.h"
#include "models/pelican.h"

namespace lightcone {

/// Options of the "pelican" group, named as in the reference's configuration.
struct PelicanVectorsConfig {
  std::string type = "PELICANVectors";
  std::optional<int64_t> n_vectors, num_scalars;  ///< derived from the frames and the data; not set by hand
  std::string operation = "add";                  ///< add, diff or single
  std::string nonlinearity = "softmax";           ///< softmax, exp or softplus
  std::string aggr = "sum";                       ///< sum (add) or mean
  bool fm_norm = true;                            ///< p_j ± p_i divided by its mass
  bool layer_norm = true;                         ///< of a token's vectors
  bool use_amp = false;                           ///< the network's products in bf16
  PELICANConfig net = {.out_rank = 2, .num_blocks = 1, .hidden_channels = 32, .increase_hidden_channels = 0.5};
  void fields(auto& f) {
    f("type", type), f("n_vectors", n_vectors), f("num_scalars", num_scalars), f("operation", operation);
    f("nonlinearity", nonlinearity), f("aggr", aggr), f("fm_norm", fm_norm), f("layer_norm", layer_norm);
    f("use_amp", use_amp), f("net", net);
  }
};

/// Vectors from pairs, i = j among them, with the logits that PELICAN makes of ln (p_i + p_j)^2, standardised, and the
/// scalars; then kernels/pair_vectors.h. Buffers: mean and spread of the logarithms (of pairs with i != j) on the first
/// training batch, and whether they have been measured.
///
/// The reference makes two mistakes here. It takes the scalars of constituent t of the whole batch from the receiver of
/// pair t, which in all jets but the first is a constituent of another jet; and it divides by the sum of weights over
/// the receivers j, and then sums over the senders i. Here scalars are a constituent's own and both sums run over i.
class PelicanVectors : public Equivectors {
 public:
  PelicanVectors(Context& ctx, const Json& options, int64_t num_vectors, int64_t num_scalars, DType dtype,
                 bool reference_behaviour);
  Var operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) override;
  void standardise(Context& ctx, const Tensor& fourmomenta, const Tensor& ptr) override {
    edge_.measure(ctx, fourmomenta, ptr);
  }
  void initialise(Context& ctx) override;

 private:
  PelicanVectorsConfig config_;
  PairVectorsOptions options_;
  const bool reference_behaviour_;
  PairStandard edge_;
  std::unique_ptr<PELICAN> net_;
};

}  // namespace lightcone
