#pragma once
#include "autograd/pair_vectors.h"
#include "models/equivectors.h"
#include "models/lgatr.h"

namespace lightcone {

/// Options of the "lgatr" group, named as in the reference's configuration.
struct LgatrVectorsConfig {
  std::string type = "LGATrVectors";
  std::optional<int64_t> n_vectors, num_scalars;  ///< derived from the frames and the data; not set by hand
  std::string operation = "add";                  ///< add, diff or single
  std::string nonlinearity = "softmax";           ///< softmax, exp or softplus
  std::string aggr = "sum";                       ///< sum (add) or mean
  bool layer_norm = false;                        ///< of a token's vectors
  bool lgatr_norm = true;                         ///< of the network's results
  bool use_amp = false;                           ///< the network's products in bf16
  std::optional<int64_t> hidden_mv_channels, hidden_s_channels;  ///< what q and k are to have; null: as in `net`
  std::string attention_backend = "xformers";                    ///< of the references; one attention serves all here
  LGATrConfig net = [] {
    LGATrConfig net;
    net.hidden_mv_channels = 2, net.hidden_s_channels = 24;
    net.num_blocks = net.attention.num_heads = 1;
    return net;
  }();
  void fields(auto& f) {
    f("type", type), f("n_vectors", n_vectors), f("num_scalars", num_scalars), f("operation", operation);
    f("nonlinearity", nonlinearity), f("aggr", aggr), f("layer_norm", layer_norm), f("lgatr_norm", lgatr_norm);
    f("use_amp", use_amp), f("hidden_mv_channels", hidden_mv_channels), f("hidden_s_channels", hidden_s_channels);
    f("attention_backend", attention_backend), f("net", net);
  }
};

/// Vectors from pairs, i = j among them, weighted by products of what L-GATr says of their two constituents:
///
///     q, k = norm(LGATr(p, s)),  multivectors and scalars, D numbers a vector;    logit_ijk = <q_ik, k_jk> / sqrt(D)
///
/// with the inner product of multivectors; then kernels/pair_vectors.h without norms of p_j ± p_i. The reference
/// divides by the sum of weights over the receivers j, and then sums over the senders i; here both run over the
/// senders.
class LgatrVectors : public Equivectors {
 public:
  LgatrVectors(Context& ctx, const Json& options, int64_t num_vectors, int64_t num_scalars, DType dtype,
               bool reference_behaviour);
  Var operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) override;
  void initialise(Context& ctx) override;

 private:
  LgatrVectorsConfig config_;
  PairVectorsOptions options_;
  std::unique_ptr<LGATr> net_;
};

}  // namespace lightcone
