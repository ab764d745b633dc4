#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "autograd/elementwise.h"
#include "autograd/lorentz_norm.h"
#include "models/linear.h"

// What L-GATr-slim is made of (Petitjean, Plehn, Spinner, Köthe, arXiv:2512.17011). Tokens are vectors [T, 4, channels]
// and scalars [T, channels]; state dicts are those of the package lgatr.
namespace lightcone::slim {

inline constexpr double norm_eps = 0.01;

struct Channels {
  int64_t vectors, scalars;
};

/// vectors w_v^T and scalars w_s^T + b. Initial weights uniform in ±factor/sqrt(in), biases in ±1/sqrt(in).
struct Linear : Module {
  Parameter weight_v;
  lightcone::Linear linear_s;
  Linear(Context& ctx, Channels in, Channels out, DType dtype, double factor = 1);
  LorentzVar operator()(const LorentzVar& x);
  LorentzVar residual(const LorentzVar& x, const LorentzVar& residual);  ///< added to the result
};

/// relu, sigmoid, tanh, gelu or silu; throws Error for another name.
Unary nonlinearity(const std::string& name);

/// Of a vector, all four components or none.
LorentzVar dropout(const LorentzVar& x, double p);

/// Sizes of a block, as the reference's configuration names them.
struct BlockOptions {
  Channels channels;
  int64_t num_heads, mlp_ratio, attn_ratio, num_layers_mlp;
  Unary nonlinearity;
  std::optional<double> dropout_prob;
  double dropout() const { return dropout_prob.value_or(0); }
  /// Channels of one head.
  Channels head() const {
    return {std::max<int64_t>(attn_ratio * channels.vectors / num_heads, 1),
            std::max<int64_t>(attn_ratio * channels.scalars / num_heads, 4)};
  }
};

/// x + attention(norm(x)) among the tokens of each jet; queries, keys and values normalised for each head.
class SelfAttention : public Module {
 public:
  SelfAttention(Context& ctx, const BlockOptions& options, DType dtype);
  LorentzVar operator()(const LorentzVar& x, const Tensor& ptr);

 private:
  BlockOptions options_;
  Linear linear_in_, linear_out_;
  Buffer metric_;
};

/// x + attention from norm(x) to the tokens of a condition, which are not normalised.
class CrossAttention : public Module {
 public:
  CrossAttention(Context& ctx, const BlockOptions& options, Channels condition, DType dtype);
  LorentzVar operator()(const LorentzVar& x, const Tensor& ptr, const LorentzVar& condition,
                        const Tensor& condition_ptr);

 private:
  BlockOptions options_;
  Linear linear_in_q_, linear_in_kv_, linear_out_;
  Buffer metric_;
};

/// x + mlp(norm(x)), with gated linear units.
class Mlp : public Module {
 public:
  Mlp(Context& ctx, const BlockOptions& options, DType dtype);
  /// Without the vectors if nobody needs them: then their weights get no gradient.
  LorentzVar operator()(const LorentzVar& x, bool with_vectors);

 private:
  /// The reference's module around a unit's linear map.
  struct Unit : Module {
    Linear linear;
    Unit(Context& ctx, Channels in, Channels out, DType dtype) : linear(ctx, in, out, dtype) { add("linear", linear); }
  };
  BlockOptions options_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::unique_ptr<Linear> last_;
};

}  // namespace lightcone::slim
