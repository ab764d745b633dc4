#include "models/equi_linear.h"

#include <cmath>

namespace lightcone {

namespace {

/// Uniform numbers in middle ± bound(i) from the stream "init".
template <class F>
Tensor uniform(Context& ctx, Shape shape, DType dtype, double middle, F&& bound) {
  const Draw draw = ctx.rng().draw("init", shape.numel());
  std::vector<double> values(shape.numel());
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = middle + bound(static_cast<int64_t>(i)) * (2 * draw.uniform(static_cast<int64_t>(i)) - 1);
  return ctx.of(shape, dtype, values);
}

double inverse_root(int64_t fan) { return 1 / std::sqrt(static_cast<double>(std::max<int64_t>(1, fan))); }

}  // namespace

EquiLinear::Matrix::Matrix(Tensor w, Tensor b) {
  weight.value = std::move(w);
  add("weight", weight);
  bias.value = std::move(b);
  if (bias.value.defined()) add("bias", bias);
}

EquiLinear::EquiLinear(Context& ctx, EquiChannels in, EquiChannels out, DType dtype, bool duals, EquiInit init) {
  const int64_t S = in.s.value_or(0), So = out.s.value_or(0), mix = duals ? 2 : 1, basis = duals ? 10 : 5;
  const double to_mv = init == EquiInit::small                ? 0.1
                       : init == EquiInit::almost_unit_scalar ? 0.5
                                                              : 1,
               to_s = init == EquiInit::small ? 0.1 : 1, middle = init == EquiInit::almost_unit_scalar ? 1 : 0;
  const double share = std::sqrt(0.5);  // of two that contribute the same variance
  auto draw = [&](Shape shape, double bound, double middle = 0) {
    return uniform(ctx, shape, dtype, middle, [=](int64_t) { return bound; });
  };
  auto child = [&](const char* name, std::unique_ptr<Matrix>& matrix, Tensor w, Tensor b) {
    matrix = std::make_unique<Matrix>(std::move(w), std::move(b));
    add(name, *matrix);
  };
  // The scalar component and the pseudoscalar get half of their variance from scalars.
  weight.value = uniform(ctx, {out.mv, in.mv, basis}, dtype, 0, [&](int64_t i) {
    const bool shared = S > 0 && (i % basis == 0 || (duals && i % basis == basis - 1));
    return to_mv * inverse_root(in.mv) * (shared ? share : 1);
  });
  add("weight", weight);
  if (!in.s) {
    bias.value = ctx.zeros({out.mv, 1}, dtype);
    add("bias", bias);
  }
  if (S > 0) {
    const Tensor w = draw({mix * out.mv, S}, to_mv * inverse_root(S) * share);
    child("s2mvs", s2mvs, w, draw({mix * out.mv}, inverse_root(S + in.mv), middle));
  }
  if (So > 0) {
    const double part = in.s ? share : 1;
    const Tensor w = draw({So, mix * in.mv}, to_s * inverse_root(mix * in.mv) * part);
    child("mvs2s", mvs2s, w, draw({So}, to_s * inverse_root(mix * in.mv + S)));
    if (in.s) child("s2s", s2s, draw({So, S}, to_s * inverse_root(S) * part), {});
  }
}

void EquiLinear::order_heads(int64_t parts, int64_t heads, EquiChannels c) {
  auto order = [&](int64_t channels, int64_t each) {
    std::vector<int64_t> rows;
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t i = 0; i < channels; ++i)
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t k = 0; k < each; ++k) rows.push_back(((part * heads + h) * channels + i) * each + k);
    return rows;
  };
  weight.rows = order(c.mv, 1);
  if (bias.value.defined()) bias.rows = weight.rows;
  if (s2mvs) s2mvs->weight.rows = s2mvs->bias.rows = order(c.mv, weight.value.dim(2) == 10 ? 2 : 1);
  if (mvs2s) mvs2s->weight.rows = mvs2s->bias.rows = order(c.s.value_or(0), 1);
  if (s2s) s2s->weight.rows = order(c.s.value_or(0), 1);
}

EquiLinearParameters EquiLinear::parameters(Tape& tape) {
  auto var = [&](Parameter& p) { return p.value.defined() ? tape.parameter(p) : Var{}; };
  EquiLinearParameters out{.weight = var(weight), .bias = var(bias)};
  if (s2mvs) out.s2mvs = var(s2mvs->weight), out.s2mvs_bias = var(s2mvs->bias);
  if (mvs2s) out.mvs2s = var(mvs2s->weight), out.mvs2s_bias = var(mvs2s->bias);
  if (s2s) out.s2s = var(s2s->weight);
  return out;
}

Multivectors EquiLinear::operator()(const Multivectors& x, const EquiLinearOptions& options) {
  return equi_linear(x, {parameters(x.mv.tape())}, options);
}

}  // namespace lightcone
