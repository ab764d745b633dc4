#include "models/graphnet.h"

#include "autograd/checkpoint.h"
#include "autograd/elementwise.h"
#include "autograd/frames.h"
#include "autograd/matmul.h"
#include "autograd/random.h"
#include "models/frame_transform.h"
#include "models/perceptron.h"

namespace lightcone {

namespace {

int64_t width(const GraphNetConfig& c) {
  auto between = [](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most)
      fail("GraphNet", "{} is {}, expected a number from {} to {}", name, value, least, most);
  };
  const int64_t dim = TensorReps(c.hidden_reps).dim();
  between("dim(hidden_reps)", dim, 1, 100'000);
  between("in_channels", c.in_channels.value_or(0), 1, 100'000);
  between("out_channels", c.out_channels.value_or(0), 1, 100'000);
  between("num_edge_attr", c.num_edge_attr.value_or(0), 0, 100'000);
  between("num_blocks", c.num_blocks, 1, 10'000);
  between("num_layers_mlp1", c.num_layers_mlp1, 1, 10'000);
  between("num_layers_mlp2", c.num_layers_mlp2, 0, 10'000);
  if (c.dropout_prob && !(*c.dropout_prob >= 0 && *c.dropout_prob < 1))
    fail("GraphNet", "dropout_prob is {}, expected a number in [0, 1)", *c.dropout_prob);
  if (c.aggr != "add" && c.aggr != "sum" && c.aggr != "mean")
    fail("GraphNet", "aggr has no option '{}'; all: add, sum, mean", c.aggr);
  return dim;
}

std::vector<int64_t> widths(int64_t in, int64_t hidden, int64_t layers) {
  std::vector<int64_t> all(static_cast<size_t>(layers) + 2, hidden);
  all[0] = in;
  return all;
}

/// Per constituent: how often the last bias of a message is added up, [T, 1].
Tensor times_of_bias(Context& ctx, const Tensor& ptr, int64_t rows, Pool aggregation, DType dtype) {
  std::vector<double> times(static_cast<size_t>(rows));
  const auto offsets = ptr.offsets();
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    const int32_t others = offsets[b + 1] - offsets[b] - 1;
    std::fill(times.begin() + offsets[b], times.begin() + offsets[b + 1],
              aggregation == Pool::sum ? others : others > 0);
  }
  return ctx.of({rows, 1}, dtype, times);
}

}  // namespace

struct GraphNet::Block : Module {
  /// What all blocks of a forward pass see.
  struct Graph {
    Tensor ptr, times_of_bias;
    Var frames, edges;  ///< Var{}: none
  };

  FrameTransform transform;
  Perceptron mlp1;
  std::unique_ptr<Perceptron> mlp2;
  MessageOptions options;
  int64_t width, scalars;  ///< channels, and how many of the first are the same in all frames

  Block(Context& ctx, const GraphNetConfig& c, const TensorReps& reps, DType dtype)
      : transform(ctx, reps),
        mlp1(ctx, widths(2 * reps.dim() + c.num_edge_attr.value_or(0), reps.dim(), c.num_layers_mlp1),
             c.dropout_prob.has_value(), dtype),
        width(reps.dim()),
        scalars(0) {
    add("transform_dict.x", transform);
    add("mlp1", mlp1);
    if (c.num_layers_mlp2 > 0) {
      mlp2 =
          std::make_unique<Perceptron>(ctx, widths(width, width, c.num_layers_mlp2), c.dropout_prob.has_value(), dtype);
      add("mlp2", *mlp2);
    }
    options.aggregation = c.aggr == "mean" ? Pool::mean : Pool::sum;
    options.dropout = c.dropout_prob.value_or(0);
    options.reps = reps;
    const auto& first = reps.terms()[0];
    const std::string text = reps.text();
    if (first.order == 0 && !first.odd && reps.terms().size() > 1) {
      scalars = first.multiplicity;
      options.reps = TensorReps(text.substr(text.find('+') + 1));
    }
  }

  Var operator()(const Var& x, const Graph& graph) {
    Tape& tape = x.tape();
    // The columns of the first layer meet x_j, x_i and the edge.
    Linear& first = *mlp1.linear.front();
    const Var weight = tape.parameter(first.weight);
    MessagePerceptron messages;
    messages.receiver = linear(x, slice(weight, width, width), tape.parameter(first.bias));
    if (graph.edges.value().defined()) {
      messages.edge = graph.edges;
      messages.edge_weight = slice(weight, 2 * width, weight.dim(1) - 2 * width);
    }
    if (graph.frames.value().defined()) {
      const int64_t others = width - scalars;
      messages.sender = linear(slice(x, 0, scalars), slice(weight, 0, scalars), Var{});
      messages.frames = graph.frames;
      messages.features = frames_transform(slice(x, scalars, others), graph.frames, options.reps, FrameMap::to_global);
      messages.feature_weight = slice(weight, scalars, others);
    } else {
      messages.sender = linear(x, slice(weight, 0, width), Var{});
    }
    for (size_t l = 1; l + 1 < mlp1.linear.size(); ++l) {
      messages.weights.push_back(tape.parameter(mlp1.linear[l]->weight));
      messages.biases.push_back(tape.parameter(mlp1.linear[l]->bias));
    }
    Var y = message_passing(graph.ptr, messages, options);
    // The sum of what the last layer makes of each message.
    Linear& last = *mlp1.linear.back();
    const Var bias = linear(tape.constant(graph.times_of_bias), reshape(tape.parameter(last.bias), {width, 1}), Var{});
    y = linear_residual(y, tape.parameter(last.weight), Var{}, bias);
    if (!mlp2) return y;
    for (size_t l = 0; l + 1 < mlp2->linear.size(); ++l)
      y = unary(Unary::gelu, dropout((*mlp2->linear[l])(y), options.dropout));
    return (*mlp2->linear.back())(y);
  }
};

GraphNet::GraphNet(Context& ctx, const GraphNetConfig& config, DType dtype)
    : config_(config),
      reps_(config.hidden_reps),
      linear_in_(ctx, config.in_channels.value_or(0), width(config), dtype),
      linear_out_(ctx, width(config), *config.out_channels, dtype) {
  add("linear_in", linear_in_);
  for (int64_t b = 0; b < config.num_blocks; ++b) {
    blocks_.push_back(std::make_unique<Block>(ctx, config, reps_, dtype));
    add("blocks." + std::to_string(b), *blocks_.back());
  }
  add("linear_out", linear_out_);
}

GraphNet::~GraphNet() = default;

Var GraphNet::operator()(const Var& x, const Tensor& ptr, const Frames& frames, const Var& edges) {
  Var h = linear_in_(x);
  // One frame for a whole jet makes no difference between its constituents, and scalars are the same in all frames.
  const bool local = !frames.is_identity() && !frames.is_global && !reps_.invariant();
  const bool with_edges = config_.num_edge_attr.value_or(0) > 0;
  if (with_edges != edges.value().defined())
    fail("GraphNet", "num_edge_attr is {}, but edges are {}", config_.num_edge_attr.value_or(0),
         with_edges ? "not there" : "given");
  kernels::check_ptr(x.context(), "GraphNet", "ptr", ptr, x.dim(0));
  const Tensor times =
      times_of_bias(x.context(), ptr, x.dim(0), config_.aggr == "mean" ? Pool::mean : Pool::sum, h.dtype());
  for (auto& block : blocks_) {
    auto run = [&block = *block, ptr, times, local, with_edges](const std::vector<Var>& in) {
      const Block::Graph graph{ptr, times, local ? in[1] : Var{}, with_edges ? in.back() : Var{}};
      return std::vector{block(in[0], graph)};
    };
    std::vector<Var> inputs = {h};
    if (local) inputs.push_back(frames.matrices);
    if (with_edges) inputs.push_back(edges);
    h = (config_.checkpoint_blocks ? checkpoint(inputs, run) : run(inputs))[0];
  }
  return linear_out_(h);
}

}  // namespace lightcone
