#include "models/lgatr_tagger.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "autograd/elementwise.h"
#include "autograd/geometric_algebra.h"
#include "autograd/segment.h"
#include "kernels/jet_features.h"

namespace lightcone {

namespace {

constexpr double momentum_unit = 20;  // GeV

/// The tokens' momenta in units of the network, [T, 4] as f64.
Tensor network_momenta(Context& ctx, const Embedding& e) {
  Tensor out = ctx.empty(e.fourmomenta.shape(), DType::f64);
  kernels::cast(ctx, e.fourmomenta, out);
  const bool* spurion = e.is_spurion.data<bool>();
  double* p = out.data<double>();
  for (int64_t i = 0; i < out.numel(); ++i)
    if (!spurion[i / 4]) p[i] /= momentum_unit;
  return out;
}

}  // namespace

LGATrTagger::LGATrTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding,
                         DType dtype)
    : embedding_(embedding), dtype_(dtype) {
  read_fields(model, config_, "model");
  auto derived = [](const char* name, const std::optional<int64_t>& given, int64_t value) {
    if (given && *given != value)
      fail("model", "{} is {}, but the data and the options make it {}; leave it null", name, *given, value);
  };
  static const std::vector<std::string> backends = {"xformers", "flex", "flash", "native", "varlen"};
  if (std::find(backends.begin(), backends.end(), config_.attention_backend) == backends.end())
    fail("model", "model.attention_backend has no option '{}'; all: {} (one attention serves all of them here)",
         config_.attention_backend, fmt::join(backends, ", "));
  if (const auto frames = config_.framesnet.find("type");
      frames != config_.framesnet.end() && *frames != Json("IdentityFrames"))
    fail("model", "model.framesnet is {}; L-GATr is equivariant by itself and takes only identity", frames->dump());
  if (config_.net.in_mv_channels != 1)
    fail("model", "model.net.in_mv_channels is {}, but a token has one momentum: expected 1",
         config_.net.in_mv_channels);
  const auto features =
      embedding_.tagging_features
          ? kernels::num_tagging_features(kernels::tagging_features_from(*embedding_.tagging_features))
          : 0;
  const int64_t in_scalars = features + task.extra_scalars + !config_.mean_aggregation;
  derived("model.net.in_s_channels", config_.net.in_s_channels, in_scalars);
  derived("model.out_channels", config_.out_channels, task.num_outputs);
  derived("model.net.out_mv_channels", config_.net.out_mv_channels, task.num_outputs);
  config_.net.in_s_channels = in_scalars;
  config_.net.out_mv_channels = task.num_outputs;
  embedding_.boost_jet = false;  // the network sees spurions, and is equivariant under boosts of everything together
  net_ = std::make_unique<LGATr>(ctx, config_.net, dtype);
  add("net", *net_);
}

Var LGATrTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  Context& ctx = tape.context();
  tape.set_amp(config_.use_amp);
  const Tensor extra = jets.scalars.defined() ? jets.scalars : ctx.empty({jets.fourmomenta.dim(0), 0}, dtype_);
  const Embedding e = embed_jets(ctx, embedding_, jets.fourmomenta, extra, jets.ptr, dtype_);
  Var momenta = cast(tape.constant(network_momenta(ctx, e)), dtype_);
  Var scalars = concat({tape.constant(e.scalars), tape.constant(e.tagging_features)});
  Tensor ptr = e.ptr;
  if (!config_.mean_aggregation) {
    ptr = prepend_ptr(ctx, e.ptr);
    auto zeros = [&](int64_t rows, int64_t columns) { return tape.constant(ctx.zeros({rows, columns}, dtype_)); };
    const Var token = tape.constant(ctx.of({jets.size(), 1}, dtype_, std::vector<double>(jets.size(), 1.0)));
    const Var flag = prepend_rows(token, zeros(momenta.dim(0), 1), ptr);
    momenta = prepend_rows(zeros(jets.size(), 4), momenta, ptr);
    scalars = concat({prepend_rows(zeros(jets.size(), scalars.dim(1)), scalars, ptr), flag});
  }
  const Var vectors = tape.constant(momenta.value().reshape({momenta.dim(0), 4, 1}));
  const Multivectors x = {embed(vectors, Blades::vector), scalars.dim(1) ? scalars : Var{}};
  if (intermediates) {
    (*intermediates)["net_in/multivectors"] = extract(x.mv, Blades::multivector).value();
    (*intermediates)["net_in/scalars"] = scalars.value();
  }
  const Var y = scalar_part((*net_)(x, ptr).mv);
  return config_.mean_aggregation ? segment_mean(y, ptr) : first_rows(y, ptr);
}

}  // namespace lightcone
