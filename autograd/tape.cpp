#include "autograd/tape.h"

#include <algorithm>

#include "autograd/module.h"
#include "kernels/elementwise.h"

namespace lightcone {

Slot Tape::new_slot(const Tensor& value, bool leaf) {
  slots_.push_back({value.shape(), value.dtype(), leaf, {}});
  return Slot{static_cast<int32_t>(slots_.size()) - 1};
}

Var Tape::variable(Tensor value) {
  const Slot slot = training() ? new_slot(value, true) : Slot{};
  return Var(this, std::move(value), slot);
}

Var Tape::parameter(Parameter& p) {
  if (!training() || !p.trainable) return constant(p.value);
  auto [it, fresh] = slot_of_parameter_.try_emplace(&p);
  if (fresh) {
    it->second = new_slot(p.value, true);
    parameters_.emplace_back(&p, it->second);
  }
  return Var(this, p.value, it->second);
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

void Tape::accumulate(int32_t index, Tensor gradient) {
  Tensor& sum = slots_[index].gradient;
  if (!sum.defined()) {
    sum = std::move(gradient);
  } else if (sum.unique()) {
    kernels::add(ctx_, sum, gradient, sum);
  } else {
    // Shared with another slot (Grads::pass), which must not see this addition.
    Tensor fresh = ctx_.empty(sum.shape(), sum.dtype());
    kernels::add(ctx_, sum, gradient, fresh);
    sum = std::move(fresh);
  }
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
    accumulate(ys[i].slot().index, std::move(cotangents[i]));
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
    for (auto& [slot, gradient] : grads.pending_) accumulate(slot, std::move(gradient));
  }
  nodes_.clear();
  for (auto& [p, slot] : parameters_) {
    Tensor& g = slots_[slot.index].gradient;
    if (!g.defined()) continue;
    if (!p->grad.defined()) {
      p->grad = std::move(g);
    } else {
      Tensor fresh = ctx_.empty(g.shape(), g.dtype());
      kernels::add(ctx_, p->grad, g, fresh);
      p->grad = std::move(fresh);
    }
    g = {};
  }
}

}  // namespace lightcone
