#include "models/equivariant_tagger.h"

#include "autograd/elementwise.h"
#include "autograd/segment.h"
#include "kernels/elementwise.h"
#include "kernels/jet_features.h"

namespace lightcone {

namespace {

constexpr double momentum_unit = 20;  // GeV

Tensor in_network_units(Context& ctx, const Embedding& e, DType dtype) {
  Context& host = ctx.host();
  Tensor wide = host.empty(e.fourmomenta.shape(), DType::f64), out = host.empty(e.fourmomenta.shape(), dtype);
  kernels::cast(host, e.fourmomenta, wide);
  const bool* spurion = e.is_spurion.data<bool>();
  double* p = wide.data<double>();
  for (int64_t i = 0; i < wide.numel(); ++i)
    if (!spurion[i / 4]) p[i] /= momentum_unit;
  kernels::cast(host, wide, out);
  return ctx.here(out);
}

}  // namespace

EquivariantTagger::EquivariantTagger(const std::string& title, const Json& framesnet, const EmbeddingConfig& embedding,
                                     bool mean_aggregation, DType dtype)
    : embedding_(embedding), mean_aggregation_(mean_aggregation), dtype_(dtype) {
  if (const auto frames = framesnet.find("type"); frames != framesnet.end() && *frames != Json("IdentityFrames"))
    fail("model", "model.framesnet is {}; {} is equivariant by itself and takes only identity", frames->dump(), title);
  embedding_.boost_jet = false;  // changes nothing: the spurions would go along
  embedding_.validate();
}

int64_t EquivariantTagger::num_scalars(const TaggingTask& task) const {
  const auto& which = embedding_.tagging_features;
  const int64_t features = which ? kernels::num_tagging_features(kernels::tagging_features_from(*which)) : 0;
  return task.extra_scalars + features + !mean_aggregation_;
}

EquivariantTagger::Tokens EquivariantTagger::tokens(Tape& tape, const JetSet& jets) const {
  Context& ctx = tape.context();
  const Tensor extra = jets.scalars.defined() ? jets.scalars : ctx.host().empty({jets.fourmomenta.dim(0), 0}, dtype_);
  const Embedding embedded = embed_jets(ctx, embedding_, jets.fourmomenta, extra, jets.ptr, dtype_),
                  e = embedded.on(ctx);
  Var momenta = tape.constant(in_network_units(ctx, embedded, dtype_)),
      scalars = concat({tape.constant(e.scalars), tape.constant(e.tagging_features)});
  Tensor ptr = e.ptr;
  if (!mean_aggregation_) {
    ptr = prepend_ptr(ctx, e.ptr);
    auto zeros = [&](int64_t rows, int64_t columns) { return tape.constant(ctx.zeros({rows, columns}, dtype_)); };
    const Var ones = tape.constant(ctx.of({jets.size(), 1}, dtype_, std::vector<double>(jets.size(), 1.0)));
    const Var flag = prepend_rows(ones, zeros(momenta.dim(0), 1), ptr);
    momenta = prepend_rows(zeros(jets.size(), 4), momenta, ptr);
    scalars = concat({prepend_rows(zeros(jets.size(), scalars.dim(1)), scalars, ptr), flag});
  }
  return {momenta.value().reshape({momenta.dim(0), 4, 1}), scalars, ptr};
}

Var EquivariantTagger::aggregate(const Var& y, const Tensor& ptr) const {
  return mean_aggregation_ ? segment_mean(y, ptr) : first_rows(y, ptr);
}

}  // namespace lightcone
