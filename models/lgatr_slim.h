#pragma once
#include "models/lgatr_slim_layers.h"

namespace lightcone {

/// Options of L-GATr-slim, named as in the reference's configuration.
struct LGATrSlimConfig {
  std::string type = "LGATrSlim";
  std::optional<int64_t> in_v_channels, in_s_channels, out_v_channels, out_s_channels;  ///< a tagger derives them
  int64_t hidden_v_channels = 32, hidden_s_channels = 96;
  int64_t num_blocks = 12;
  int64_t num_heads = 8;
  std::string nonlinearity = "gelu";  ///< of the gates: relu, sigmoid, tanh, gelu or silu
  int64_t mlp_ratio = 2;              ///< hidden width of the MLP, in units of the width
  int64_t attn_ratio = 1;             ///< width of q, k, v, in units of the width
  int64_t num_layers_mlp = 2;
  std::optional<double> dropout_prob;
  bool checkpoint_blocks =
      false;             ///< recompute each block's activations in the backward pass: less memory, one more forward
  bool compile = false;  ///< of the reference, as the next two; nothing to compile here
  std::string compile_mode = "default";
  bool compile_dynamic = true;
  void fields(auto& f) {
    f("type", type), f("in_v_channels", in_v_channels), f("in_s_channels", in_s_channels);
    f("out_v_channels", out_v_channels), f("out_s_channels", out_s_channels);
    f("hidden_v_channels", hidden_v_channels), f("hidden_s_channels", hidden_s_channels);
    f("num_blocks", num_blocks), f("num_heads", num_heads), f("nonlinearity", nonlinearity);
    f("mlp_ratio", mlp_ratio), f("attn_ratio", attn_ratio), f("num_layers_mlp", num_layers_mlp);
    f("dropout_prob", dropout_prob), f("checkpoint_blocks", checkpoint_blocks);
    f("compile", compile), f("compile_mode", compile_mode), f("compile_dynamic", compile_dynamic);
  }
};

/// The Lorentz-equivariant Transformer L-GATr-slim on the ragged tokens of many jets (Petitjean, Plehn, Spinner, Köthe,
/// arXiv:2512.17011):
///
///     h = linear_in(x);   h += attention(norm(h));   h += mlp(norm(h));   y = linear_out(h)
///
/// for vectors and scalars side by side; they mix in norms, in the scores of attention and in the gates' arguments.
/// Where out_v_channels is 0, the last MLP leaves vectors out, and y.vectors is Var{}.
class LGATrSlim : public Module {
 public:
  /// Throws Error naming the option if a size is not positive (those of inputs and outputs may be 0) or an option
  /// unknown.
  LGATrSlim(Context& ctx, const LGATrSlimConfig& config, DType dtype);
  ~LGATrSlim() override;
  /// Vectors [T, 4, in_v_channels], scalars [T, in_s_channels], ptr [B+1] i32 row offsets of the jets.
  LorentzVar operator()(const LorentzVar& x, const Tensor& ptr);

 private:
  struct Block;
  LGATrSlimConfig config_;
  slim::Linear linear_in_;
  std::vector<std::unique_ptr<Block>> blocks_;
  slim::Linear linear_out_;
};

/// The same with cross-attention to the tokens of a condition in each block, between attention and MLP.
class ConditionalLGATrSlim : public Module {
 public:
  ConditionalLGATrSlim(Context& ctx, const LGATrSlimConfig& config, slim::Channels condition, DType dtype);
  ~ConditionalLGATrSlim() override;
  LorentzVar operator()(const LorentzVar& x, const Tensor& ptr, const LorentzVar& condition,
                        const Tensor& condition_ptr);

 private:
  struct Block;
  LGATrSlimConfig config_;
  slim::Linear linear_in_;
  std::vector<std::unique_ptr<Block>> blocks_;
  slim::Linear linear_out_;
};

}  // namespace lightcone
