#include "models/mlp_vectors.h"

#include "models/options.h"
#include "models/perceptron.h"

namespace lightcone {

struct MlpVectors::Layers : Module {
  Perceptron mlp;
  PairStandard edge;
  Layers(Context& ctx, const std::vector<int64_t>& widths, bool with_dropout, bool edges, DType dtype)
      : mlp(ctx, widths, with_dropout, dtype), edge(ctx) {
    add("mlp", mlp);
    if (!edges) return;
    add("edge_inited", edge.inited);
    add("edge_mean", edge.mean);
    add("edge_std", edge.std);
  }
};

MlpVectors::~MlpVectors() = default;

MlpVectors::MlpVectors(Context& ctx, const Json& options, int64_t num_vectors, int64_t num_scalars, DType dtype) {
  read_fields(options, config_, "model.framesnet.equivectors");
  derive("model.framesnet.equivectors.n_vectors", config_.n_vectors, num_vectors);
  derive("model.framesnet.equivectors.num_scalars", config_.num_scalars, num_scalars);
  auto positive = [](const char* name, int64_t value) {
    if (value < 1 || value > 10'000)
      fail("model", "model.framesnet.equivectors.{} is {}, expected a number from 1 to 10000", name, value);
  };
  positive("hidden_channels", config_.hidden_channels);
  positive("num_layers_mlp", config_.num_layers_mlp);
  options_.operation = edge_momentum(config_.operation);
  options_.nonlinearity = edge_weight(config_.nonlinearity);
  options_.aggregation = edge_aggregation(config_.aggr);
  options_.fm_norm = config_.fm_norm;
  options_.layer_norm = config_.layer_norm;
  if (config_.dropout_prob && !(*config_.dropout_prob >= 0 && *config_.dropout_prob < 1))
    fail("model", "model.framesnet.equivectors.dropout_prob is {}, expected a number in [0, 1)", *config_.dropout_prob);
  options_.dropout = config_.dropout_prob.value_or(0);
  if (config_.operation == "single" && config_.fm_norm)
    fail("model",
         "model.framesnet.equivectors: operation=single with fm_norm=true divides by the mass of single momenta; set "
         "fm_norm=false");
  if (num_scalars == 0 && !config_.include_edges)
    fail("model",
         "model.framesnet.equivectors has no input: there are no scalars (data.tagging_features=null), and "
         "include_edges is false");
  std::vector<int64_t> widths = {2 * num_scalars + config_.include_edges};
  widths.insert(widths.end(), static_cast<size_t>(config_.num_layers_mlp), config_.hidden_channels);
  widths.push_back(num_vectors);
  layers_ = std::make_unique<Layers>(ctx, widths, config_.dropout_prob.has_value(), config_.include_edges, dtype);
  add("block", *layers_);
}

void MlpVectors::initialise(Context& ctx) {
  for (auto& linear : layers_->mlp.linear) {
    const Linear fresh(ctx, linear->weight.value.dim(1), linear->weight.value.dim(0), linear->weight.value.dtype());
    linear->weight.value = fresh.weight.value;
    linear->bias.value = fresh.bias.value;
  }
}

void MlpVectors::standardise(Context& ctx, const Tensor& fourmomenta, const Tensor& ptr) {
  if (config_.include_edges) layers_->edge.measure(ctx, fourmomenta, ptr);
}

Var MlpVectors::operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) {
  Tape& tape = fourmomenta.tape();
  kernels::EdgeVectorsOptions options = options_;
  if (config_.include_edges) {
    const EdgeStatistics edge = layers_->edge.statistics("MLPVectors");
    options.edge_mean = edge.mean;
    options.edge_std = edge.std;
  }
  EdgePerceptron perceptron;
  for (auto& linear : layers_->mlp.linear) {
    perceptron.weights.push_back(tape.parameter(linear->weight));
    perceptron.biases.push_back(tape.parameter(linear->bias));
  }
  return edge_vectors(fourmomenta, scalars, ptr, perceptron, options);
}

}  // namespace lightcone
