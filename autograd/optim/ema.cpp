#include "autograd/optim/ema.h"

#include <algorithm>
#include <set>

#include "engine/check.h"
#include "kernels/optimizer.h"

namespace lightcone {

Ema::Ema(Context& ctx, std::vector<Named<Parameter>> parameters, double decay)
    : ctx_(ctx), parameters_(std::move(parameters)), decay_(decay) {
  if (!(decay >= 0 && decay <= 1)) fail("ema", "decay is {}, expected 0 to 1", decay);
  std::set<const Parameter*> seen;
  for (const auto& [name, p] : parameters_) {
    if (!seen.insert(p).second) fail("ema", "parameter {} is in the list twice", name);
    shadow_.push_back(ctx_.copy(p->value));
  }
}

void Ema::require_swapped_out(const char* what) const {
  if (swapped_in_) fail("ema", "{} while the averaged parameters are in place", what);
}

void Ema::update() {
  require_swapped_out("update");
  for (const auto& [name, p] : parameters_) values_.push_back(p->value);
  const double n = static_cast<double>(++updates_);
  kernels::ema_update(ctx_, values_, shadow_, std::min(decay_, (1 + n) / (10 + n)));
  values_.clear();
}

void Ema::swap(bool in) {
  if (in) require_swapped_out("average");
  for (size_t i = 0; i < parameters_.size(); ++i) std::swap(parameters_[i].item->value, shadow_[i]);
  swapped_in_ = in;
}

State Ema::state_dict() const {
  require_swapped_out("state_dict");
  State s;
  s.numbers["num_updates"] = static_cast<double>(updates_);
  for (size_t i = 0; i < parameters_.size(); ++i)
    s.tensors[parameters_[i].name] = gather_rows(ctx_, shadow_[i], parameters_[i].item->rows);
  return s;
}

void Ema::load_state_dict(State s) {
  constexpr const char* where = "ema";
  require_swapped_out("load_state_dict");
  const int64_t updates = s.take_count(where, "num_updates");
  std::vector<Tensor> shadow;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, p] = parameters_[i];
    const Tensor saved = s.take_tensor(where, name);
    check(where, "saved " + name, saved).like(shadow_[i]);
    shadow.push_back(ctx_.copy(scatter_rows(ctx_, saved, p->rows)));
  }
  s.finish(where);
  shadow_ = std::move(shadow);
  updates_ = updates;
}

}  // namespace lightcone
