#include "models/lgatr_slim_layers.h"

#include <cmath>

#include "autograd/attention.h"
#include "autograd/gated_mlp.h"
#include "autograd/gated_unit.h"
#include "autograd/heads_projection.h"
#include "autograd/matmul.h"
#include "autograd/random.h"

namespace lightcone::slim {

Linear::Linear(Context& ctx, Channels in, Channels out, DType dtype, double factor)
    : linear_s(ctx, in.scalars, out.scalars, dtype) {
  auto bound = [factor](int64_t n) { return factor / std::sqrt(static_cast<double>(std::max<int64_t>(n, 1))); };
  weight_v.value = uniform_init(ctx, {out.vectors, in.vectors}, dtype, bound(in.vectors));
  if (factor != 1) linear_s.weight.value = uniform_init(ctx, {out.scalars, in.scalars}, dtype, bound(in.scalars));
  add("weight_v", weight_v);
  add("linear_s", linear_s);
}

LorentzVar Linear::operator()(const LorentzVar& x) {
  Tape& tape = x.scalars.tape();
  const bool vectors = x.vectors.value().defined() && weight_v.value.dim(0) > 0;
  return {vectors ? linear(x.vectors, tape.parameter(weight_v), Var{}) : Var{}, linear_s(x.scalars)};
}

LorentzVar Linear::residual(const LorentzVar& x, const LorentzVar& r) {
  Tape& tape = x.scalars.tape();
  return {linear_residual(x.vectors, tape.parameter(weight_v), Var{}, r.vectors),
          linear_s.residual(x.scalars, r.scalars)};
}

Unary nonlinearity(const std::string& name) {
  for (const auto& [known, f] : std::initializer_list<std::pair<const char*, Unary>>{{"relu", Unary::relu},
                                                                                     {"sigmoid", Unary::sigmoid},
                                                                                     {"tanh", Unary::tanh},
                                                                                     {"gelu", Unary::gelu},
                                                                                     {"silu", Unary::silu}})
    if (name == known) return f;
  fail("LGATrSlim", "nonlinearity has no option '{}'; all: relu, sigmoid, tanh, gelu, silu", name);
}

LorentzVar dropout(const LorentzVar& x, double p) {
  Tape& tape = x.scalars.tape();
  if (p == 0 || !tape.training()) return x;
  LorentzVar y{{}, lightcone::dropout(x.scalars, p)};
  if (x.vectors.value().defined()) {
    const Tensor& v = x.vectors.value();
    const Shape channels{v.dim(0), v.dim(2)};
    const std::vector<double> ones(channels.numel(), 1.0);
    const Var kept = lightcone::dropout(tape.constant(tape.context().of(channels, v.dtype(), ones)), p);
    y.vectors = multiply(x.vectors, tape.constant(concat({kept, kept, kept, kept}).value().reshape(v.shape())));
  }
  return y;
}

namespace {

LorentzVar sum(const LorentzVar& a, const LorentzVar& b) {
  return {b.vectors.value().defined() ? lightcone::add(a.vectors, b.vectors) : Var{},
          lightcone::add(a.scalars, b.scalars)};
}

Channels times(int64_t factor, Channels c) { return {factor * c.vectors, factor * c.scalars}; }

/// The references' rows run (which, channel, head), ours (which, head, channel), so that attention reads whole heads.
void order_heads(Linear& linear, int64_t which, int64_t heads, Channels head) {
  auto rows = [&](int64_t channels) {
    std::vector<int64_t> out;
    for (int64_t w = 0; w < which; ++w)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t h = 0; h < heads; ++h) out.push_back((w * heads + h) * channels + c);
    return out;
  };
  linear.weight_v.rows = rows(head.vectors);
  linear.linear_s.weight.rows = linear.linear_s.bias.rows = rows(head.scalars);
}

ProjectionWeights weights(Tape& tape, Linear& linear) {
  return {tape.parameter(linear.weight_v), tape.parameter(linear.linear_s.weight),
          tape.parameter(linear.linear_s.bias)};
}

/// `which` times the heads, normalised each for itself; those of keys lowered.
Var to_heads(const LorentzVar& x, Linear& linear, HeadGroups groups, bool normalise) {
  Tape& tape = x.scalars.tape();
  return project_to_heads(
      x, weights(tape, linear),
      {.groups = groups, .normalise = normalise, .eps = norm_eps, .result = tape.factors(x.scalars.dtype())});
}

/// The heads' results to the width of x, and added to it.
LorentzVar from_heads(const Var& mixed, Linear& linear, const LorentzVar& x, double p) {
  Tape& tape = mixed.tape();
  const bool drops = p > 0 && tape.training();
  const LorentzVar y = project_from_heads(mixed, weights(tape, linear), drops ? LorentzVar{} : x);
  return drops ? sum(x, dropout(y, p)) : y;
}

Buffer metric(Context& ctx, DType dtype) { return {ctx.of({4}, dtype, std::vector<double>{1, -1, -1, -1})}; }

}  // namespace

SelfAttention::SelfAttention(Context& ctx, const BlockOptions& o, DType dtype)
    : options_(o),
      linear_in_(ctx, o.channels, times(3 * o.num_heads, o.head()), dtype, 0.1),
      linear_out_(ctx, times(o.num_heads, o.head()), o.channels, dtype, 0.1),
      metric_(metric(ctx, dtype)) {
  order_heads(linear_in_, 3, o.num_heads, o.head());
  add("metric", metric_);
  add("linear_in", linear_in_);
  add("linear_out", linear_out_);
}

LorentzVar SelfAttention::operator()(const LorentzVar& x, const Tensor& ptr) {
  const int64_t H = options_.num_heads;
  const Var qkv = to_heads(x, linear_in_, {.count = 3 * H, .lowered_begin = H, .lowered_end = 2 * H}, true);
  return from_heads(attention({{qkv, Layout::heads}}, ptr, {.heads = H})[0], linear_out_, x, options_.dropout());
}

CrossAttention::CrossAttention(Context& ctx, const BlockOptions& o, Channels condition, DType dtype)
    : options_(o),
      linear_in_q_(ctx, o.channels, times(o.num_heads, o.head()), dtype, 0.1),
      linear_in_kv_(ctx, condition, times(2 * o.num_heads, o.head()), dtype, 0.1),
      linear_out_(ctx, times(o.num_heads, o.head()), o.channels, dtype, 0.1),
      metric_(metric(ctx, dtype)) {
  order_heads(linear_in_q_, 1, o.num_heads, o.head());
  order_heads(linear_in_kv_, 2, o.num_heads, o.head());
  add("metric", metric_);
  add("linear_in_q", linear_in_q_);
  add("linear_in_kv", linear_in_kv_);
  add("linear_out", linear_out_);
}

LorentzVar CrossAttention::operator()(const LorentzVar& x, const Tensor& ptr, const LorentzVar& condition,
                                      const Tensor& condition_ptr) {
  const int64_t H = options_.num_heads;
  const Var q = to_heads(x, linear_in_q_, {.count = H}, true),
            kv = to_heads(condition, linear_in_kv_, {.count = 2 * H, .lowered_begin = 0, .lowered_end = H}, false);
  return from_heads(cross_attention({{q, kv, Layout::heads}}, ptr, condition_ptr, {.heads = H})[0], linear_out_, x,
                    options_.dropout());
}

Mlp::Mlp(Context& ctx, const BlockOptions& o, DType dtype) : options_(o) {
  // torch.nn.ModuleList(unit, Dropout, unit, Dropout, …, linear map), where there is dropout.
  int64_t index = 0;
  auto name = [&] {
    const int64_t here = index;
    index += o.dropout_prob ? 2 : 1;
    return "layers." + std::to_string(here);
  };
  const Channels hidden = times(o.mlp_ratio, o.channels);
  for (int64_t layer = 0; layer + 1 < o.num_layers_mlp; ++layer) {
    units_.push_back(std::make_unique<Unit>(ctx, layer == 0 ? o.channels : hidden,
                                            Channels{3 * hidden.vectors, 2 * hidden.scalars}, dtype));
    add(name(), *units_.back());
  }
  add(name(), *(last_ = std::make_unique<Linear>(ctx, hidden, o.channels, dtype)));
}

LorentzVar Mlp::operator()(const LorentzVar& x, bool with_vectors) {
  Tape& tape = x.scalars.tape();
  const double p = tape.training() ? options_.dropout() : 0;
  if (p == 0 && units_.size() == 1) {
    Linear &up = units_[0]->linear, &down = *last_;
    auto of_vectors = [&](Linear& l) { return with_vectors ? tape.parameter(l.weight_v) : Var{}; };
    return gated_mlp(x,
                     {.up_v = of_vectors(up),
                      .down_v = of_vectors(down),
                      .up_s = tape.parameter(up.linear_s.weight),
                      .up_bias = tape.parameter(up.linear_s.bias),
                      .down_s = tape.parameter(down.linear_s.weight),
                      .down_bias = tape.parameter(down.linear_s.bias)},
                     norm_eps, options_.nonlinearity);
  }
  LorentzVar h = lorentz_norm(x, norm_eps);
  if (!with_vectors) h.vectors = Var{};
  for (auto& unit : units_) {
    h = unit->linear(h);
    auto gated = [&](const Var& v) { return v.value().defined() ? gated_unit(v, options_.nonlinearity) : Var{}; };
    h = dropout({gated(h.vectors), gated(h.scalars)}, p);
  }
  return p == 0 && with_vectors ? last_->residual(h, x) : sum(x, (*last_)(h));
}

}  // namespace lightcone::slim
