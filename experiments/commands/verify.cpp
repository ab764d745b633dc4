#include <fmt/ranges.h>

#include <cmath>
#include <set>

#include "engine/safetensors.h"
#include "experiments/commands/commands.h"
#include "experiments/tagging/tagging.h"
#include "kernels/elementwise.h"

namespace lightcone {

namespace {

/// A network or an experiment that this version lacks: not a failure of the comparison.
struct NotThere : Error {
  using Error::Error;
};

std::vector<double> values(Context& ctx, const Tensor& t) {
  Tensor wide = ctx.empty(t.shape(), DType::f64);
  kernels::cast(ctx, t, wide);
  return {wide.data<double>(), wide.data<double>() + wide.numel()};
}

/// Compares quantities by name, one line each: largest error, tolerance, verdict.
class Comparison {
 public:
  explicit Comparison(bool all) : all_(all) {}

  /// Largest |ours - theirs| over `scale`, or over the largest |theirs| where scale is 0.
  void compare(const std::string& name, const std::vector<double>& ours, const std::vector<double>& theirs,
               double tolerance, double scale = 0) {
    if (ours.size() != theirs.size()) {
      line(name, fmt::format("{} numbers, the file has {}", ours.size(), theirs.size()), "", false);
      return;
    }
    double largest = scale, error = 0;
    if (scale == 0)
      for (double v : theirs) largest = std::max(largest, std::abs(v));
    for (size_t i = 0; i < ours.size(); ++i) {
      const double e = ours[i] == theirs[i] ? 0 : std::abs(ours[i] - theirs[i]) / (largest > 0 ? largest : 1);
      if (!(e <= error)) error = e;
    }
    line(name, fmt::format("{:.1e}", error), fmt::format("{:.1e}", tolerance), error <= tolerance);
  }
  void note(const std::string& name, const std::string& text) { fmt::print("  {:<62} {}\n", name, text); }
  void miss(const std::string& name, const std::string& text) { line(name, text, "", false); }
  int misses() const { return misses_; }
  int quantities() const { return quantities_; }

 private:
  void line(const std::string& name, const std::string& error, const std::string& tolerance, bool good) {
    ++quantities_;
    misses_ += !good;
    if (all_ || !good || !name.starts_with("grad/"))
      fmt::print("  {:<62} {:>9} {:>9}  {}\n", name, error, tolerance, good ? "ok" : "MISS");
  }
  bool all_;
  int misses_ = 0, quantities_ = 0;
};

double number(const std::map<std::string, std::string>& metadata, const std::string& key, double otherwise) {
  const auto it = metadata.find(key);
  if (it == metadata.end() || it->second == "None" || it->second == "null") return otherwise;
  try {
    return std::stod(it->second);
  } catch (const std::exception&) {
    fail("verify", "metadata '{}' is '{}', expected a number", key, it->second);
  }
}

/// 1e-9 in f64, or 100 times the noise that the file states, whichever is larger; 1e-4 for an f32 network.
double tolerance(const Safetensors& file, const std::string& noise, bool float32) {
  const double stated = std::max(number(file.metadata(), noise, 0), number(file.metadata(), "sensitivity", 0));
  return std::max(float32 ? 1e-4 : 1e-9, 100 * stated);
}

Json config_of(const Safetensors& file) {
  const auto it = file.metadata().find("config");
  if (it == file.metadata().end()) {
    const auto network = file.metadata().find("network");
    if (network != file.metadata().end())
      throw NotThere(fmt::format("the network '{}' is not in this version", network->second));
    fail("verify", "{} has no 'config' in its metadata; it is not a reference file of a whole model", file.path());
  }
  const Json json = Json::parse(it->second, nullptr, false);
  if (json.is_discarded()) fail("verify", "{}: the metadata's 'config' is not JSON", file.path());
  const std::string type = json.value("exp_type", "");
  if (type != "toptagging" && type != "jctagging" && type != "toptagxl" && type != "toptaggingft")
    throw NotThere(fmt::format("the experiment '{}' is not in this version", type));
  return reference_config(json);
}

JetSet jets_of(Context& ctx, const Safetensors& file) {
  JetSet jets;
  jets.fourmomenta = file.load(ctx, "in/fourmomenta");
  jets.scalars = file.load(ctx, "in/scalars");
  const Tensor ptr = file.load(ctx, "in/ptr");
  jets.ptr = ctx.empty(ptr.shape(), DType::i32);
  kernels::cast(ctx, ptr, jets.ptr);
  const Tensor label = file.load(ctx, "in/label");
  jets.labels = ctx.empty(label.shape(), DType::i64);
  kernels::cast(ctx, label, jets.labels);
  return jets;
}

void load_parameters(Context& ctx, const Safetensors& file, Module& model, Comparison& comparison) {
  std::set<std::string> wanted;
  model.load_state_dict(ctx, [&](const std::string& name) {
    wanted.insert("param/" + name);
    return file.has("param/" + name) ? file.load(ctx, "param/" + name) : Tensor();
  });
  for (const auto& name : file.names())
    if (name.starts_with("param/") && !wanted.contains(name))
      comparison.miss(name, "is in the file, but not in this network");
}

/// The jets that the file's embedding boosted into their rest frames, without the spurions.
JetSet boosted_jets(Context& ctx, const Safetensors& file, const JetSet& jets) {
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
  const double limit = tolerance(file, "noise_embedding", dtype == DType::f32);
  auto one = [&](const std::string& name, const Tensor& ours, const std::string& label, double tolerance) {
    const std::string key = "out/embedding_" + name;
    if (file.has(key))
      comparison.compare(label.empty() ? key : label, values(ctx, ours), values(ctx, file.load(ctx, key)), tolerance);
  };
  one("fourmomenta", e.fourmomenta, "", limit);
  one("scalars", e.scalars, "", limit);
  one("is_spurion", e.is_spurion, "", limit);
  one("batch", e.batch, "", limit);
  one("ptr", e.ptr, "", limit);
  double rest = 0;
  if (config.boost_jet && config.tagging_features && file.has("out/embedding_fourmomenta")) {
    // A jet at rest has eta_jet = pz_jet / 1e-5 (the bound on |p|), and its pz_jet is nothing but rounding: 1e-13 GeV become 1e-8 in deta and
    // four times that in dR. So features are compared given the file's boosted momenta, and then as a whole with that rounding allowed.
    EmbeddingConfig given = config;
    given.boost_jet = false;
    given.mass_reg.reset();
    given.max_particles.reset();
    const JetSet boosted = boosted_jets(ctx, file, jets);
    const Embedding theirs = embed_jets(ctx, given, boosted.fourmomenta, boosted.scalars, boosted.ptr, dtype);
    one("tagging_features", theirs.tagging_features, "out/embedding_tagging_features (given momenta)", limit);
    const auto features = values(ctx, file.load(ctx, "out/embedding_tagging_features"));
    double largest = 1e-300;
    for (double v : features) largest = std::max(largest, std::abs(v));
    const auto our_jets = values(ctx, e.jets), their_jets = values(ctx, theirs.jets);
    for (size_t i = 3; i < our_jets.size(); i += 4)
      rest = std::max(rest, 4 * (std::abs(our_jets[i]) + std::abs(their_jets[i])) / 1e-5 / largest);
  }
  one("tagging_features", e.tagging_features, "", std::max(limit, rest));
}

void compare_gradients(Context& ctx, const Safetensors& file, const Tagger& tagger, double limit,
                       Comparison& comparison) {
  // Some gradients are zero but for rounding, so all are measured against the largest entry of any.
  double largest = 0;
  for (const auto& name : file.names())
    if (name.starts_with("grad/"))
      for (double v : values(ctx, file.load(ctx, name))) largest = std::max(largest, std::abs(v));
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
    comparison.compare(key, ours, theirs, limit, largest);
    if (ours.size() == theirs.size())
      for (size_t i = 0; i < ours.size(); ++i)
        worst = std::max(worst, std::abs(ours[i] - theirs[i]) / (largest > 0 ? largest : 1));
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

/// The authors' training step, repeated from the stored state.
void compare_trajectory(Context& ctx, const Safetensors& file, ExperimentConfig config, Tagger& tagger,
                        const JetSet& jets, bool float32, Comparison& comparison) {
  if (!file.has("traj/loss")) return;
  const auto& m = file.metadata();
  config.training.lr = number(m, "lr", config.training.lr);
  auto theirs = values(ctx, file.load(ctx, "traj/loss"));
  const auto norms = file.has("traj/grad_norm") ? values(ctx, file.load(ctx, "traj/grad_norm")) : std::vector<double>{};
  const auto valid = static_cast<size_t>(number(m, "traj_valid_losses", static_cast<double>(theirs.size())));
  const bool ranger = config.training.optimizer == "Ranger";
  const double limit = std::max(tolerance(file, "noise_traj", float32), ranger ? 1e-6 : 0.0);
  Optimizer optimizer = make_optimizer(ctx, tagger, config.training);
  std::vector<double> losses, grad_norms;
  for (size_t s = 0; s < theirs.size(); ++s) {
    Tape tape(ctx);
    const Var loss = tagging_loss(tagger(tape, jets), jets.labels);
    tape.backward(loss);
    losses.push_back(loss.value().item());
    grad_norms.push_back(update(ctx, tagger, optimizer, nullptr, config.training, static_cast<int64_t>(s)).total);
  }
  if (valid < theirs.size())
    comparison.note("traj/loss", fmt::format("only {} of {} steps are free of random numbers", valid, theirs.size()));
  losses.resize(valid), theirs.resize(valid);
  comparison.compare("traj/loss", losses, theirs, limit);
  if (!norms.empty())
    comparison.compare("traj/grad_norm", {grad_norms.begin(), grad_norms.begin() + valid},
                       {norms.begin(), norms.begin() + valid}, limit);
  for (const auto& [name, p] : tagger.parameters()) {
    const std::string key = "traj/param_final/" + name;
    if (!file.has(key)) continue;
    if (valid < losses.size()) continue;
    // Lion moves by the sign of the gradient, which is noise where the gradient is zero.
    if (config.training.optimizer == "Lion")
      comparison.note(key, "not compared: Lion follows the sign of rounding noise");
    else
      comparison.compare(key, values(ctx, gather_rows(ctx, p->value, p->rows)), values(ctx, file.load(ctx, key)),
                         limit);
  }
}

void verify_tagging(Context& ctx, const Safetensors& file, const VerifyRequest& request, Comparison& comparison) {
  ExperimentConfig config = read_config(config_of(file));
  config.use_float64 = !request.float32;
  const DType dtype = request.float32 ? DType::f32 : DType::f64;
  const JetSet jets = jets_of(ctx, file);
  TaggingTask task = tagging_task(config);
  task.extra_scalars = jets.scalars.dim(1);

  // The embedding needs no network, so it is compared even where the network is not there.
  compare_embedding(ctx, file, config.data, jets, dtype, comparison);
  std::unique_ptr<Tagger> tagger;
  try {
    config.model["reference_behaviour"] = true;
    tagger = build_tagger(ctx, config, task);
  } catch (const Error& e) {
    if (std::string(e.what()).find("is not in this version") == std::string::npos) throw;
    throw NotThere(e.what());
  }
  load_parameters(ctx, file, *tagger, comparison);

  Intermediates mid;
  Tape tape(ctx);
  const Var logits = (*tagger)(tape, jets, &mid);
  const double limit = tolerance(file, "noise_logits", request.float32);
  for (const auto& [name, tensor] : mid)
    if (file.has("mid/" + name))
      comparison.compare("mid/" + name, values(ctx, tensor), values(ctx, file.load(ctx, "mid/" + name)), limit);
  comparison.compare("out/logits", values(ctx, logits.value()), values(ctx, file.load(ctx, "out/logits")), limit);
  const Var loss = tagging_loss(logits, jets.labels);
  comparison.compare("out/loss", values(ctx, loss.value()), values(ctx, file.load(ctx, "out/loss")), limit);
  tape.backward(loss);
  compare_gradients(ctx, file, *tagger, tolerance(file, "noise_grad", request.float32), comparison);
  tagger->zero_grad();
  if (file.has("eval/logits")) {
    Tape evaluate(ctx, Tape::Mode::evaluate);
    comparison.compare("eval/logits", values(ctx, (*tagger)(evaluate, jets).value()),
                       values(ctx, file.load(ctx, "eval/logits")), limit);
  }
  compare_trajectory(ctx, file, config, *tagger, jets, request.float32, comparison);
}

}  // namespace

int verify_command(const VerifyRequest& request) {
  int bad = 0, absent = 0;
  for (const auto& path : request.files) {
    fmt::print("{}\n", path);
    Comparison comparison(request.all);
    std::string verdict = "PASS";
    try {
      const Safetensors file(path);
      Context ctx(request.threads);
      verify_tagging(ctx, file, request, comparison);
    } catch (const NotThere& e) {
      verdict = fmt::format("NOT THERE ({})", e.what());
    } catch (const Error& e) {
      comparison.miss("", e.what());
    }
    if (comparison.misses())
      verdict = "MISS", ++bad;
    else if (verdict != "PASS")
      ++absent;
    fmt::print("  {}: {} of {} quantities agree\n", verdict, comparison.quantities() - comparison.misses(),
               comparison.quantities());
  }
  fmt::print("{} files: {} pass, {} miss, {} not there\n", request.files.size(), request.files.size() - bad - absent,
             bad, absent);
  return bad ? 1 : absent ? 2 : 0;
}

}  // namespace lightcone
