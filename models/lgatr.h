#pragma once
#include <memory>
#include <optional>

#include "models/equi_linear.h"

namespace lightcone {

/// Options of L-GATr, named as in the reference's configuration.
struct LGATrAttentionConfig {
  int64_t num_heads = 8;
  bool multi_query = false;  ///< one head of keys and values for all heads of queries
  int64_t increase_hidden_channels = 1;
  bool head_scale = false;  ///< a learned factor for the result of each head
  void fields(auto& f) {
    f("num_heads", num_heads), f("multi_query", multi_query), f("increase_hidden_channels", increase_hidden_channels),
        f("head_scale", head_scale);
  }
};
struct LGATrMlpConfig {
  std::string activation = "gelu";  ///< relu, sigmoid, gelu or silu
  int64_t increase_hidden_channels = 4;
  int64_t num_hidden_layers = 1;
  void fields(auto& f) {
    f("activation", activation), f("increase_hidden_channels", increase_hidden_channels),
        f("num_hidden_layers", num_hidden_layers);
  }
};
struct LGATrConfig {
  std::string type = "LGATr";
  int64_t in_mv_channels = 1;
  std::optional<int64_t> in_s_channels;    ///< null: no scalars come in
  std::optional<int64_t> out_mv_channels;  ///< derived from the task; not set by hand
  std::optional<int64_t> out_s_channels;   ///< null: no scalars go out
  int64_t hidden_mv_channels = 16, hidden_s_channels = 32;
  int64_t num_blocks = 12;
  LGATrAttentionConfig attention;
  LGATrMlpConfig mlp;
  std::optional<double> dropout_prob;
  bool checkpoint_blocks = false;  ///< recompute each block's activations in the backward pass
  /// Maps may mix components with their duals: equivariant under proper orthochronous Lorentz transformations; false:
  /// under parity and time reversal, too.
  bool use_fully_connected_subgroup = true;
  void fields(auto& f) {
    f("type", type), f("in_mv_channels", in_mv_channels), f("in_s_channels", in_s_channels);
    f("out_mv_channels", out_mv_channels), f("out_s_channels", out_s_channels);
    f("hidden_mv_channels", hidden_mv_channels), f("hidden_s_channels", hidden_s_channels), f("num_blocks", num_blocks);
    f("attention", attention), f("mlp", mlp), f("dropout_prob", dropout_prob);
    f("checkpoint_blocks", checkpoint_blocks), f("use_fully_connected_subgroup", use_fully_connected_subgroup);
  }
};

/// L-GATr (Spinner et al., arXiv:2405.14806; Brehmer et al., arXiv:2411.00446), a pre-norm Transformer on multivectors
/// of the space-time algebra and scalars beside them:
///
///     h = linear_in(x);   h += attention(norm(h));   h += mlp(norm(h));   y = linear_out(h)
///
/// attention: norms of q, k, v per head; softmax((<q, k> + q_s k_s) / sqrt(16 c + s)) v among the tokens of one jet;
/// mlp: the geometric product of two linear maps, a linear map, a norm, then gate and linear map.
class LGATr : public Module {
 public:
  /// Throws Error naming the option if a size is not positive or an activation unknown.
  LGATr(Context& ctx, const LGATrConfig& config, DType dtype);
  ~LGATr() override;
  /// x.mv [8, T, 2 in_mv_channels] (embed() in autograd/geometric_algebra.h makes it of vectors, extract() takes them
  /// out), x.s [T, in_s_channels], ptr [B+1] i32 row offsets of the jets.
  Multivectors operator()(const Multivectors& x, const Tensor& ptr);

 private:
  struct Block;
  LGATrConfig config_;
  EquiLinear linear_in_, linear_out_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

/// The same with attention to the tokens of a condition in each block, between attention and mlp:
///
///     h += crossattention(norm(h), norm(condition))
///
/// whose queries, keys and values are not normalised for each head.
class ConditionalLGATr : public Module {
 public:
  /// `condition`: the channels of the condition, 1 or more of both kinds. Throws Error as LGATr.
  ConditionalLGATr(Context& ctx, const LGATrConfig& config, const LGATrAttentionConfig& crossattention,
                   EquiChannels condition, DType dtype);
  ~ConditionalLGATr() override;
  /// As LGATr; jet b of x looks at jet b of the condition.
  Multivectors operator()(const Multivectors& x, const Tensor& ptr, const Multivectors& condition,
                          const Tensor& condition_ptr);

 private:
  struct Block;
  LGATrConfig config_;
  EquiLinear linear_in_, linear_out_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace lightcone
