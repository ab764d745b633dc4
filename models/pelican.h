#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "autograd/module.h"
#include "autograd/pair_aggregations.h"

namespace lightcone {

/// Options of PELICAN, named as in the reference's configuration.
struct PELICANConfig {
  std::string type = "PELICAN";
  int64_t in_channels_rank2 = 1;                  ///< numbers of a pair
  std::optional<int64_t> in_channels_rank1 = {};  ///< of a constituent; null: derived from the data, or none
  int64_t in_channels_rank0 = 0;                  ///< of a jet
  int64_t out_rank = 0;                           ///< the result belongs to jets (0), constituents (1) or pairs (2)
  std::optional<int64_t> out_channels = {};       ///< derived from the task; not set by hand
  int64_t num_blocks = 5;
  int64_t hidden_channels = 132;
  double increase_hidden_channels = 1;    ///< factor of hidden_channels inside a block, rounded down
  bool map_multipliers = true;            ///< a learned factor for each map
  bool factorize = false;                 ///< products of smaller tensors as coefficients
  std::string activation = "leaky_relu";  ///< leaky_relu, relu, gelu, tanh, sigmoid or silu
  std::optional<double> dropout_prob = {};
  std::string aggr = "mean";       ///< mean or sum
  bool compile = false;            ///< of the reference; nothing to compile here
  bool checkpoint_blocks = false;  ///< recompute each block's activations in the backward pass
  void fields(auto& f) {
    f("type", type), f("in_channels_rank2", in_channels_rank2), f("in_channels_rank1", in_channels_rank1);
    f("in_channels_rank0", in_channels_rank0), f("out_rank", out_rank), f("out_channels", out_channels);
    f("num_blocks", num_blocks), f("hidden_channels", hidden_channels);
    f("increase_hidden_channels", increase_hidden_channels), f("map_multipliers", map_multipliers);
    f("factorize", factorize), f("activation", activation), f("dropout_prob", dropout_prob), f("aggr", aggr);
    f("compile", compile), f("checkpoint_blocks", checkpoint_blocks);
  }
};

/// PELICAN (Bogatskiy et al., arXiv:2211.00454), a network on all ordered pairs of a jet, i = j among them, that does
/// not know the order of constituents:
///
///     x = aggregate2to2(x2, aggregate1to2(x1), aggregate0to2(x0))
///     x = f(aggregate2to2(dropout(norm(f(W x + b)))))      in each block; norm the root mean square one, with weights
///     y = aggregate2to<out_rank>(x)
///
/// where the aggregations are the most general linear maps (autograd/pair_aggregations.h).
class PELICAN : public Module {
 public:
  /// Throws Error naming the option if a size or a name does not fit.
  PELICAN(Context& ctx, const PELICANConfig& config, DType dtype);
  ~PELICAN() override;
  /// pairs [E, in_channels_rank2], constituents [T, in_channels_rank1], jets [B, in_channels_rank0] (Var{} where there
  /// are no channels), ptr [B+1] -> [E, T or B, out_channels].
  Var operator()(const Var& pairs, const Var& constituents, const Var& jets, const Tensor& ptr);

 private:
  struct Aggregator;
  struct Block;
  PELICANConfig config_;
  std::unique_ptr<Aggregator> in_aggregator_rank1_, in_aggregator_rank0_, in_aggregator_rank2_, out_aggregator_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace lightcone
