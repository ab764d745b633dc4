#include "models/lgatr_slim.h"

#include <functional>

#include "autograd/checkpoint.h"

namespace lightcone {

namespace {

using slim::Channels;

/// Checked as a whole, so that the first error names an option.
slim::BlockOptions block_options(const LGATrSlimConfig& c) {
  auto within = [](const char* name, int64_t value, int64_t least) {
    if (value < least || value > 100'000)
      fail("LGATrSlim", "{} is {}, expected a number from {} to 100000", name, value, least);
  };
  within("hidden_v_channels", c.hidden_v_channels, 1);
  within("hidden_s_channels", c.hidden_s_channels, 1);
  within("num_blocks", c.num_blocks, 1);
  within("num_heads", c.num_heads, 1);
  within("mlp_ratio", c.mlp_ratio, 1);
  within("attn_ratio", c.attn_ratio, 1);
  within("num_layers_mlp", c.num_layers_mlp, 2);
  within("in_v_channels", c.in_v_channels.value_or(-1), 0);
  within("in_s_channels", c.in_s_channels.value_or(-1), 0);
  within("out_v_channels", c.out_v_channels.value_or(-1), 0);
  within("out_s_channels", c.out_s_channels.value_or(-1), 0);
  if (c.dropout_prob && !(*c.dropout_prob >= 0 && *c.dropout_prob < 1))
    fail("LGATrSlim", "dropout_prob is {}, expected a number in [0, 1)", *c.dropout_prob);
  return {.channels = {c.hidden_v_channels, c.hidden_s_channels},
          .num_heads = c.num_heads,
          .mlp_ratio = c.mlp_ratio,
          .attn_ratio = c.attn_ratio,
          .num_layers_mlp = c.num_layers_mlp,
          .nonlinearity = slim::nonlinearity(c.nonlinearity),
          .dropout_prob = c.dropout_prob};
}

Channels inputs(const LGATrSlimConfig& c) { return {*c.in_v_channels, *c.in_s_channels}; }
Channels outputs(const LGATrSlimConfig& c) { return {*c.out_v_channels, *c.out_s_channels}; }

/// block(h), or block(h, condition), perhaps without keeping what it computes on the way.
LorentzVar run_block(bool checkpointed, const std::vector<LorentzVar>& xs,
                     const std::function<LorentzVar(const std::vector<LorentzVar>&)>& block) {
  if (!checkpointed) return block(xs);
  std::vector<Var> flat;
  for (const LorentzVar& x : xs) flat.insert(flat.end(), {x.vectors, x.scalars});
  const auto y = checkpoint(flat, [block](const std::vector<Var>& in) {
    std::vector<LorentzVar> xs;
    for (size_t i = 0; i < in.size(); i += 2) xs.push_back({in[i], in[i + 1]});
    const LorentzVar out = block(xs);
    return out.vectors.value().defined() ? std::vector{out.scalars, out.vectors} : std::vector{out.scalars};
  });
  return {y.size() > 1 ? y[1] : Var{}, y[0]};
}

}  // namespace

struct LGATrSlim::Block : Module {
  slim::SelfAttention attention;
  slim::Mlp mlp;
  Block(Context& ctx, const slim::BlockOptions& o, DType dtype) : attention(ctx, o, dtype), mlp(ctx, o, dtype) {
    add("attention", attention);
    add("mlp", mlp);
  }
};

LGATrSlim::LGATrSlim(Context& ctx, const LGATrSlimConfig& config, DType dtype)
    : config_(config),
      linear_in_(ctx, (block_options(config), inputs(config)), block_options(config).channels, dtype),
      linear_out_(ctx, block_options(config).channels, outputs(config), dtype) {
  add("linear_in", linear_in_);
  for (int64_t b = 0; b < config.num_blocks; ++b) {
    blocks_.push_back(std::make_unique<Block>(ctx, block_options(config), dtype));
    add("blocks." + std::to_string(b), *blocks_.back());
  }
  add("linear_out", linear_out_);
}

LGATrSlim::~LGATrSlim() = default;

LorentzVar LGATrSlim::operator()(const LorentzVar& x, const Tensor& ptr) {
  LorentzVar h = linear_in_(x);
  for (auto& block : blocks_) {
    const bool with_vectors = block != blocks_.back() || *config_.out_v_channels > 0;
    h = run_block(config_.checkpoint_blocks, {h}, [&block = *block, ptr, with_vectors](auto& x) {
      return block.mlp(block.attention(x[0], ptr), with_vectors);
    });
  }
  return linear_out_(h);
}

struct ConditionalLGATrSlim::Block : Module {
  slim::SelfAttention selfattention;
  slim::CrossAttention crossattention;
  slim::Mlp mlp;
  Block(Context& ctx, const slim::BlockOptions& o, Channels condition, DType dtype)
      : selfattention(ctx, o, dtype), crossattention(ctx, o, condition, dtype), mlp(ctx, o, dtype) {
    add("selfattention", selfattention);
    add("crossattention", crossattention);
    add("mlp", mlp);
  }
};

ConditionalLGATrSlim::ConditionalLGATrSlim(Context& ctx, const LGATrSlimConfig& config, Channels condition, DType dtype)
    : config_(config),
      linear_in_(ctx, (block_options(config), inputs(config)), block_options(config).channels, dtype),
      linear_out_(ctx, block_options(config).channels, outputs(config), dtype) {
  add("linear_in", linear_in_);
  for (int64_t b = 0; b < config.num_blocks; ++b) {
    blocks_.push_back(std::make_unique<Block>(ctx, block_options(config), condition, dtype));
    add("blocks." + std::to_string(b), *blocks_.back());
  }
  add("linear_out", linear_out_);
}

ConditionalLGATrSlim::~ConditionalLGATrSlim() = default;

LorentzVar ConditionalLGATrSlim::operator()(const LorentzVar& x, const Tensor& ptr, const LorentzVar& condition,
                                            const Tensor& condition_ptr) {
  LorentzVar h = linear_in_(x);
  for (auto& block : blocks_) {
    const bool with_vectors = block != blocks_.back() || *config_.out_v_channels > 0;
    h = run_block(config_.checkpoint_blocks, {h, condition},
                  [&block = *block, ptr, condition_ptr, with_vectors](auto& x) {
                    const LorentzVar mixed = block.selfattention(x[0], ptr);
                    return block.mlp(block.crossattention(mixed, ptr, x[1], condition_ptr), with_vectors);
                  });
  }
  return linear_out_(h);
}

}  // namespace lightcone
