#include "models/lgatr_slim_tagger.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "autograd/segment.h"
#include "kernels/elementwise.h"
#include "kernels/jet_features.h"

namespace lightcone {

namespace {

/// Momenta in units of 20 GeV, spurions as they are, in the network's dtype: [T, 4].
Tensor scaled_momenta(Context& ctx, const Embedding& e, DType dtype) {
  Tensor wide = ctx.empty(e.fourmomenta.shape(), DType::f64), out = ctx.empty(e.fourmomenta.shape(), dtype);
  kernels::cast(ctx, e.fourmomenta, wide);
  const bool* is_spurion = e.is_spurion.data<bool>();
  double* p = wide.data<double>();
  for (int64_t t = 0; t < wide.dim(0); ++t, p += 4)
    if (!is_spurion[t]) std::transform(p, p + 4, p, [](double x) { return x / 20; });
  kernels::cast(ctx, wide, out);
  return out;
}

}  // namespace

LGATrSlimTagger::LGATrSlimTagger(Context& ctx, const Json& model, const TaggingTask& task,
                                 const EmbeddingConfig& embedding, DType dtype)
    : embedding_(embedding), dtype_(dtype) {
  read_fields(model, config_, "model");
  static const std::vector<std::string> backends = {"xformers", "flex", "flash", "native", "varlen"};
  if (std::find(backends.begin(), backends.end(), config_.attention_backend) == backends.end())
    fail("model", "model.attention_backend has no option '{}'; all: {} (one attention serves all of them here)",
         config_.attention_backend, fmt::join(backends, ", "));
  if (const auto frames = config_.framesnet.find("type");
      frames != config_.framesnet.end() && *frames != Json("IdentityFrames"))
    fail("model", "model.framesnet is {}; L-GATr-slim is equivariant by itself and takes only identity",
         frames->dump());
  auto derive = [](const char* name, std::optional<int64_t>& given, int64_t value) {
    if (given && *given != value)
      fail("model", "{} is {}, but the data and the options make it {}; leave it null", name, *given, value);
    given = value;
  };
  embedding_.boost_jet = false;  // changes nothing: the network is equivariant
  embedding_.validate();
  const auto features =
      embedding_.tagging_features
          ? kernels::num_tagging_features(kernels::tagging_features_from(*embedding_.tagging_features))
          : 0;
  derive("model.net.in_v_channels", config_.net.in_v_channels, 1);
  derive("model.net.in_s_channels", config_.net.in_s_channels,
         task.extra_scalars + features + !config_.mean_aggregation);
  derive("model.net.out_v_channels", config_.net.out_v_channels, 0);
  derive("model.net.out_s_channels", config_.net.out_s_channels, task.num_outputs);
  derive("model.out_channels", config_.out_channels, task.num_outputs);
  net_ = std::make_unique<LGATrSlim>(ctx, config_.net, dtype);
  add("net", *net_);
}

Var LGATrSlimTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  Context& ctx = tape.context();
  tape.set_amp(config_.use_amp);
  const Tensor scalars = jets.scalars.defined() ? jets.scalars : ctx.empty({jets.fourmomenta.dim(0), 0}, dtype_);
  const Embedding e = embed_jets(ctx, embedding_, jets.fourmomenta, scalars, jets.ptr, dtype_);
  Var v = tape.constant(scaled_momenta(ctx, e, dtype_));
  Var s = concat({tape.constant(e.scalars), tape.constant(e.tagging_features)});
  Tensor ptr = e.ptr;
  if (!config_.mean_aggregation) {
    ptr = prepend_ptr(ctx, e.ptr);
    auto zeros = [&](int64_t rows, int64_t columns) { return tape.constant(ctx.zeros({rows, columns}, dtype_)); };
    const Var ones = tape.constant(ctx.of({jets.size(), 1}, dtype_, std::vector<double>(jets.size(), 1.0)));
    const Var flag = prepend_rows(ones, zeros(v.dim(0), 1), ptr);
    v = prepend_rows(zeros(jets.size(), 4), v, ptr);
    s = concat({prepend_rows(zeros(jets.size(), s.dim(1)), s, ptr), flag});
  }
  v = tape.constant(v.value().reshape({v.dim(0), 4, 1}));
  if (intermediates) (*intermediates)["net_in/vectors"] = v.value(), (*intermediates)["net_in/scalars"] = s.value();
  const Var y = (*net_)({v, s}, ptr).scalars;
  return config_.mean_aggregation ? segment_mean(y, ptr) : first_rows(y, ptr);
}

}  // namespace lightcone
