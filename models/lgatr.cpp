#include "models/lgatr.h"

#include <functional>

#include "autograd/attention.h"
#include "autograd/checkpoint.h"
#include "autograd/elementwise.h"
#include "autograd/geometric_algebra.h"
#include "autograd/norm.h"
#include "autograd/random.h"

namespace lightcone {

namespace {

void between(const std::string& name, int64_t value, int64_t least, int64_t most = 100'000) {
  if (value < least || value > most)
    fail("LGATr", "{} is {}, expected a number from {} to {}", name, value, least, most);
}

void check_attention(const std::string& name, const LGATrAttentionConfig& a) {
  between(name + ".num_heads", a.num_heads, 1, 1000);
  between(name + ".increase_hidden_channels", a.increase_hidden_channels, 1, 1000);
}

const LGATrConfig& checked(const LGATrConfig& c) {
  between("in_mv_channels", c.in_mv_channels, 1);
  between("in_s_channels", c.in_s_channels.value_or(0), 0);
  between("out_mv_channels", c.out_mv_channels.value_or(0), 1);
  between("out_s_channels", c.out_s_channels.value_or(0), 0);
  between("hidden_mv_channels", c.hidden_mv_channels, 1);
  between("hidden_s_channels", c.hidden_s_channels, 1);
  between("num_blocks", c.num_blocks, 1);
  check_attention("attention", c.attention);
  between("mlp.increase_hidden_channels", c.mlp.increase_hidden_channels, 1, 1000);
  between("mlp.num_hidden_layers", c.mlp.num_hidden_layers, 0, 1000);
  if (c.dropout_prob && !(*c.dropout_prob >= 0 && *c.dropout_prob < 1))
    fail("LGATr", "dropout_prob is {}, expected a number in [0, 1)", *c.dropout_prob);
  return c;
}

/// The activation for multivectors and that for scalars, whose gelu is the exact one.
struct Activation {
  Gate gate;
  Unary unary;
};
Activation activation(const std::string& name) {
  if (name == "gelu") return {Gate::gelu, Unary::gelu};
  if (name == "relu") return {Gate::relu, Unary::relu};
  if (name == "sigmoid") return {Gate::sigmoid, Unary::sigmoid};
  if (name == "silu") return {Gate::silu, Unary::silu};
  fail("LGATr", "mlp.activation has no option '{}'; all: gelu, relu, sigmoid, silu", name);
}

/// What products alone read, in their dtype.
DType factors(const Multivectors& x) { return x.mv.tape().factors(x.mv.dtype()); }

Multivectors norm(const Multivectors& x, DType result) {
  return {equi_norm(x.mv, 0, 0.01, result), layer_norm(x.s, 1e-5, result)};
}

Multivectors dropout(const Multivectors& x, double p) { return {grade_dropout(x.mv, p), dropout(x.s, p)}; }

Multivectors sum(const Multivectors& a, const Multivectors& b) { return {add(a.mv, b.mv), add(a.s, b.s)}; }

EquiChannels head_channels(const LGATrConfig& c, const LGATrAttentionConfig& a) {
  return {std::max<int64_t>(1, a.increase_hidden_channels * c.hidden_mv_channels / a.num_heads),
          std::max<int64_t>(4, a.increase_hidden_channels * c.hidden_s_channels / a.num_heads)};
}

/// One factor for each head, if asked for.
Parameter head_scales(Context& ctx, const LGATrAttentionConfig& a, DType dtype) {
  if (!a.head_scale) return {};
  return {.value = ctx.of({a.num_heads}, dtype, std::vector<double>(a.num_heads, 1.0)), .grad = {}, .rows = {}};
}

/// The heads' results to the width of the network, plus `residual` if given.
Multivectors join_heads(const std::vector<Var>& mixed, EquiLinear& linear, Parameter& head_scale,
                        const EquiChannels& head, const Multivectors& residual) {
  Tape& tape = mixed[0].tape();
  return linear({mixed[0], mixed[1]}, {.layout = {.in_group = head.mv},
                                       .head_scale = head_scale.value.defined() ? tape.parameter(head_scale) : Var{},
                                       .residual = residual.mv,
                                       .residual_s = residual.s});
}

struct Attention : Module {
  int64_t heads, kv_heads;
  EquiChannels head;  ///< channels of one head
  struct QKV : Module {
    std::vector<std::unique_ptr<EquiLinear>> maps;  ///< one for q, k and v, or one each
    using Module::add;
  } qkv_module;
  EquiLinear out_linear;
  Parameter head_scale;

  Attention(Context& ctx, const LGATrConfig& c, DType dtype)
      : heads(c.attention.num_heads),
        kv_heads(c.attention.multi_query ? 1 : heads),
        head(head_channels(c, c.attention)),
        out_linear(ctx, {head.mv * heads, *head.s * heads}, {c.hidden_mv_channels, c.hidden_s_channels}, dtype,
                   c.use_fully_connected_subgroup, EquiInit::small),
        head_scale(head_scales(ctx, c.attention, dtype)) {
    auto map = [&](const char* name, int64_t parts, int64_t heads) {
      auto linear = std::make_unique<EquiLinear>(ctx, EquiChannels{c.hidden_mv_channels, c.hidden_s_channels},
                                                 EquiChannels{parts * heads * head.mv, parts * heads * *head.s}, dtype,
                                                 c.use_fully_connected_subgroup);
      linear->order_heads(parts, heads, head);
      qkv_module.add(name, *linear);
      qkv_module.maps.push_back(std::move(linear));
    };
    if (c.attention.multi_query)
      map("q_linear", 1, heads), map("k_linear", 1, 1), map("v_linear", 1, 1);
    else
      map("in_linear", 3, heads);
    add("qkv_module", qkv_module);
    add("out_linear", out_linear);
    if (c.attention.head_scale) add("head_scale", head_scale);
  }

  /// The attention's result for normed x, plus `residual` if given.
  Multivectors operator()(const Multivectors& x, const Tensor& ptr, const Multivectors& residual) {
    Tape& tape = x.mv.tape();
    std::vector<EquiLinearParameters> maps;
    for (auto& map : qkv_module.maps) maps.push_back(map->parameters(tape));
    const Multivectors qkv = equi_linear(x, maps, {.layout = {.out_group = head.mv, .negated = heads * head.mv}});
    const DType result = factors(qkv);
    const std::vector<Var> mixed =
        attention({{equi_norm(qkv.mv, head.mv, 0.01, result), Layout::multivectors, kernels::multivector_signs},
                   {group_norm(qkv.s, *head.s, 1e-5, result)}},
                  ptr, {.heads = heads, .kv_heads = kv_heads});
    return join_heads(mixed, out_linear, head_scale, head, residual);
  }
};

/// From tokens to those of a condition; queries, keys and values are not normalised.
struct CrossAttention : Module {
  int64_t heads, kv_heads;
  EquiChannels head;
  EquiLinear q_linear, kv_linear, out_linear;
  Parameter head_scale;

  CrossAttention(Context& ctx, const LGATrConfig& c, const LGATrAttentionConfig& a, EquiChannels condition, DType dtype)
      : heads(a.num_heads),
        kv_heads(a.multi_query ? 1 : heads),
        head(head_channels(c, a)),
        q_linear(ctx, {c.hidden_mv_channels, c.hidden_s_channels}, {heads * head.mv, heads * *head.s}, dtype,
                 c.use_fully_connected_subgroup),
        kv_linear(ctx, condition, {2 * kv_heads * head.mv, 2 * kv_heads * *head.s}, dtype,
                  c.use_fully_connected_subgroup),
        out_linear(ctx, {head.mv * heads, *head.s * heads}, {c.hidden_mv_channels, c.hidden_s_channels}, dtype,
                   c.use_fully_connected_subgroup, EquiInit::small),
        head_scale(head_scales(ctx, a, dtype)) {
    q_linear.order_heads(1, heads, head);
    kv_linear.order_heads(2, kv_heads, head);
    add("q_linear", q_linear);
    add("kv_linear", kv_linear);
    add("out_linear", out_linear);
    if (a.head_scale) add("head_scale", head_scale);
  }

  /// For x and a condition that are normed, plus `residual` if given.
  Multivectors operator()(const Multivectors& x, const Tensor& ptr, const Multivectors& condition,
                          const Tensor& condition_ptr, const Multivectors& residual) {
    const Multivectors q = q_linear(x, {.layout = {.out_group = head.mv, .negated = heads * head.mv}}),
                       kv = kv_linear(condition, {.layout = {.out_group = head.mv}});
    const auto mixed = cross_attention({{q.mv, kv.mv, Layout::multivectors, kernels::multivector_signs}, {q.s, kv.s}},
                                       ptr, condition_ptr, {.heads = heads, .kv_heads = kv_heads});
    return join_heads(mixed, out_linear, head_scale, head, residual);
  }
};

// The product of two maps, a map of it, a norm.
struct GeometricBilinear : Module {
  EquiLinear linear_left, linear_right, linear_out;
  GeometricBilinear(Context& ctx, EquiChannels in, EquiChannels out, DType dtype, bool duals)
      : linear_left(ctx, in, {out.mv, {}}, dtype, duals),
        linear_right(ctx, in, {out.mv, {}}, dtype, duals, EquiInit::almost_unit_scalar),
        linear_out(ctx, {out.mv, in.s}, out, dtype, duals) {
    add("linear_left", linear_left);
    add("linear_right", linear_right);
    add("linear_out", linear_out);
  }
  Multivectors operator()(const Multivectors& x) {
    Tape& tape = x.mv.tape();
    const Var sides = equi_linear(x, {linear_left.parameters(tape), linear_right.parameters(tape)},
                                  {.layout = {.out_group = linear_left.weight.value.dim(0)}})
                          .mv;
    const Multivectors y = linear_out({geometric_product(sides, tape.factors(sides.dtype())), x.s});
    return norm(y, y.mv.dtype());
  }
};

// torch.nn.ModuleList(bilinear, [dropout], then gate, linear map, [dropout] for each further layer).
struct Mlp : Module {
  GeometricBilinear bilinear;
  std::vector<std::unique_ptr<EquiLinear>> linears;
  Activation f;
  double p;
  static EquiChannels width(const LGATrConfig& c, bool hidden) {
    const int64_t factor = hidden ? c.mlp.increase_hidden_channels : 1;
    return {factor * c.hidden_mv_channels, factor * c.hidden_s_channels};
  }
  Mlp(Context& ctx, const LGATrConfig& c, DType dtype)
      : bilinear(ctx, width(c, false), width(c, c.mlp.num_hidden_layers > 0), dtype, c.use_fully_connected_subgroup),
        f(activation(c.mlp.activation)),
        p(c.dropout_prob.value_or(0)) {
    add("layers.0", bilinear);
    const int64_t layers = c.mlp.num_hidden_layers, drop = c.dropout_prob ? 1 : 0;
    for (int64_t i = 0; i < layers; ++i) {
      linears.push_back(std::make_unique<EquiLinear>(ctx, width(c, true), width(c, i + 1 < layers), dtype,
                                                     c.use_fully_connected_subgroup));
      add("layers." + std::to_string(1 + drop + i * (2 + drop) + 1), *linears.back());
    }
  }
  /// residual + the MLP of normed x.
  Multivectors operator()(const Multivectors& x, const Multivectors& residual) {
    Multivectors h = dropout(bilinear(x), p);
    for (size_t i = 0; i < linears.size(); ++i) {
      const DType result = factors(h);
      Var s = unary(f.unary, h.s);
      if (result != s.dtype()) s = cast(s, result);
      const Multivectors active = {gated(h.mv, f.gate, result), s};
      if (p == 0 && i + 1 == linears.size())
        return (*linears[i])(active, {.residual = residual.mv, .residual_s = residual.s});
      h = dropout((*linears[i])(active), p);
    }
    return sum(residual, h);
  }
};

/// h + attention of normed h.
Multivectors attend(Attention& attention, const Multivectors& h, const Tensor& ptr, double p) {
  const Multivectors normed = norm(h, factors(h));
  return p == 0 ? attention(normed, ptr, h) : sum(h, dropout(attention(normed, ptr, {}), p));
}

/// block(h, condition…), perhaps without keeping what it computes on the way.
Multivectors run_block(bool checkpointed, const std::vector<Var>& in,
                       const std::function<Multivectors(const std::vector<Var>&)>& block) {
  if (!checkpointed) return block(in);
  const auto y = checkpoint(in, [block](const std::vector<Var>& in) {
    const Multivectors out = block(in);
    return std::vector{out.mv, out.s};
  });
  return {y[0], y[1]};
}

}  // namespace

struct LGATr::Block : Module {
  Attention attention;
  Mlp mlp;
  Block(Context& ctx, const LGATrConfig& c, DType dtype) : attention(ctx, c, dtype), mlp(ctx, c, dtype) {
    add("attention", attention);
    add("mlp", mlp);
  }
  Multivectors operator()(const Multivectors& h, const Tensor& ptr, double p) {
    const Multivectors h1 = attend(attention, h, ptr, p);
    return mlp(norm(h1, factors(h1)), h1);
  }
};

LGATr::LGATr(Context& ctx, const LGATrConfig& config, DType dtype)
    : config_(checked(config)),
      linear_in_(ctx, {config.in_mv_channels, config.in_s_channels},
                 {config.hidden_mv_channels, config.hidden_s_channels}, dtype, config.use_fully_connected_subgroup),
      linear_out_(ctx, {config.hidden_mv_channels, config.hidden_s_channels},
                  {*config.out_mv_channels, config.out_s_channels}, dtype, config.use_fully_connected_subgroup) {
  add("linear_in", linear_in_);
  for (int64_t b = 0; b < config.num_blocks; ++b) {
    blocks_.push_back(std::make_unique<Block>(ctx, config, dtype));
    add("blocks." + std::to_string(b), *blocks_.back());
  }
  add("linear_out", linear_out_);
}

LGATr::~LGATr() = default;

Multivectors LGATr::operator()(const Multivectors& x, const Tensor& ptr) {
  Multivectors h = linear_in_(x);
  const double p = config_.dropout_prob.value_or(0);
  for (auto& block : blocks_) {
    h = run_block(config_.checkpoint_blocks, {h.mv, h.s}, [&block = *block, ptr, p](const std::vector<Var>& in) {
      return block({in[0], in[1]}, ptr, p);
    });
  }
  return linear_out_(h);
}

struct ConditionalLGATr::Block : Module {
  Attention attention;
  CrossAttention crossattention;
  Mlp mlp;
  Block(Context& ctx, const LGATrConfig& c, const LGATrAttentionConfig& cross, EquiChannels condition, DType dtype)
      : attention(ctx, c, dtype), crossattention(ctx, c, cross, condition, dtype), mlp(ctx, c, dtype) {
    add("attention", attention);
    add("crossattention", crossattention);
    add("mlp", mlp);
  }
  Multivectors operator()(const Multivectors& h, const Tensor& ptr, const Multivectors& condition,
                          const Tensor& condition_ptr, double p) {
    const Multivectors h1 = attend(attention, h, ptr, p), normed = norm(h1, factors(h1)),
                       other = norm(condition, factors(condition));
    auto cross = [&](const Multivectors& residual) {
      return crossattention(normed, ptr, other, condition_ptr, residual);
    };
    const Multivectors h2 = p == 0 ? cross(h1) : sum(h1, dropout(cross({}), p));
    return mlp(norm(h2, factors(h2)), h2);
  }
};

ConditionalLGATr::ConditionalLGATr(Context& ctx, const LGATrConfig& config, const LGATrAttentionConfig& crossattention,
                                   EquiChannels condition, DType dtype)
    : config_(checked(config)),
      linear_in_(ctx, {config.in_mv_channels, config.in_s_channels},
                 {config.hidden_mv_channels, config.hidden_s_channels}, dtype, config.use_fully_connected_subgroup),
      linear_out_(ctx, {config.hidden_mv_channels, config.hidden_s_channels},
                  {*config.out_mv_channels, config.out_s_channels}, dtype, config.use_fully_connected_subgroup) {
  if (condition.mv < 1 || condition.s.value_or(0) < 1)
    fail("ConditionalLGATr", "the condition has {} multivector and {} scalar channels, expected 1 or more of both",
         condition.mv, condition.s.value_or(0));
  check_attention("crossattention", crossattention);
  add("linear_in", linear_in_);
  for (int64_t b = 0; b < config.num_blocks; ++b) {
    blocks_.push_back(std::make_unique<Block>(ctx, config, crossattention, condition, dtype));
    add("blocks." + std::to_string(b), *blocks_.back());
  }
  add("linear_out", linear_out_);
}

ConditionalLGATr::~ConditionalLGATr() = default;

Multivectors ConditionalLGATr::operator()(const Multivectors& x, const Tensor& ptr, const Multivectors& condition,
                                          const Tensor& condition_ptr) {
  Multivectors h = linear_in_(x);
  const double p = config_.dropout_prob.value_or(0);
  for (auto& block : blocks_)
    h = run_block(config_.checkpoint_blocks, {h.mv, h.s, condition.mv, condition.s},
                  [&block = *block, ptr, condition_ptr, p](const std::vector<Var>& in) {
                    return block({in[0], in[1]}, ptr, {in[2], in[3]}, condition_ptr, p);
                  });
  return linear_out_(h);
}

}  // namespace lightcone
