#pragma once
#include <memory>
#include <optional>

#include "autograd/message_passing.h"
#include "models/framesnet.h"
#include "models/linear.h"

namespace lightcone {

/// Options of the LLoCa GraphNet, named as in the reference's configuration.
struct GraphNetConfig {
  std::string type = "GraphNet";
  std::optional<int64_t> in_channels, out_channels;  ///< derived from the task; not set by hand
  std::string hidden_reps = "64x0n+16x1n";           ///< representation of a constituent's features
  int64_t num_blocks = 3;
  int64_t num_layers_mlp1 = 3;           ///< hidden layers of the messages' perceptron
  int64_t num_layers_mlp2 = 0;           ///< hidden layers of the perceptron behind the sum; 0: none
  std::optional<int64_t> num_edge_attr;  ///< derived from the task (0 as in the references counts as null)
  std::string aggr = "add";              ///< add (sum) or mean
  std::optional<double> dropout_prob;    ///< of the values before each GELU
  bool checkpoint_blocks = false;        ///< recompute each block's activations in the backward pass
  void fields(auto& f) {
    f("type", type), f("in_channels", in_channels), f("hidden_reps", hidden_reps), f("out_channels", out_channels);
    f("num_blocks", num_blocks), f("num_layers_mlp1", num_layers_mlp1), f("num_layers_mlp2", num_layers_mlp2);
    f("num_edge_attr", num_edge_attr), f("aggr", aggr), f("dropout_prob", dropout_prob);
    f("checkpoint_blocks", checkpoint_blocks);
  }
};

/// Message passing between all constituents of a jet (the GNN of Spinner et al., arXiv:2505.20280):
///
///     h = linear_in(x);    h_i = mlp2(sum over j != i of mlp1([h_j, h_i, e_ij]))  per block;    y = linear_out(h)
///
/// h_j is seen from the frame of i: its representation hidden_reps goes from frame j to frame i. Perceptrons have exact
/// GELUs and are as wide as h. No norm and no residual.
class GraphNet : public Module {
 public:
  /// Throws Error naming the option if a size is not positive.
  GraphNet(Context& ctx, const GraphNetConfig& config, DType dtype);
  ~GraphNet() override;
  /// x [T, in_channels], ptr [B+1] i32 row offsets of the jets, frames in the dtype of x, edges [P, num_edge_attr] in
  /// the order of edge_attributes(), or none -> [T, out_channels].
  Var operator()(const Var& x, const Tensor& ptr, const Frames& frames = {}, const Var& edges = {});

 private:
  struct Block;
  GraphNetConfig config_;
  TensorReps reps_;
  Linear linear_in_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Linear linear_out_;
};

}  // namespace lightcone
