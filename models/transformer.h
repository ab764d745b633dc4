#pragma once
#include <memory>
#include <optional>

#include "models/frame_transform.h"
#include "models/framesnet.h"
#include "models/linear.h"

namespace lightcone {

/// Options of the LLoCa Transformer, named as in the reference's configuration.
struct TransformerConfig {
  std::string type = "Transformer";
  std::optional<int64_t> in_channels, out_channels;  ///< derived from the task; not set by hand
  std::string attn_reps = "8x0n+2x1n";               ///< representation of one attention head
  int64_t num_blocks = 10;
  int64_t num_heads = 8;
  int64_t mlp_factor = 4;        ///< hidden width of the MLP, in units of the width
  int64_t attention_factor = 1;  ///< width of q, k, v, in units of the width
  bool multi_query = false;      ///< one head of keys and values for all heads of queries
  std::optional<double> dropout_prob;
  bool checkpoint_blocks =
      false;             ///< recompute each block's activations in the backward pass: less memory, one more forward
  bool compile = false;  ///< of the reference; nothing to compile here
  void fields(auto& f) {
    f("type", type), f("in_channels", in_channels), f("out_channels", out_channels), f("attn_reps", attn_reps);
    f("num_blocks", num_blocks), f("num_heads", num_heads), f("mlp_factor", mlp_factor),
        f("attention_factor", attention_factor);
    f("multi_query", multi_query), f("dropout_prob", dropout_prob), f("checkpoint_blocks", checkpoint_blocks),
        f("compile", compile);
  }
};

/// Pre-norm Transformer on the ragged tokens of many jets (LLoCa's backbone, Spinner et al., arXiv:2505.20280):
///
///     h = linear_in(x);   h += attention(norm(h));   h += mlp(norm(h));   y = linear_out(h)
///
/// attention: softmax(q k^T / sqrt(C)) v among the tokens of one jet, C the width of a head, whose features are the
/// representation attn_reps; q, k, v meet in the laboratory frame (kernels/attention.h), unless a jet has one frame for
/// all. Norm without affine
/// parameters, eps 1e-5; mlp with exact GELU; no final norm. Width = heads · dim(attn_reps) / attention_factor.
class Transformer : public Module {
 public:
  /// Throws Error naming the option if a size is not positive or the width does not divide among the heads.
  Transformer(Context& ctx, const TransformerConfig& config, DType dtype);
  ~Transformer() override;
  /// x [T, in_channels], ptr [B+1] i32 row offsets of the jets, frames in the dtype of x -> [T, out_channels].
  Var operator()(const Var& x, const Tensor& ptr, const Frames& frames = {});

 private:
  struct Block;
  TransformerConfig config_;
  TensorReps reps_;
  FrameTransform transform_;
  Linear linear_in_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Linear linear_out_;
};

}  // namespace lightcone
