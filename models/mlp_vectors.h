#pragma once
#include "autograd/edge_vectors.h"
#include "models/equivectors.h"
#include "models/linear.h"

namespace lightcone {

/// Options of the "equimlp" group, named as in the reference's configuration.
struct MlpVectorsConfig {
  std::string type = "MLPVectors";
  std::optional<int64_t> n_vectors, num_scalars;  ///< derived from the frames and the data; not set by hand
  int64_t hidden_channels = 32;
  int64_t num_layers_mlp = 2;            ///< hidden layers
  std::optional<double> dropout_prob;    ///< of the values before each GELU
  bool use_amp = false;                  ///< of the reference; the perceptron stays in the network's dtype
  bool include_edges = true;             ///< the logarithm of (p_i + p_j)^2 as an input
  std::string operation = "add";         ///< add, diff or single
  std::string nonlinearity = "softmax";  ///< softmax, exp or softplus
  std::string aggr = "sum";              ///< sum (add) or mean
  bool layer_norm = true;                ///< of a token's vectors
  bool fm_norm = true;                   ///< p_i ± p_j divided by its mass
  void fields(auto& f) {
    f("type", type), f("n_vectors", n_vectors), f("num_scalars", num_scalars), f("hidden_channels", hidden_channels);
    f("num_layers_mlp", num_layers_mlp), f("dropout_prob", dropout_prob), f("use_amp", use_amp);
    f("include_edges", include_edges), f("operation", operation), f("nonlinearity", nonlinearity), f("aggr", aggr);
    f("layer_norm", layer_norm), f("fm_norm", fm_norm);
  }
};

/// Vectors from a perceptron of pairs (kernels/edge_vectors.h). Buffers: mean and spread of the pairs' logarithms on
/// the first training batch, and whether they have been measured.
class MlpVectors : public Equivectors {
 public:
  MlpVectors(Context& ctx, const Json& options, int64_t num_vectors, int64_t num_scalars, DType dtype);
  ~MlpVectors() override;
  Var operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) override;
  void standardise(Context& ctx, const Tensor& fourmomenta, const Tensor& ptr) override;
  void initialise(Context& ctx) override;

 private:
  struct Layers;
  MlpVectorsConfig config_;
  kernels::EdgeVectorsOptions options_;
  std::unique_ptr<Layers> layers_;
};

}  // namespace lightcone
