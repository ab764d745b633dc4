#include "autograd/message_passing.h"

#include "engine/check.h"
#include "kernels/edge_vectors.h"

namespace lightcone {

namespace {

/// All parts of a perceptron in one order: Vars, or their values.
std::vector<Slot> slots_of(const MessagePerceptron& m) {
  std::vector<Slot> slots;
  for (const Var* x : {&m.receiver, &m.sender, &m.edge, &m.edge_weight, &m.features, &m.feature_weight, &m.frames})
    slots.push_back(x->slot());
  for (const auto* layers : {&m.weights, &m.biases})
    for (const Var& x : *layers) slots.push_back(x.slot());
  return slots;
}

kernels::MessagePerceptron values_of(const MessagePerceptron& m) {
  kernels::MessagePerceptron values{m.receiver.value(),
                                    m.sender.value(),
                                    m.edge.value(),
                                    m.edge_weight.value(),
                                    m.features.value(),
                                    m.feature_weight.value(),
                                    m.frames.value(),
                                    {},
                                    {}};
  for (const Var& w : m.weights) values.weights.push_back(w.value());
  for (const Var& b : m.biases) values.biases.push_back(b.value());
  return values;
}

}  // namespace

Var message_passing(const Tensor& ptr, const MessagePerceptron& perceptron, const MessageOptions& options) {
  const char* where = "message_passing";
  Check(where, "receiver", perceptron.receiver.value()).rank(2).momentum();
  Tape& tape = perceptron.receiver.tape();
  Context& ctx = tape.context();
  const int64_t T = perceptron.receiver.dim(0), H = perceptron.receiver.dim(1);
  MessageOptions o = options;
  Draw draw;
  if (!tape.training()) o.dropout = 0;
  if (o.dropout != 0) {
    kernels::check_ptr(ctx, where, "ptr", ptr, T);
    const auto layers = static_cast<int64_t>(perceptron.weights.size()) + 1;
    draw = ctx.rng().draw("dropout", layers * kernels::count_pairs(ptr) * H);
  }
  Tensor y = ctx.empty({T, H}, perceptron.receiver.dtype());
  const kernels::MessagePerceptron mlp = values_of(perceptron);
  kernels::message_passing(ctx, ptr, mlp, o, draw, y);

  const std::vector<Slot> slots = slots_of(perceptron);
  auto backward = [=](const std::vector<Tensor>& dys, Grads& grads) {
    size_t next = 0;
    // The kernel writes gradients of all parts that there are; those that nobody wants go to scratch.
    auto place = [&](const Tensor& like, bool optional = false) -> Tensor {
      Tensor* wanted = grads.want(slots[next++]);
      if (wanted) return *wanted;
      return like.defined() && !optional ? grads.context().empty(like.shape(), like.dtype()) : Tensor{};
    };
    kernels::MessagePerceptron to;
    to.receiver = place(mlp.receiver), to.sender = place(mlp.sender);
    to.edge = place(mlp.edge, true), to.edge_weight = place(mlp.edge_weight);
    to.features = place(mlp.features), to.feature_weight = place(mlp.feature_weight);
    to.frames = place(mlp.frames, true);
    for (const Tensor& w : mlp.weights) to.weights.push_back(place(w));
    for (const Tensor& b : mlp.biases) to.biases.push_back(place(b));
    kernels::message_passing_backward(grads.context(), dys[0], ptr, mlp, o, draw, to);
  };
  return tape.record(where, std::vector{y}, slots, backward)[0];
}

Var edge_attributes(const Var& p, const Tensor& ptr, double mean, double std, DType dtype) {
  Check("edge_attributes", "p", p.value()).rank(2).columns(4).momentum();
  kernels::check_ptr(p.context(), "edge_attributes", "ptr", ptr, p.dim(0));
  Tensor e = p.context().empty({kernels::count_pairs(ptr), 1}, dtype);
  kernels::edge_attributes(p.context(), p.value(), ptr, mean, std, e);
  return p.tape().record("edge_attributes", e, {p.slot()},
                         [=, momenta = p.value(), p = p.slot()](const Tensor& de, Grads& grads) {
                           if (Tensor* dp = grads.want(p))
                             kernels::edge_attributes_backward(grads.context(), de, momenta, ptr, std, *dp);
                         });
}

}  // namespace lightcone
