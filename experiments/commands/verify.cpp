#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "experiments/commands/commands.h"
#include "experiments/comparison.h"
#include "experiments/reference_file.h"
#include "experiments/tagging/tagging.h"
#include "models/registry.h"

namespace lightcone {

namespace {

constexpr const char* not_in_file = "not in the file";

/// With the file's entry of that name, if it has one; that it has none is said.
void compare_entry(Context& ctx, const Safetensors& file, const std::string& name, const Tensor& ours, double limit,
                   Comparison& comparison) {
  if (file.has(name))
    comparison.compare(name, values(ctx, ours), values(ctx, file.load(ctx, name)), limit);
  else
    comparison.note(name, not_in_file);
}

void load_parameters(Context& ctx, const Safetensors& file, Module& model, Comparison& comparison) {
  std::set<std::string> wanted;
  model.load_state_dict(ctx, [&](const std::string& name) {
    const std::string key = "param/" + name;
    wanted.insert(key);
    if (!file.has(key)) return Tensor();
    const Tensor t = file.load(ctx, key);
    for (double v : values(ctx, t))
      if (!std::isfinite(v)) fail("verify", "'{}' holds {}, expected finite numbers", key, v);
    return t;
  });
  for (const auto& name : file.names())
    if (name.starts_with("param/") && !wanted.contains(name))
      comparison.miss(name, "is in the file, but not in this network");
}

/// The jets that the file's embedding boosted into their rest frames, without the spurions.
JetSet boosted_jets(Context& context, const Safetensors& file, const JetSet& jets) {
  Context& ctx = context.host();
  const auto momenta = values(ctx, file.load(ctx, "out/embedding_fourmomenta")),
             spurion = values(ctx, file.load(ctx, "out/embedding_is_spurion"));
  const auto batch = values(ctx, file.load(ctx, "out/embedding_batch"));
  std::vector<double> kept, ptr(jets.size() + 1, 0.0);
  for (size_t t = 0; t < spurion.size() && 4 * t + 3 < momenta.size() && t < batch.size(); ++t) {
    if (spurion[t] != 0 || !(batch[t] >= 0 && batch[t] < static_cast<double>(jets.size()))) continue;
    kept.insert(kept.end(), &momenta[4 * t], &momenta[4 * t] + 4);
    ++ptr[static_cast<size_t>(batch[t]) + 1];
  }
  for (size_t b = 1; b < ptr.size(); ++b) ptr[b] += ptr[b - 1];
  JetSet out;
  out.fourmomenta = ctx.of({static_cast<int64_t>(kept.size() / 4), 4}, DType::f64, kept);
  out.ptr = ctx.of({static_cast<int64_t>(ptr.size())}, DType::i32, ptr);
  out.scalars = ctx.zeros({out.fourmomenta.dim(0), 0}, DType::f64);
  return out;
}

void compare_embedding(Context& ctx, const Safetensors& file, const EmbeddingConfig& config, const JetSet& jets,
                       DType dtype, Comparison& comparison) {
  const Embedding e = embed_jets(ctx, config, jets.fourmomenta, jets.scalars, jets.ptr, dtype);
  const double momentum_limit = 1e-9, limit = dtype == DType::f32 ? 1e-4 : 1e-9;  // momenta stay in f64
  auto one = [&](const std::string& name, const Tensor& ours, double tolerance) {
    compare_entry(ctx, file, "out/embedding_" + name, ours, tolerance, comparison);
  };
  one("fourmomenta", e.fourmomenta, momentum_limit);
  one("scalars", e.scalars, limit);
  one("is_spurion", e.is_spurion, limit);
  one("batch", e.batch, limit);
  one("ptr", e.ptr, limit);
  double rest = 0;
  const auto there = [&](const char* name) { return file.has(fmt::format("out/embedding_{}", name)); };
  if (config.boost_jet && config.tagging_features && there("fourmomenta") && there("is_spurion") && there("batch") &&
      there("tagging_features")) {
    // A jet at rest has eta_jet = pz_jet / 1e-5 (the bound on |p|), and its pz_jet is nothing but rounding: 1e-13 GeV
    // become 1e-8 in deta and four times that in dR. So features are compared given the file's boosted momenta, and
    // then as a whole with that rounding allowed.
    EmbeddingConfig given = config;
    given.boost_jet = false;
    given.mass_reg.reset();
    given.max_particles.reset();
    const JetSet boosted = boosted_jets(ctx, file, jets);
    const Embedding theirs = embed_jets(ctx, given, boosted.fourmomenta, boosted.scalars, boosted.ptr, dtype);
    const auto features = values(ctx, file.load(ctx, "out/embedding_tagging_features"));
    comparison.compare("out/embedding_tagging_features (given momenta)", values(ctx, theirs.tagging_features), features,
                       limit);
    const double largest = std::max(1e-300, largest_of(features));
    const auto our_jets = values(ctx, e.jets), their_jets = values(ctx, theirs.jets);
    // More than 1e-10 of the jet's energy is no rounding, and is not allowed for.
    auto rounding = [](const std::vector<double>& jet, size_t pz) {
      return std::min(std::abs(jet[pz]), 1e-10 * std::abs(jet[pz - 3]));
    };
    for (size_t i = 3; i < our_jets.size() && i < their_jets.size(); i += 4)
      rest = std::max(rest, 4 * (rounding(our_jets, i) + rounding(their_jets, i)) / 1e-5 / largest);
  }
  one("tagging_features", e.tagging_features, std::max(limit, rest));
}

void compare_gradients(Context& ctx, const Safetensors& file, const Tagger& tagger, double limit,
                       Comparison& comparison) {
  // Some gradients are zero but for rounding, so all are measured against the largest entry of any.
  double largest = 0;
  bool any = false;
  for (const auto& name : file.names())
    if (name.starts_with("grad/"))
      any = true, largest = std::max(largest, largest_of(values(ctx, file.load(ctx, name))));
  if (!any) return comparison.note("grad/*", not_in_file);
  double worst = 0;
  int count = 0;
  for (const auto& [name, p] : tagger.parameters()) {
    const std::string key = "grad/" + name;
    if (!file.has(key)) {
      if (p->grad.defined() && p->trainable) comparison.miss(key, "is not in the file, this network has it");
      continue;
    }
    const auto theirs = values(ctx, file.load(ctx, key));
    const auto ours =
        p->grad.defined() ? values(ctx, gather_rows(ctx, p->grad, p->rows)) : std::vector<double>(theirs.size(), 0.0);
    worst = worse(worst, comparison.compare(key, ours, theirs, limit, largest));
    ++count;
  }
  for (const auto& name : file.names()) {
    if (!name.starts_with("grad/")) continue;
    bool known = false;
    for (const auto& [p, item] : tagger.parameters()) known |= name == "grad/" + p;
    if (!known) comparison.miss(name, "is in the file, but not in this network");
  }
  comparison.note(fmt::format("grad/* ({} gradients)", count), fmt::format("{:>9.1e} {:>9.1e}", worst, limit));
}

/// The first steps of the file's trajectory that used no random numbers.
size_t valid_steps(const Safetensors& file, size_t steps) {
  const double valid = number(file, "traj_valid_losses", static_cast<double>(steps));
  if (valid > static_cast<double>(steps) || valid != std::floor(valid))
    fail("verify", "metadata 'traj_valid_losses' is {}, expected an integer from 0 to {}, the steps in traj/loss",
         valid, steps);
  return static_cast<size_t>(valid);
}

/// The authors' training step, repeated from the stored state.
void compare_trajectory(Context& ctx, const Safetensors& file, ExperimentConfig config, Tagger& tagger,
                        const JetSet& jets, bool float32, Comparison& comparison) {
  if (!file.has("traj/loss")) return comparison.note("traj/loss", "not in the file: no training step is compared");
  const auto theirs = values(ctx, file.load(ctx, "traj/loss"));
  const size_t steps = theirs.size(), valid = valid_steps(file, steps);
  config.training.lr = number(file, "lr", config.training.lr);
  const bool ranger = config.training.optimizer == "Ranger";
  const double limit = std::max(tolerance(file, "noise_traj", float32), ranger ? 1e-6 : 0.0);
  if (valid < steps)
    comparison.note("traj/*", fmt::format("only {} of {} steps are free of random numbers", valid, steps));
  if (valid == 0) return comparison.note("traj/loss", "no step to compare");
  Optimizer optimizer = make_optimizer(ctx, tagger, config.training);
  std::vector<double> losses, grad_norms;
  for (size_t s = 0; s < valid; ++s) {
    Tape tape(ctx);
    const Var loss = tagging_loss(tagger(tape, jets), jets.labels);
    tape.backward(loss);
    losses.push_back(loss.value().item());
    grad_norms.push_back(update(ctx, tagger, optimizer, nullptr, config.training, static_cast<int64_t>(s)).get().total);
  }
  comparison.compare("traj/loss", losses, {theirs.begin(), theirs.begin() + valid}, limit);
  // What the noise of noise_traj is for losses, that of noise_grad is for gradients and for what they make of
  // parameters.
  const double gradient_limit = std::max(limit, tolerance(file, "noise_grad", float32));
  if (file.has("traj/grad_norm")) {
    auto norms = values(ctx, file.load(ctx, "traj/grad_norm"));
    if (norms.size() == steps) norms.resize(valid);
    comparison.compare("traj/grad_norm", grad_norms, norms, gradient_limit);
  } else {
    comparison.note("traj/grad_norm", not_in_file);
  }
  if (valid < steps) return;  // the final parameters come after the random numbers
  int missing = 0;
  for (const auto& [name, p] : tagger.parameters()) {
    const std::string key = "traj/param_final/" + name;
    // Lion moves by the sign of the gradient, which is noise where the gradient is zero.
    if (!file.has(key))
      ++missing;
    else if (config.training.optimizer == "Lion")
      comparison.note(key, "not compared: Lion follows the sign of rounding noise");
    else
      compare_entry(ctx, file, key, gather_rows(ctx, p->value, p->rows), gradient_limit, comparison);
  }
  if (missing) comparison.note(fmt::format("traj/param_final/* ({})", missing), not_in_file);
}

/// By how much one unit in the last place of the momenta moves what the network gives on its way, relative to the
/// largest number of each: boosts of nearly light-like momenta and logarithms of their masses make it far more.
std::map<std::string, double> effect_of_rounding(Context& ctx, Tagger& tagger, const JetSet& jets) {
  const auto positions = ctx.rng().positions();
  JetSet rounded = jets;
  auto p = values(ctx, jets.fourmomenta);
  for (size_t i = 0; i < p.size(); ++i) p[i] = std::nextafter(p[i], i % 3 ? INFINITY : -INFINITY);
  rounded.fourmomenta = ctx.host().of(jets.fourmomenta.shape(), DType::f64, p);
  Intermediates mid, moved;
  for (const auto& [momenta, to] : {std::pair{&jets, &mid}, {&rounded, &moved}}) {
    Tape tape(ctx, Tape::Mode::evaluate);
    tagger(tape, *momenta, to);
  }
  ctx.rng().set_positions(positions);
  std::map<std::string, double> effect;
  for (const auto& [name, tensor] : mid) {
    const auto before = values(ctx, tensor), after = values(ctx, moved.at(name));
    double largest = 0;
    for (size_t i = 0; i < before.size(); ++i) largest = std::max(largest, std::abs(after[i] - before[i]));
    effect[name] = largest / std::max(1e-300, largest_of(before));
  }
  return effect;
}

/// Compares what the network gave on its way, and names what it has no counterpart for. The file's noise is that of the
/// logits; intermediates may have more of it: ten times the effect of rounding is allowed, up to 1e-4.
void compare_intermediates(Context& ctx, const Safetensors& file, const Intermediates& mid, double limit,
                           const std::map<std::string, double>& rounding, Comparison& comparison) {
  auto allowed = [&](const std::string& name) {
    const auto it = rounding.find(name);
    return it == rounding.end() ? 0 : std::min(10 * it->second, 1e-4);
  };
  std::vector<std::string> others;
  for (const auto& name : file.names()) {
    if (!name.starts_with("mid/")) continue;
    const auto it = mid.find(name.substr(4));
    if (it == mid.end())
      others.push_back(name);
    else
      comparison.compare(name, values(ctx, it->second), values(ctx, file.load(ctx, name)),
                         std::max(limit, allowed(it->first)));
  }
  if (!others.empty())
    comparison.note(fmt::format("mid/* ({})", others.size()), fmt::format("not compared: {}", fmt::join(others, ", ")));
}

/// What the first pass has measured or moved.
void compare_buffers(Context& ctx, const Safetensors& file, const Tagger& tagger, double limit,
                     Comparison& comparison) {
  const auto buffers = tagger.buffers();
  for (const auto& name : file.names()) {
    if (!name.starts_with("buffer_after/")) continue;
    const auto it =
        std::find_if(buffers.begin(), buffers.end(), [&](auto& b) { return "buffer_after/" + b.name == name; });
    if (it == buffers.end())
      comparison.miss(name, "is in the file, but not in this network");
    else
      comparison.compare(name, values(ctx, it->item->value), values(ctx, file.load(ctx, name)), limit);
  }
}

/// Random frames are those of the file: of the pass that it holds, then of its training steps.
void take_random_frames(Context& ctx, const Safetensors& file, const Json& framesnet) {
  if (framesnet.value("type", "") != "RandomFrames" || !file.has("mid/frames")) return;
  std::vector<double> matrices = values(ctx, file.load(ctx, "mid/frames"));
  if (framesnet.value("is_global", true)) matrices.resize(std::min<size_t>(matrices.size(), 16));
  if (file.has("traj/frames")) {
    const auto steps = values(ctx, file.load(ctx, "traj/frames"));
    matrices.insert(matrices.end(), steps.begin(), steps.end());
  }
  ctx.rng().replace("random_frames", std::move(matrices));
}

void verify_tagging(Context& ctx, const Safetensors& file, const VerifyRequest& request, Comparison& comparison) {
  ExperimentConfig config = read_config(config_of(file));
  config.use_float64 = !request.float32;
  const DType dtype = request.float32 ? DType::f32 : DType::f64;
  TaggingTask task = tagging_task(config);
  const JetSet jets = jets_of(ctx, file, std::max<int64_t>(task.num_outputs, 2));
  if (!file.has("in/scalars")) comparison.note("in/scalars", "not in the file: taken as none");
  task.extra_scalars = jets.scalars.dim(1);

  // The embedding needs no network, so it is compared even where the network is not there.
  compare_embedding(ctx, file, config.data, jets, dtype, comparison);
  if (config.weightquant.use || config.inputquant.use) throw NotThere("quantisation is not in this version");
  std::unique_ptr<Tagger> tagger;
  try {
    config.model["reference_behaviour"] = true;
    tagger = build_tagger(ctx, config, task);
  } catch (const NotInThisVersion& e) {
    throw NotThere(e.what());
  }
  load_parameters(ctx, file, *tagger, comparison);

  tagger->standardise(ctx, jets);  // what the reference measures in its first pass, where it has not yet
  if (config.model.contains("framesnet")) take_random_frames(ctx, file, config.model["framesnet"]);
  Intermediates mid;
  Tape tape(ctx);
  const Var logits = (*tagger)(tape, jets, &mid);
  const double limit = tolerance(file, "noise_logits", request.float32);
  compare_intermediates(ctx, file, mid, limit, effect_of_rounding(ctx, *tagger, jets), comparison);
  compare_buffers(ctx, file, *tagger, limit, comparison);
  const Var loss = tagging_loss(logits, jets.labels);
  for (const auto& [name, ours] : {std::pair{"out/logits", logits}, std::pair{"out/loss", loss}})
    if (file.has(name))
      compare_entry(ctx, file, name, ours.value(), limit, comparison);
    else
      comparison.miss(name, not_in_file);
  tape.backward(loss);
  compare_gradients(ctx, file, *tagger, tolerance(file, "noise_grad", request.float32), comparison);
  tagger->zero_grad();
  Tape evaluate(ctx, Tape::Mode::evaluate);
  compare_entry(ctx, file, "eval/logits", (*tagger)(evaluate, jets).value(), limit, comparison);
  compare_trajectory(ctx, file, config, *tagger, jets, request.float32, comparison);
}

}  // namespace

int verify_command(const VerifyRequest& request) {
  int pass = 0, miss = 0, absent = 0, other = 0;
  const Device device = command_device(request.device);
  for (const auto& path : request.files) {
    fmt::print("{}\n", printable(path));
    Comparison comparison(request.all);
    std::string verdict = "PASS";
    int* count = &pass;
    try {
      const Safetensors file(path);
      Context ctx(device, request.threads);
      verify_tagging(ctx, file, request, comparison);
    } catch (const NotThere& e) {
      verdict = fmt::format("NOT THERE ({})", printable(e.what())), count = &absent;
    } catch (const NotAModel& e) {
      verdict = fmt::format("NOT A MODEL FILE ({})", printable(e.what())), count = &other;
    } catch (const Error& e) {
      comparison.miss("", e.what());
    } catch (const std::bad_alloc&) {
      comparison.miss("", "the network needs more memory than there is; is the metadata's 'config' right?");
    } catch (const std::exception&) {
      comparison.miss("", "the file cannot be compared; is the metadata's 'config' right?");
    }
    if (comparison.misses()) {
      if (count != &pass) comparison.note("", verdict);
      verdict = "MISS", count = &miss;
    }
    ++*count;
    fmt::print("  {}: {} of {} quantities agree\n", verdict, comparison.quantities() - comparison.misses(),
               comparison.quantities());
  }
  fmt::print("{} files: {} pass, {} miss, {} not there, {} no model files\n", request.files.size(), pass, miss, absent,
             other);
  return miss ? 1 : absent + other ? 2 : 0;
}

}  // namespace lightcone
