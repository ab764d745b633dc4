#include "models/transformer_tagger.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "autograd/elementwise.h"
#include "autograd/segment.h"

namespace lightcone {

TransformerTagger::TransformerTagger(Context& ctx, const Json& model, const TaggingTask& task,
                                     const EmbeddingConfig& embedding, DType dtype)
    : embedding_(embedding), dtype_(dtype), trafo_fourmomenta_(ctx, TensorReps("1x1n")) {
  read_fields(model, config_, "model");
  auto derived = [](const char* name, const std::optional<int64_t>& given, int64_t value) {
    if (given && *given != value)
      fail("model", "{} is {}, but the data and the options make it {}; leave it null", name, *given, value);
  };
  static const std::vector<std::string> backends = {"xformers", "flex", "flash", "native", "varlen"};
  if (std::find(backends.begin(), backends.end(), config_.attention_backend) == backends.end())
    fail("model", "model.attention_backend has no option '{}'; all: {} (one attention serves all of them here)",
         config_.attention_backend, fmt::join(backends, ", "));
  const int64_t in_channels = 7 + task.extra_scalars + 4 * config_.add_fourmomenta_backbone + !config_.mean_aggregation;
  derived("model.in_channels", config_.in_channels, in_channels);
  derived("model.net.in_channels", config_.net.in_channels, in_channels);
  derived("model.out_channels", config_.out_channels, task.num_outputs);
  derived("model.net.out_channels", config_.net.out_channels, task.num_outputs);
  config_.net.in_channels = in_channels;
  config_.net.out_channels = task.num_outputs;
  embedding_.boost_jet = false;  // not a symmetry of this network: its features must stay those of the laboratory
  embedding_.tagging_features = "all";
  net_ = std::make_unique<Transformer>(ctx, config_.net, dtype);
  add("trafo_fourmomenta", trafo_fourmomenta_);
  add("net", *net_);
}

Var TransformerTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  Context& ctx = tape.context();
  tape.set_amp(config_.use_amp);
  const Tensor scalars = jets.scalars.defined() ? jets.scalars : ctx.empty({jets.fourmomenta.dim(0), 0}, dtype_);
  const Embedding e = embed_jets(ctx, embedding_, jets.fourmomenta, scalars, jets.ptr, dtype_, {.spurions = false});
  std::vector<Var> columns = {tape.constant(e.scalars), tape.constant(e.tagging_features)};
  if (config_.add_fourmomenta_backbone) columns.push_back(cast(tape.constant(e.fourmomenta), dtype_));
  Var x = concat(columns);
  Tensor ptr = e.ptr;
  if (!config_.mean_aggregation) {
    ptr = prepend_ptr(ctx, e.ptr);
    const Var token = tape.constant(ctx.of({jets.size(), 1}, dtype_, std::vector<double>(jets.size(), 1.0)));
    const Var flag = prepend_rows(token, tape.constant(ctx.zeros({x.dim(0), 1}, dtype_)), ptr);
    x = concat({prepend_rows(tape.constant(ctx.zeros({jets.size(), x.dim(1)}, dtype_)), x, ptr), flag});
  }
  if (intermediates) (*intermediates)["net_in/inputs"] = x.value();
  const Var y = (*net_)(x, ptr);
  return config_.mean_aggregation ? segment_mean(y, ptr) : first_rows(y, ptr);
}

}  // namespace lightcone
