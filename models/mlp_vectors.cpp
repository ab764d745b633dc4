#include "models/mlp_vectors.h"

#include <fmt/ranges.h>

#include "models/options.h"
#include "models/perceptron.h"
#include "models/registry.h"

namespace lightcone {

namespace {

template <class T>
T option_of(const char* name, const std::string& value, const std::vector<std::pair<std::string, T>>& options) {
  std::vector<std::string> names;
  for (const auto& [text, option] : options) {
    if (text == value) return option;
    names.push_back(text);
  }
  fail("model", "model.framesnet.equivectors.{} has no option '{}'; all: {}", name, value, fmt::join(names, ", "));
}

}  // namespace

struct MlpVectors::Layers : Module {
  Perceptron mlp;
  Buffer edge_inited, edge_mean, edge_std;
  Layers(Context& ctx, const std::vector<int64_t>& widths, bool with_dropout, bool edges, DType dtype)
      : mlp(ctx, widths, with_dropout, dtype) {
    add("mlp", mlp);
    edge_inited.value = ctx.of({}, DType::boolean, std::vector<double>{0});
    edge_mean.value = ctx.of({}, DType::f64, std::vector<double>{0});
    edge_std.value = ctx.of({}, DType::f64, std::vector<double>{1});
    if (!edges) return;
    add("edge_inited", edge_inited);
    add("edge_mean", edge_mean);
    add("edge_std", edge_std);
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
  options_.operation = option_of<EdgeMomentum>(
      "operation", config_.operation,
      {{"add", EdgeMomentum::add}, {"diff", EdgeMomentum::diff}, {"single", EdgeMomentum::single}});
  options_.nonlinearity = option_of<EdgeWeight>(
      "nonlinearity", config_.nonlinearity,
      {{"softmax", EdgeWeight::softmax}, {"exp", EdgeWeight::exp}, {"softplus", EdgeWeight::softplus}});
  options_.aggregation = option_of<kernels::Pool>(
      "aggr", config_.aggr, {{"sum", kernels::Pool::sum}, {"add", kernels::Pool::sum}, {"mean", kernels::Pool::mean}});
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
  if (!config_.include_edges || layers_->edge_inited.value.item() != 0) return;
  const EdgeStatistics found = edge_statistics(ctx, fourmomenta, ptr);
  layers_->edge_mean.value = ctx.of({}, DType::f64, std::vector<double>{found.mean});
  layers_->edge_std.value = ctx.of({}, DType::f64, std::vector<double>{found.std});
  layers_->edge_inited.value = ctx.of({}, DType::boolean, std::vector<double>{1});
}

Var MlpVectors::operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) {
  Tape& tape = fourmomenta.tape();
  kernels::EdgeVectorsOptions options = options_;
  if (config_.include_edges) {
    if (layers_->edge_inited.value.item() == 0)
      fail("MLPVectors",
           "mean and spread of the pairs are not known: they are measured on the first training batch; train the "
           "network or load a trained one");
    options.edge_mean = layers_->edge_mean.value.item();
    options.edge_std = layers_->edge_std.value.item();
  }
  EdgePerceptron perceptron;
  for (auto& linear : layers_->mlp.linear) {
    perceptron.weights.push_back(tape.parameter(linear->weight));
    perceptron.biases.push_back(tape.parameter(linear->bias));
  }
  return edge_vectors(fourmomenta, scalars, ptr, perceptron, options);
}

std::unique_ptr<Equivectors> make_equivectors(Context& ctx, const Json& options, int64_t num_vectors,
                                              int64_t num_scalars, DType dtype) {
  const std::string type = options.contains("type") ? options["type"].get<std::string>() : "MLPVectors";
  if (type == "MLPVectors") return std::make_unique<MlpVectors>(ctx, options, num_vectors, num_scalars, dtype);
  throw NotInThisVersion(
      fmt::format("model: the equivectors network '{}' is not in this version of lightcone; it has: MLPVectors", type));
}

}  // namespace lightcone
