#include "models/pelican_vectors.h"

#include "autograd/segment.h"
#include "models/options.h"

namespace lightcone {

namespace {

/// The receivers of the first T pairs of the batch.
Tensor receivers_of_first_pairs(Context& ctx, const Tensor& ptr) {
  const auto offsets = ptr.offsets();
  const auto T = static_cast<size_t>(offsets.back());
  std::vector<int32_t> receivers;
  for (size_t b = 0; b + 1 < offsets.size(); ++b)
    for (int32_t i = offsets[b]; i < offsets[b + 1]; ++i)
      for (int32_t j = offsets[b]; j < offsets[b + 1] && receivers.size() < T; ++j) receivers.push_back(j);
  return ctx.offsets(receivers);
}

}  // namespace

PelicanVectors::PelicanVectors(Context& ctx, const Json& options, int64_t num_vectors, int64_t num_scalars, DType dtype,
                               bool reference_behaviour)
    : reference_behaviour_(reference_behaviour), edge_(ctx) {
  read_fields(options, config_, "model.framesnet.equivectors");
  derive("model.framesnet.equivectors.n_vectors", config_.n_vectors, num_vectors);
  derive("model.framesnet.equivectors.num_scalars", config_.num_scalars, num_scalars);
  derive("model.framesnet.equivectors.net.in_channels_rank1", config_.net.in_channels_rank1, num_scalars);
  derive("model.framesnet.equivectors.net.out_channels", config_.net.out_channels, num_vectors);
  auto expect = [](const char* name, int64_t value, int64_t expected) {
    if (value != expected)
      fail("model", "model.framesnet.equivectors.net.{} is {}, expected {}", name, value, expected);
  };
  expect("in_channels_rank2", config_.net.in_channels_rank2, 1);
  expect("in_channels_rank0", config_.net.in_channels_rank0, 0);
  expect("out_rank", config_.net.out_rank, 2);
  if (config_.operation == "single" && config_.fm_norm)
    fail("model",
         "model.framesnet.equivectors: operation=single with fm_norm=true divides by the mass of single momenta; set "
         "fm_norm=false");
  options_ = {.operation = edge_momentum(config_.operation),
              .nonlinearity = edge_weight(config_.nonlinearity),
              .softmax_over_receivers = reference_behaviour,
              .aggregation = edge_aggregation(config_.aggr),
              .fm_norm = config_.fm_norm,
              .layer_norm = config_.layer_norm};
  net_ = std::make_unique<PELICAN>(ctx, config_.net, dtype);
  add("net", *net_);
  add("edge_inited", edge_.inited);
  add("edge_mean", edge_.mean);
  add("edge_std", edge_.std);
}

void PelicanVectors::initialise(Context& ctx) {
  const auto own = net_->parameters();
  const PELICAN fresh(ctx, config_.net, own[0].item->value.dtype());
  size_t i = 0;
  for (const auto& [name, parameter] : fresh.parameters()) own[i++].item->value = parameter->value;
}

Var PelicanVectors::operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) {
  Tape& tape = fourmomenta.tape();
  const EdgeStatistics edge = edge_.statistics("PELICANVectors");
  const AmpScope amp(tape, config_.use_amp);
  Var s = scalars.dim(1) ? scalars : Var{};
  if (reference_behaviour_ && scalars.dim(1)) s = gather_rows(scalars, receivers_of_first_pairs(tape.context(), ptr));
  const Var masses = pair_masses(fourmomenta, ptr, edge.mean, edge.std, scalars.dtype());
  return pair_vectors(fourmomenta, (*net_)(masses, s, {}, ptr), ptr, options_);
}

}  // namespace lightcone
