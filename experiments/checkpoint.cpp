#include "experiments/checkpoint.h"

#include "engine/safetensors.h"
#include "kernels/elementwise.h"
#include "version.h"

namespace lightcone {

namespace {

using Entries = std::vector<std::pair<std::string, Tensor>>;

Tensor number(Context& ctx, double value) { return ctx.host().of({}, DType::f64, {&value, 1}); }

// Numbers are stored as f64 tensors of rank 0: exact, infinite ones included.
void put(Context& ctx, Entries& out, const std::string& prefix, const State& state) {
  for (const auto& [name, t] : state.tensors) out.emplace_back(prefix + "tensor." + name, t);
  for (const auto& [name, v] : state.numbers) out.emplace_back(prefix + "number." + name, number(ctx, v));
}

State take(Context& ctx, const Safetensors& file, const std::string& prefix) {
  State state;
  for (const auto& name : file.names()) {
    if (name.starts_with(prefix + "tensor.")) state.tensors[name.substr(prefix.size() + 7)] = file.load(ctx, name);
    if (name.starts_with(prefix + "number."))
      state.numbers[name.substr(prefix.size() + 7)] = file.load(ctx, name).item();
  }
  return state;
}

void load(Context& ctx, const Safetensors& file, Module& model, const std::string& prefix) {
  model.load_state_dict(ctx, [&](const std::string& name) {
    // Averages exist for parameters only; buffers are taken as they are.
    if (file.has(prefix + name)) return file.load(ctx, prefix + name);
    return file.has(name) ? file.load(ctx, name) : Tensor();
  });
}

}  // namespace

void save_model(Context& ctx, const std::filesystem::path& path, const Module& model, const Ema* ema) {
  Entries out = model.state_dict(ctx);
  if (ema)
    for (const auto& [name, t] : ema->state_dict().tensors) out.emplace_back("ema." + name, t);
  save_safetensors(path, out, {{"format", "lightcone"}, {"version", LIGHTCONE_VERSION}});
}

void load_model(Context& ctx, const std::filesystem::path& path, Module& model) {
  load(ctx, Safetensors(path), model, "");
}

void load_averaged_model(Context& ctx, const std::filesystem::path& path, Module& model) {
  load(ctx, Safetensors(path), model, "ema.");
}

void save_state(Context& ctx, const std::filesystem::path& path, const TrainingState& s) {
  Entries out;
  for (auto& [name, t] : s.model.state_dict(ctx)) out.emplace_back("model." + name, std::move(t));
  put(ctx, out, "optimizer.", s.optimizer.state_dict());
  put(ctx, out, "scheduler.", s.scheduler.state_dict());
  if (s.ema) put(ctx, out, "ema.", s.ema->state_dict());
  put(ctx, out, "loop.", s.loop);
  for (const auto& [name, position] : ctx.rng().positions())
    out.emplace_back("rng." + name, number(ctx, static_cast<double>(position)));
  out.emplace_back("data.epoch", number(ctx, static_cast<double>(s.position.epoch)));
  out.emplace_back("data.batch", number(ctx, static_cast<double>(s.position.batch)));
  out.emplace_back("step", number(ctx, static_cast<double>(s.step)));
  save_safetensors(path, out, {{"format", "lightcone-state"}, {"version", LIGHTCONE_VERSION}});
}

void load_state(Context& ctx, const std::filesystem::path& path, TrainingState& s) {
  const Safetensors file(path);
  s.model.load_state_dict(ctx, [&](const std::string& name) {
    return file.has("model." + name) ? file.load(ctx, "model." + name) : Tensor();
  });
  s.optimizer.load_state_dict(take(ctx, file, "optimizer."));
  s.scheduler.load_state_dict(take(ctx, file, "scheduler."));
  if (s.ema) s.ema->load_state_dict(take(ctx, file, "ema."));
  s.loop = take(ctx, file, "loop.");
  std::map<std::string, uint64_t> positions;
  for (const auto& name : file.names())
    if (name.starts_with("rng.")) positions[name.substr(4)] = static_cast<uint64_t>(file.load(ctx, name).item());
  ctx.rng().set_positions(positions);
  s.position = {static_cast<int64_t>(file.load(ctx, "data.epoch").item()),
                static_cast<int64_t>(file.load(ctx, "data.batch").item())};
  s.step = static_cast<int64_t>(file.load(ctx, "step").item());
}

}  // namespace lightcone
