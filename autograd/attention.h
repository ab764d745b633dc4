#pragma once
#include <optional>

#include "autograd/tape.h"
#include "kernels/attention.h"

namespace lightcone {

using kernels::Layout;

struct AttentionOptions {
  int64_t heads = 1;
  int64_t kv_heads = 0;              ///< of keys and values; 0: as many as of queries, 1: multi-query
  std::optional<double> scale = {};  ///< of the scores; 1 / sqrt(head size summed over the segments) if not set
  double dropout = 0;                ///< of probabilities, from the stream "attention_dropout"; acts while training
};

/// Self-attention inside each jet; see kernels/attention.h. Under tape.amp() products take bf16 operands. The last axis
/// of qkv holds (heads + 2 kv_heads) head sizes: all queries, then all keys, then all values, each head's channels
/// together. y has the dtype of qkv.
///     qkv [T, (H + 2 Hk) D], y [T, H D]
Var attention(const Var& qkv, const Tensor& ptr, const AttentionOptions& options);

/// The same in local frames (kernels/attention.h): qkv and y belong to their tokens' own frames, matrices [T, 4, 4], a
/// head is a tensor representation of the Lorentz group.
struct LocalFrames {
  Var matrices;
  TensorReps reps;
};
Var attention(const Var& qkv, const Tensor& ptr, const AttentionOptions& options, const LocalFrames& frames);

/// A share of the features, in any layout of kernels/attention.h, for example
///     vectors   qkv [T, 4, (H + 2 Hk) C], y [T, 4, H C]
///     heads     qkv [H + 2 Hk, T, C],     y [H, T, C]
struct AttentionInput {
  Var qkv;
  Layout layout = Layout::scalars;
  uint32_t negative_parts = 0;  ///< kernels::minkowski_signs for four-vectors
};

/// The same with several inputs: one probability per pair from the sum of their scores, one result per input.
std::vector<Var> attention(const std::vector<AttentionInput>& inputs, const Tensor& ptr,
                           const AttentionOptions& options);

/// Queries of one set of rows to the keys and values of another, jet by jet.
///     q [Tq, H D], kv [Tk, 2 Hk D], y [Tq, H D]
Var cross_attention(const Var& q, const Var& kv, const Tensor& q_ptr, const Tensor& k_ptr,
                    const AttentionOptions& options);

/// A share of the features, as in AttentionInput: q [Tq, 4, H C], kv [Tk, 4, 2 Hk C], y [Tq, 4, H C].
struct CrossAttentionInput {
  Var q, kv;
  Layout layout = Layout::scalars;
  uint32_t negative_parts = 0;
};
std::vector<Var> cross_attention(const std::vector<CrossAttentionInput>& inputs, const Tensor& q_ptr,
                                 const Tensor& k_ptr, const AttentionOptions& options);

}  // namespace lightcone
