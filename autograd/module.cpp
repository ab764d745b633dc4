#include "autograd/module.h"

#include <cstring>

#include "kernels/elementwise.h"

namespace lightcone {

std::vector<Named<Parameter>> Module::parameters() const {
  std::vector<Named<Parameter>> out = parameters_;
  for (const auto& [name, child] : children_)
    for (auto& p : child->parameters()) out.push_back({name + "." + p.name, p.item});
  return out;
}

std::vector<Named<Buffer>> Module::buffers() const {
  std::vector<Named<Buffer>> out = buffers_;
  for (const auto& [name, child] : children_)
    for (auto& b : child->buffers()) out.push_back({name + "." + b.name, b.item});
  return out;
}

int64_t Module::num_parameters() const {
  int64_t n = 0;
  for (const auto& [name, p] : parameters())
    if (p->trainable) n += p->value.numel();
  return n;
}

void Module::zero_grad() {
  for (const auto& [name, p] : parameters()) p->grad = {};
}

static Tensor permute_rows(Context& ctx, const Tensor& t, const std::vector<int64_t>& rows, bool gather) {
  const Tensor from_rows = ctx.host().here(t);
  if (rows.empty()) return from_rows;
  Tensor out = ctx.host().empty(t.shape(), t.dtype());
  const int64_t bytes = t.bytes() / t.dim(0);
  for (int64_t r = 0; r < t.dim(0); ++r) {
    const int64_t from = gather ? rows[r] : r, to = gather ? r : rows[r];
    std::memcpy(static_cast<char*>(out.raw()) + to * bytes, static_cast<const char*>(from_rows.raw()) + from * bytes,
                bytes);
  }
  return out;
}

Tensor gather_rows(Context& ctx, const Tensor& t, const std::vector<int64_t>& rows) {
  return permute_rows(ctx, t, rows, true);
}
Tensor scatter_rows(Context& ctx, const Tensor& t, const std::vector<int64_t>& rows) {
  return permute_rows(ctx, t, rows, false);
}

std::vector<std::pair<std::string, Tensor>> Module::state_dict(Context& ctx) const {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const auto& [name, p] : parameters()) out.emplace_back(name, gather_rows(ctx, p->value, p->rows));
  for (const auto& [name, b] : buffers()) out.emplace_back(name, ctx.host().here(b->value));
  return out;
}

void Module::load_state_dict(Context& ctx, const std::function<Tensor(const std::string&)>& get) {
  std::vector<std::pair<Tensor*, Tensor>> loaded;
  auto take = [&](const std::string& name, Tensor& target, const std::vector<int64_t>& rows) {
    const Tensor t = get(name);
    if (!t.defined()) fail("load_state_dict", "{} is missing", name);
    if (!(t.shape() == target.shape()))
      fail("load_state_dict", "{} has shape {}, this network's is {}", name, t.shape(), target.shape());
    Tensor copy = ctx.host().empty(target.shape(), target.dtype());
    kernels::cast(ctx.host(), t, copy);
    const Tensor ordered = scatter_rows(ctx, copy, rows);
    loaded.emplace_back(&target, target.device() == Device::cpu ? ordered : ctx.here(ordered));
  };
  for (const auto& [name, p] : parameters()) take(name, p->value, p->rows);
  for (const auto& [name, b] : buffers()) take(name, b->value, {});
  for (auto& [target, value] : loaded) *target = std::move(value);
}

}  // namespace lightcone
