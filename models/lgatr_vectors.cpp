#include "models/lgatr_vectors.h"

#include <cmath>

#include "autograd/elementwise.h"
#include "autograd/geometric_algebra.h"
#include "autograd/matmul.h"
#include "autograd/norm.h"
#include "models/options.h"

namespace lightcone {

namespace {

/// Room for q and k of each vector, about as many channels as inside.
int64_t channels_out(const char* name, int64_t hidden, int64_t vectors) {
  if (hidden < 0 || hidden > 10'000)
    fail("model", "model.framesnet.equivectors.{} is {}, expected a number from 0 to 10000", name, hidden);
  return hidden == 0 ? 0 : 2 * vectors * std::max<int64_t>(1, hidden / (2 * vectors));
}

// Signs of components in the inner product: 1, vector, bivector, e012, e013, e023, e123, e0123.
constexpr double signs[16] = {1, 1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, -1, -1};

/// The columns of q (or k), vector by vector, from those of the network's results: [n D, 16 C + S]. Of the C channels,
/// and of the S scalars, the first half are q's; for q with signs and the scale of the product.
Tensor selection(Context& ctx, bool of_q, int64_t n, int64_t C, int64_t S, DType dtype) {
  const int64_t c = C / 2 / n, s = S / 2 / n, D = 16 * c + s, columns = 16 * C + S;
  std::vector<double> entries(n * D * columns);
  const double scale = of_q ? 1 / std::sqrt(static_cast<double>(D)) : 1;
  for (int64_t k = 0; k < n; ++k) {
    double* row = entries.data() + k * D * columns;
    for (int64_t x = 0; x < 16; ++x)
      for (int64_t i = 0; i < c; ++i, row += columns)
        row[x * C + (of_q ? 0 : C / 2) + k * c + i] = of_q ? signs[x] * scale : 1;
    for (int64_t i = 0; i < s; ++i, row += columns) row[16 * C + (of_q ? 0 : S / 2) + k * s + i] = scale;
  }
  return ctx.of({n * D, columns}, dtype, entries);
}

Var in_dtype(const Var& x, DType dtype) { return x.dtype() == dtype ? x : cast(x, dtype); }

}  // namespace

LgatrVectors::LgatrVectors(Context& ctx, const Json& options, int64_t num_vectors, int64_t num_scalars, DType dtype,
                           bool reference_behaviour) {
  read_fields(options, config_, "model.framesnet.equivectors");
  derive("model.framesnet.equivectors.n_vectors", config_.n_vectors, num_vectors);
  derive("model.framesnet.equivectors.num_scalars", config_.num_scalars, num_scalars);
  derive("model.framesnet.equivectors.net.in_s_channels", config_.net.in_s_channels, num_scalars);
  check_attention_backend(config_.attention_backend);
  if (config_.net.in_mv_channels != 1)
    fail("model", "model.framesnet.equivectors.net.in_mv_channels is {}, but a token has one momentum: expected 1",
         config_.net.in_mv_channels);
  options_ = {.operation = edge_momentum(config_.operation),
              .nonlinearity = edge_weight(config_.nonlinearity),
              .softmax_over_receivers = reference_behaviour,
              .aggregation = edge_aggregation(config_.aggr),
              .fm_norm = false,
              .layer_norm = config_.layer_norm};
  // The references' configurations write 0, or null, for what follows from the number of vectors.
  config_.net.out_mv_channels = channels_out(
      "hidden_mv_channels", config_.hidden_mv_channels.value_or(config_.net.hidden_mv_channels), num_vectors);
  config_.net.out_s_channels =
      channels_out("hidden_s_channels", config_.hidden_s_channels.value_or(config_.net.hidden_s_channels), num_vectors);
  net_ = std::make_unique<LGATr>(ctx, config_.net, dtype);
  add("net", *net_);
}

void LgatrVectors::initialise(Context& ctx) {
  const auto own = net_->parameters();
  const LGATr fresh(ctx, config_.net, own[0].item->value.dtype());
  size_t i = 0;
  for (const auto& [name, parameter] : fresh.parameters()) own[i++].item->value = parameter->value;
}

Var LgatrVectors::operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) {
  Tape& tape = fourmomenta.tape();
  const int64_t T = fourmomenta.dim(0), n = *config_.n_vectors;
  const int64_t C = *config_.net.out_mv_channels, S = *config_.net.out_s_channels;
  Multivectors y;
  {
    const AmpScope amp(tape, config_.use_amp);
    const Var p = reshape(in_dtype(fourmomenta, scalars.dtype()), {T, 4, 1});
    y = (*net_)({embed(p, Blades::vector), scalars.dim(1) ? scalars : Var{}}, ptr);
  }
  // Weights are computed in the dtype of the momenta.
  const AmpScope exact(tape, false);
  const DType dtype = fourmomenta.dtype();
  if (config_.lgatr_norm) y = {equi_norm(y.mv), S ? layer_norm(y.s) : y.s};
  std::vector<Var> parts = {reshape(extract(in_dtype(y.mv, dtype), Blades::multivector), {T, 16 * C})};
  if (S) parts.push_back(in_dtype(y.s, dtype));
  const Var row = concat(parts);
  auto select = [&](bool of_q) {
    return linear(row, tape.constant(selection(tape.context(), of_q, n, C, S, dtype)), Var{});
  };
  return pair_vectors(fourmomenta, pair_products(select(true), select(false), ptr, n), ptr, options_);
}

}  // namespace lightcone
