#include "autograd/tape.h"

#include <algorithm>
#include <utility>

#include "autograd/gradients.h"
#include "autograd/weights.h"

namespace lightcone {

Tape::Tape(Context& ctx, Mode mode) : ctx_(ctx), mode_(mode) {}
Tape::Tape(Context& ctx, const Tape& outer)
    : ctx_(ctx), mode_(outer.mode_), amp_(outer.amp_), prepared_(outer.prepared_), collected_(outer.collected_) {}
Tape::~Tape() = default;

Slot Tape::new_slot(const Tensor& value, bool leaf) {
  slots_.push_back({value.shape(), value.dtype(), leaf, {}});
  return Slot{static_cast<int32_t>(slots_.size()) - 1};
}

Var Tape::variable(Tensor value) {
  const Slot slot = training() ? new_slot(value, true) : Slot{};
  return Var(this, std::move(value), slot);
}

Var Tape::parameter(Parameter& p) {
  Slot slot;
  if (training() && p.trainable) {
    auto [it, fresh] = slot_of_parameter_.try_emplace(&p);
    if (fresh) {
      it->second = new_slot(p.value, true);
      parameters_.emplace_back(&p, it->second);
    }
    slot = it->second;
  }
  Var v(this, p.value, slot);
  v.parameter_ = &p;
  return v;
}

std::shared_ptr<const kernels::Weights> Tape::weights(const Var& w) {
  const DType products = factors(w.dtype());
  if (!w.parameter_) return std::make_shared<kernels::Weights>(w.value(), products);
  return prepared_weights().of(*w.parameter_, products);
}

PreparedWeights& Tape::prepared_weights() {
  if (!prepared_) prepared_ = (own_prepared_ = std::make_unique<PreparedWeights>(ctx_)).get();
  return *prepared_;
}

Var Tape::record(const char* name, Tensor y, std::initializer_list<Slot> inputs, Backward backward) {
  if (!training() || std::none_of(inputs.begin(), inputs.end(), [](Slot s) { return s.index >= 0; }))
    return constant(std::move(y));
  const Slot slot = new_slot(y, false);
  nodes_.push_back(
      {name, slot.index, 1, [f = std::move(backward)](const std::vector<Tensor>& dys, Grads& g) { f(dys[0], g); }});
  return Var(this, std::move(y), slot);
}

std::vector<Var> Tape::record(const char* name, std::vector<Tensor> ys, const std::vector<Slot>& inputs,
                              BackwardMany backward) {
  std::vector<Var> out;
  const bool wanted = training() && std::any_of(inputs.begin(), inputs.end(), [](Slot s) { return s.index >= 0; });
  const auto first = static_cast<int32_t>(slots_.size());
  for (Tensor& y : ys) {
    const Slot slot = wanted ? new_slot(y, false) : Slot{};
    out.push_back(Var(this, std::move(y), slot));
  }
  if (wanted) nodes_.push_back({name, first, static_cast<int32_t>(ys.size()), std::move(backward)});
  return out;
}

Tensor* Grads::want(Slot slot) {
  if (slot.index < 0) return nullptr;
  const auto& place = tape_.slots_[slot.index];
  pending_.emplace_back(slot.index, tape_.ctx_.empty(place.shape, place.dtype));
  return &pending_.back().second;
}

void Grads::pass(Slot slot, const Tensor& gradient) {
  if (slot.index < 0) return;
  const auto& place = tape_.slots_[slot.index];
  if (gradient.dtype() != place.dtype)
    fail("backward", "a gradient of {} was passed to a slot of {}", gradient.dtype(), place.dtype);
  pending_.emplace_back(slot.index, gradient.reshape(place.shape));
}

Tensor Grads::take(Slot slot) {
  return slot.index < 0 ? Tensor() : std::exchange(tape_.slots_[slot.index].gradient, Tensor());
}

void Tape::backward(const Var& y, Tensor cotangent) {
  if (!cotangent.defined()) {
    if (y.value().numel() != 1) fail("backward", "a cotangent is needed for a result of shape {}", y.shape());
    const double one = 1;
    cotangent = ctx_.of(y.shape(), y.dtype(), {&one, 1});
  }
  backward(std::vector<Var>{y}, {std::move(cotangent)});
}

void Tape::backward(const std::vector<Var>& ys, std::vector<Tensor> cotangents) {
  bool any = false;
  for (size_t i = 0; i < ys.size(); ++i) {
    if (!ys[i].wants_grad()) continue;
    if (!(cotangents[i].shape() == ys[i].shape()) || cotangents[i].dtype() != ys[i].dtype())
      fail("backward", "cotangent {} {} for a result {} {}", cotangents[i].dtype(), cotangents[i].shape(),
           ys[i].dtype(), ys[i].shape());
    accumulate(ctx_, slots_[ys[i].slot().index].gradient, std::move(cotangents[i]));
    any = true;
  }
  if (!any) throw Error("backward: the result depends on nothing that wants a gradient");
  std::vector<Tensor> dys;
  for (size_t n = nodes_.size(); n-- > 0;) {
    Node node = std::move(nodes_[n]);
    dys.clear();
    bool reached = false;
    for (int32_t i = node.first; i < node.first + node.count; ++i) {
      reached |= slots_[i].gradient.defined();
      dys.push_back(std::move(slots_[i].gradient));
      slots_[i].gradient = {};
    }
    if (!reached) continue;
    for (int32_t i = 0; i < node.count; ++i)
      if (!dys[i].defined()) dys[i] = ctx_.zeros(slots_[node.first + i].shape, slots_[node.first + i].dtype);
    Grads grads(*this);
    node.backward(dys, grads);
    dys.clear();
    for (auto& [slot, gradient] : grads.pending_) accumulate(ctx_, slots_[slot].gradient, std::move(gradient));
  }
  nodes_.clear();
  for (auto& [p, slot] : parameters_) {
    Tensor& g = slots_[slot.index].gradient;
    if (!g.defined()) continue;
    if (collected_)
      collected_->add(ctx_, *p, std::move(g));
    else
      accumulate(ctx_, p->grad, std::move(g));
    g = {};
  }
}

}  // namespace lightcone
