#include "autograd/edge_vectors.h"

#include "autograd/elementwise.h"
#include "autograd/matmul.h"
#include "engine/check.h"

namespace lightcone {

Var edge_vectors(const Var& fourmomenta, const Var& scalars, const Tensor& ptr, const EdgePerceptron& perceptron,
                 const EdgeVectorsOptions& options) {
  const char* where = "edge_vectors";
  Check(where, "fourmomenta", fourmomenta.value()).rank(2).columns(4).momentum();
  Check(where, "scalars", scalars.value()).rank(2).compute();
  const int64_t T = fourmomenta.dim(0), S = scalars.dim(1), layers = perceptron.weights.size();
  Check(where, "scalars", scalars.value()).shape({T, S});
  if (layers < 2 || perceptron.biases.size() != perceptron.weights.size())
    fail(where, "{} weights and {} biases, expected as many of both and at least two", layers,
         perceptron.biases.size());
  const Var &w = perceptron.weights[0], &b = perceptron.biases[0];
  Check(where, "weights[0]", w.value()).rank(2).momentum();
  const int64_t H = w.dim(0);
  if (w.dim(1) != 2 * S && w.dim(1) != 2 * S + 1)
    fail(where, "weights[0] has shape {}, expected {} columns for twice {} scalars, and one more to use pair masses",
         w.shape(), 2 * S, S);

  Tape& tape = fourmomenta.tape();
  const AmpScope exact(tape, false);
  const Var s = scalars.dtype() == w.dtype() ? scalars : cast(scalars, w.dtype());
  const Var receiver = linear(s, slice(w, 0, S), b), sender = linear(s, slice(w, S, S), Var{});
  const Var edge = w.dim(1) > 2 * S ? reshape(slice(w, 2 * S, 1), {H}) : Var{};
  const EdgePerceptron behind{{perceptron.weights.begin() + 1, perceptron.weights.end()},
                              {perceptron.biases.begin() + 1, perceptron.biases.end()}};
  return edge_vectors(fourmomenta, receiver, sender, edge, ptr, behind, options);
}

Var edge_vectors(const Var& fourmomenta, const Var& receiver, const Var& sender, const Var& edge, const Tensor& ptr,
                 const EdgePerceptron& behind, const EdgeVectorsOptions& options) {
  const char* where = "edge_vectors";
  Check(where, "fourmomenta", fourmomenta.value()).rank(2);
  Check(where, "receiver", receiver.value()).rank(2);
  if (behind.weights.empty()) fail(where, "there is no layer behind the first");
  const Tensor& last = behind.weights.back().value();
  Check(where, "the last of weights", last).rank(2);
  Tape& tape = fourmomenta.tape();
  Context& ctx = tape.context();
  const int64_t T = fourmomenta.dim(0), H = receiver.dim(1), layers = behind.weights.size();
  kernels::EdgeMlp mlp{receiver.value(), sender.value(), edge.value(), {}, {}};
  for (const Var& w : behind.weights) mlp.weights.push_back(w.value());
  for (const Var& b : behind.biases) mlp.biases.push_back(b.value());

  EdgeVectorsOptions o = options;
  Draw draw;
  if (!tape.training()) o.dropout = 0;
  if (o.dropout != 0) {
    kernels::check_ptr(ctx, where, "ptr", ptr, T);
    draw = ctx.rng().draw("dropout", layers * kernels::count_pairs(ptr) * H);
  }
  Tensor vectors = ctx.empty({T, last.dim(0), 4}, fourmomenta.dtype());
  Tensor lse = ctx.empty({T, last.dim(0)}, receiver.dtype()), norm = ctx.empty({T}, DType::f64);
  kernels::edge_vectors(ctx, fourmomenta.value(), ptr, mlp, o, draw, vectors, lse, norm);

  // receiver, sender, edge, momenta, then the layers behind the first.
  std::vector<Slot> slots{receiver.slot(), sender.slot(), edge.slot(), fourmomenta.slot()};
  for (const Var& w : behind.weights) slots.push_back(w.slot());
  for (const Var& b : behind.biases) slots.push_back(b.slot());
  auto backward = [=, p = fourmomenta.value()](const std::vector<Tensor>& dys, Grads& grads) {
    // The kernel writes all of the perceptron's gradients; those that nobody wants go to scratch.
    auto place = [&](Slot slot, const Tensor& like) {
      Tensor* wanted = grads.want(slot);
      return wanted ? wanted->reshape(like.shape()) : grads.context().empty(like.shape(), like.dtype());
    };
    kernels::EdgeMlp to{place(slots[0], mlp.receiver), place(slots[1], mlp.sender), {}, {}, {}};
    if (mlp.edge.defined()) to.edge = place(slots[2], mlp.edge);
    size_t next = 4;
    for (const Tensor& weights : mlp.weights) to.weights.push_back(place(slots[next++], weights));
    for (const Tensor& bias : mlp.biases) to.biases.push_back(place(slots[next++], bias));
    kernels::edge_vectors_backward(grads.context(), dys[0], p, ptr, mlp, o, draw, vectors, lse, norm, to,
                                   grads.want(slots[3]));
  };
  return tape.record(where, std::vector{vectors}, slots, backward)[0];
}

}  // namespace lightcone
