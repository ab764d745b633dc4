// The GraphNet against its definition, message by message, and what its options refuse.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "autograd/elementwise.h"
#include "autograd/frames.h"
#include "autograd/matmul.h"
#include "autograd/random.h"
#include "autograd/segment.h"
#include "engine/fields.h"
#include "models/graphnet.h"
#include "models/registry.h"
#include "tests/support/edge_network.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

const EdgeNetwork graph{.jets = {6, 1, 0, 9, 2}};
const int64_t T = graph.tokens();

Array frames_of(uint64_t seed) {
  Array out = zeros({T, 4, 4});
  for (int64_t t = 0; t < T; ++t) {
    const Lorentz l = random_rotation(seed + 2 * t) * random_boost(seed + 2 * t + 1, 0.7);
    std::copy(l.begin(), l.end(), out.values.begin() + 16 * t);
  }
  return out;
}

// Every message is a row: [x_j in the frame of i, x_i, e_ij] through the perceptrons, as the state dict names them.
Var naive(const GraphNetConfig& c, GraphNet& net, const Var& x, const Var& frames, const Var& edges) {
  Tape& tape = x.tape();
  Context& ctx = tape.context();
  std::map<std::string, Var> p;
  for (const auto& [name, parameter] : net.parameters()) p[name] = tape.parameter(*parameter);
  auto map = [&](const std::string& name, const Var& in) {
    return linear(in, p.at(name + ".weight"), p.at(name + ".bias"));
  };
  auto mlp = [&](const std::string& name, Var h, int64_t hidden) {
    const int64_t places = c.dropout_prob ? 3 : 2;
    for (int64_t l = 0; l < hidden; ++l)
      h = unary(Unary::gelu, dropout(map(fmt::format("{}.mlp.{}", name, places * l), h), c.dropout_prob.value_or(0)));
    return map(fmt::format("{}.mlp.{}", name, places * hidden), h);
  };
  const auto pairs = composite_edge_vectors::pairs_of(ctx, graph);
  const auto P = pairs.receiver.dim(0);
  auto frames_at = [&](const Tensor& rows) { return reshape(gather_rows(reshape(frames, {T, 16}), rows), {P, 4, 4}); };
  const TensorReps reps(c.hidden_reps);
  Var h = map("linear_in", x);
  for (int64_t b = 0; b < c.num_blocks; ++b) {
    Var sent = gather_rows(h, pairs.sender);
    if (frames.value().defined()) {
      sent = frames_transform(sent, frames_at(pairs.sender), reps, FrameMap::to_global);
      sent = frames_transform(sent, frames_at(pairs.receiver), reps, FrameMap::to_local);
    }
    std::vector<Var> parts{sent, gather_rows(h, pairs.receiver)};
    if (edges.value().defined()) parts.push_back(edges);
    const Var messages = mlp(fmt::format("blocks.{}.mlp1", b), concat(parts), c.num_layers_mlp1);
    h = c.aggr == "mean" ? segment_mean(messages, pairs.ptr) : segment_sum(messages, pairs.ptr);
    if (c.num_layers_mlp2) h = mlp(fmt::format("blocks.{}.mlp2", b), h, c.num_layers_mlp2);
  }
  return map("linear_out", h);
}

std::vector<Array> with_gradients(const GraphNetConfig& c, bool with_frames, bool simple) {
  const DType dtype = DType::f64;
  Context ctx(2, 3);
  GraphNet net(ctx, c, dtype);
  Tape tape(ctx);
  auto variable = [&](const Array& a) { return tape.variable(to_tensor(ctx, a, dtype)); };
  std::vector<Var> in{variable(normal({T, *c.in_channels}, 1))};
  if (c.num_edge_attr) in.push_back(variable(normal({kernels::count_pairs(graph.ptr(ctx)), *c.num_edge_attr}, 2)));
  const Var edges = c.num_edge_attr ? in.back() : Var{};
  if (with_frames) in.push_back(variable(frames_of(3)));
  const Var frames = with_frames ? in.back() : Var{};
  if (c.dropout_prob.value_or(0) > 0) ctx.rng().replace("dropout", uniform({200000}, 77, 0, 1).values);
  const Var y = simple ? naive(c, net, in[0], frames, edges)
                       : net(in[0], graph.ptr(ctx), with_frames ? Frames{frames, false} : Frames{}, edges);
  tape.backward(y, to_tensor(ctx, normal({T, *c.out_channels}, 4), dtype));
  std::vector<Array> all{to_array(y.value())};
  for (const Var& x : in)  // scalars know nothing of frames
    all.push_back(tape.gradient(x).defined() ? to_array(tape.gradient(x)) : zeros(x.shape()));
  for (const auto& [name, p] : net.parameters()) all.push_back(to_array(p->grad));
  return all;
}

}  // namespace

TEST_CASE("graphnet is its definition, message by message, with every option") {
  for (const char* reps : {"3x0n+2x1n", "2x1n", "1x0p+1x0n+1x1n+1x2n", "5x0n"})
    for (bool with_frames : {false, true})
      for (const char* aggr : {"add", "mean"})
        for (int64_t edges : {0, 2})
          for (double dropout : {0., 0.2})
            for (bool checkpoints : {false, true}) {
              if (dropout > 0 && checkpoints) continue;
              GraphNetConfig c;
              c.in_channels = 3, c.out_channels = 2, c.hidden_reps = reps, c.num_blocks = 2, c.aggr = aggr;
              c.num_layers_mlp1 = edges ? 2 : 1, c.num_layers_mlp2 = edges ? 0 : 2;
              if (edges) c.num_edge_attr = edges;
              if (dropout > 0) c.dropout_prob = dropout;
              c.checkpoint_blocks = checkpoints;
              CAPTURE(reps);
              CAPTURE(with_frames);
              CAPTURE(aggr);
              CAPTURE(edges);
              CAPTURE(dropout);
              CAPTURE(checkpoints);
              const auto y = with_gradients(c, with_frames, false), expected = with_gradients(c, with_frames, true);
              REQUIRE(y.size() == expected.size());
              for (size_t i = 0; i < y.size(); ++i) {
                CAPTURE(i);
                double largest = 0;
                for (double v : expected[i].values) largest = std::max(largest, std::abs(v));
                CHECK(largest_difference(y[i], expected[i]) <= 1e-11 * (largest > 0 ? largest : 1));
              }
            }
}

TEST_CASE("graphnet: options that make no network are refused by name") {
  Context ctx(1);
  auto refused = [&](const std::function<void(GraphNetConfig&)>& change, const char* message) {
    GraphNetConfig c;
    c.in_channels = 3, c.out_channels = 1;
    change(c);
    CHECK_THROWS_WITH_AS(GraphNet(ctx, c, DType::f64), message, Error);
  };
  refused([](auto& c) { c.num_blocks = 0; }, "GraphNet: num_blocks is 0, expected a number from 1 to 10000");
  refused([](auto& c) { c.num_layers_mlp1 = 0; }, "GraphNet: num_layers_mlp1 is 0, expected a number from 1 to 10000");
  refused([](auto& c) { c.num_layers_mlp2 = -1; },
          "GraphNet: num_layers_mlp2 is -1, expected a number from 0 to 10000");
  refused([](auto& c) { c.in_channels.reset(); }, "GraphNet: in_channels is 0, expected a number from 1 to 100000");
  refused([](auto& c) { c.aggr = "max"; }, "GraphNet: aggr has no option 'max'; all: add, sum, mean");
  refused([](auto& c) { c.dropout_prob = 1; }, "GraphNet: dropout_prob is 1, expected a number in [0, 1)");
  GraphNetConfig c;
  c.in_channels = 3, c.out_channels = 1, c.num_edge_attr = 1;
  GraphNet net(ctx, c, DType::f64);
  Tape tape(ctx);
  const Var x = tape.constant(ctx.zeros({T, 3}, DType::f64));
  CHECK_THROWS_WITH_AS(net(x, graph.ptr(ctx)), "GraphNet: num_edge_attr is 1, but edges are not there", Error);
}

TEST_CASE("graphnet: a tagger that was never trained says so where it needs the edges' spread") {
  Context ctx(1);
  const Json model = {{"net", {{"type", "GraphNet"}, {"hidden_reps", "2x0n"}}}, {"include_edges", true}};
  auto tagger = make_tagger(ctx, model, {}, {}, DType::f64);
  JetSet jets;
  jets.fourmomenta = to_tensor(ctx, momenta(17, 1), DType::f64);
  jets.ptr = EdgeNetwork{.jets = {6, 9, 2}}.ptr(ctx);
  Tape tape(ctx, Tape::Mode::evaluate);
  CHECK_THROWS_WITH_AS((*tagger)(tape, jets),
                       "GraphNet: mean and spread of the pairs are not known: they are measured on the first "
                       "training batch; train the network or load a trained one",
                       Error);
  tagger->standardise(ctx, jets);
  const auto measured = tagger->state_dict(ctx);
  CHECK_NOTHROW((*tagger)(tape, jets));
  // Once and for all.
  jets.fourmomenta = to_tensor(ctx, momenta(17, 2, 5), DType::f64);
  tagger->standardise(ctx, jets);
  const auto later = tagger->state_dict(ctx);
  for (size_t i = 0; i < later.size(); ++i) CHECK(largest_difference(later[i].second, measured[i].second) == 0);
}
