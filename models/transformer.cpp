#include "models/transformer.h"

#include "autograd/attention.h"
#include "autograd/checkpoint.h"
#include "autograd/elementwise.h"
#include "autograd/matmul.h"
#include "autograd/norm.h"
#include "autograd/random.h"

namespace lightcone {

namespace {

struct Widths {
  int64_t head, hidden, attention;
};

Widths widths(const TransformerConfig& c) {
  auto positive = [](const char* name, int64_t value) {
    if (value < 1 || value > 100'000) fail("Transformer", "{} is {}, expected a number from 1 to 100000", name, value);
  };
  positive("num_blocks", c.num_blocks);
  positive("num_heads", c.num_heads);
  positive("mlp_factor", c.mlp_factor);
  positive("attention_factor", c.attention_factor);
  positive("in_channels", c.in_channels.value_or(0));
  positive("out_channels", c.out_channels.value_or(0));
  if (c.dropout_prob && !(*c.dropout_prob >= 0 && *c.dropout_prob < 1))
    fail("Transformer", "dropout_prob is {}, expected a number in [0, 1)", *c.dropout_prob);
  const int64_t head = TensorReps(c.attn_reps).dim();
  positive("dim(attn_reps)", head);
  if (head * c.num_heads % c.attention_factor != 0)
    fail("Transformer", "attention_factor {} does not divide the width {} = {} heads x {} channels", c.attention_factor,
         head * c.num_heads, c.num_heads, head);
  const int64_t hidden = head * c.num_heads / c.attention_factor;
  return {head, hidden, hidden * c.attention_factor};
}

// Projections to q, k, v with the state dict of the references: "linear" for all heads at once, or "q_linear",
// "k_linear", "v_linear".
struct QKV : Module {
  std::unique_ptr<Linear> linear, q, k, v;
  QKV(Context& ctx, int64_t in, int64_t attention, int64_t heads, bool multi_query, DType dtype) {
    const int64_t head = attention / heads;
    if (multi_query) {
      add("q_linear", *(q = std::make_unique<Linear>(ctx, in, attention, dtype)));
      add("k_linear", *(k = std::make_unique<Linear>(ctx, in, head, dtype)));
      add("v_linear", *(v = std::make_unique<Linear>(ctx, in, head, dtype)));
    } else {
      add("linear", *(linear = std::make_unique<Linear>(ctx, in, 3 * attention, dtype)));
      // The references' rows run (which, channel, head), ours (which, head, channel), so that attention reads whole
      // heads.
      std::vector<int64_t> rows;
      for (int64_t which = 0; which < 3; ++which)
        for (int64_t c = 0; c < head; ++c)
          for (int64_t h = 0; h < heads; ++h) rows.push_back((which * heads + h) * head + c);
      linear->weight.rows = linear->bias.rows = rows;
    }
  }
  /// In the dtype of x.
  Var operator()(const Var& x) {
    const DType dtype = x.dtype();
    return linear ? (*linear)(x, dtype) : concat({(*q)(x, dtype), (*k)(x, dtype), (*v)(x, dtype)});
  }
};

struct Attention : Module {
  FrameTransform transform;
  QKV qkv_linear;
  Linear out_linear;
  Attention(Context& ctx, const TransformerConfig& c, const Widths& w, DType dtype)
      : transform(ctx, TensorReps(c.attn_reps)),
        qkv_linear(ctx, w.hidden, w.attention, c.num_heads, c.multi_query, dtype),
        out_linear(ctx, w.attention, w.hidden, dtype) {
    add("attention.transform", transform);
    add("qkv_linear", qkv_linear);
    add("out_linear", out_linear);
  }
};

// torch.nn.Sequential(Linear, Dropout, GELU, Linear, Dropout): the linear maps are entries 0 and 3.
struct Mlp : Module {
  Linear up, down;
  Mlp(Context& ctx, int64_t width, int64_t hidden, DType dtype)
      : up(ctx, width, hidden, dtype), down(ctx, hidden, width, dtype) {
    add("0", up);
    add("3", down);
  }
  Var operator()(const Var& x, const Var& residual) {
    auto parameter = [&](Parameter& p) { return x.tape().parameter(p); };
    return lightcone::mlp(x, parameter(up.weight), parameter(up.bias), parameter(down.weight), parameter(down.bias),
                          residual);
  }
};

}  // namespace

struct Transformer::Block : Module {
  Attention attention;
  Mlp mlp;
  Block(Context& ctx, const TransformerConfig& c, const Widths& w, DType dtype)
      : attention(ctx, c, w, dtype), mlp(ctx, w.hidden, w.hidden * c.mlp_factor, dtype) {
    add("attention", attention);
    add("mlp", mlp);
  }
  Var operator()(const Var& h, const Tensor& ptr, const LocalFrames& frames, const TransformerConfig& c) {
    const double p = c.dropout_prob.value_or(0);
    const AttentionOptions options{.heads = c.num_heads, .kv_heads = c.multi_query ? 1 : c.num_heads};
    auto normed = [](const Var& x) { return layer_norm(x, 1e-5, x.tape().factors(x.dtype())); };
    const Var mixed = lightcone::attention(attention.qkv_linear(normed(h)), ptr, options, frames);
    if (p == 0) {
      const Var h1 = attention.out_linear.residual(mixed, h);
      return mlp(normed(h1), h1);
    }
    const Var h1 = lightcone::add(h, dropout(attention.out_linear(mixed), p));
    const Var up = unary(Unary::gelu, dropout(mlp.up(normed(h1)), p));
    return lightcone::add(h1, dropout(mlp.down(up), p));
  }
};

Transformer::Transformer(Context& ctx, const TransformerConfig& config, DType dtype)
    : config_(config),
      reps_(config.attn_reps),
      transform_(ctx, TensorReps(config.attn_reps)),
      linear_in_(ctx, config.in_channels.value_or(0), widths(config).hidden, dtype),
      linear_out_(ctx, widths(config).hidden, *config.out_channels, dtype) {
  const Widths w = widths(config);
  add("attention.transform", transform_);
  add("linear_in", linear_in_);
  for (int64_t b = 0; b < config.num_blocks; ++b) {
    blocks_.push_back(std::make_unique<Block>(ctx, config, w, dtype));
    add("blocks." + std::to_string(b), *blocks_.back());
  }
  add("linear_out", linear_out_);
}

Transformer::~Transformer() = default;

Var Transformer::operator()(const Var& x, const Tensor& ptr, const Frames& frames) {
  Var h = linear_in_(x);
  // One frame for a whole jet makes no difference between its tokens, and scalars are the same in all frames.
  const bool local = !frames.is_identity() && !frames.is_global && !reps_.invariant();
  for (auto& block : blocks_) {
    auto run = [&block = *block, ptr, local, this](const std::vector<Var>& in) {
      return std::vector{block(in[0], ptr, local ? LocalFrames{in[1], reps_} : LocalFrames{}, config_)};
    };
    std::vector<Var> inputs = {h};
    if (local) inputs.push_back(frames.matrices);
    h = (config_.checkpoint_blocks ? checkpoint(inputs, run) : run(inputs))[0];
  }
  return linear_out_(h);
}

}  // namespace lightcone
