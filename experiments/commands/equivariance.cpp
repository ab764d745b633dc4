#include <cmath>
#include <filesystem>

#include "data/toptagging.h"
#include "experiments/commands/commands.h"
#include "experiments/paths.h"
#include "experiments/plots.h"
#include "experiments/tagging/tagging.h"
#include "experiments/toml.h"
#include "kernels/minkowski.h"
#include "models/random_frames.h"
#include "models/registry.h"

namespace lightcone {

namespace {

using Lorentz = std::array<double, 16>;

/// A boost by `rapidity` into a unit direction.
Lorentz boost(double rapidity, const std::array<double, 3>& n) {
  const double c = std::cosh(rapidity), s = std::sinh(rapidity);
  Lorentz m{};
  m[0] = c;
  for (int i = 0; i < 3; ++i) {
    m[1 + i] = m[4 + 4 * i] = s * n[i];
    for (int j = 0; j < 3; ++j) m[5 + 4 * i + j] = (i == j) + (c - 1) * n[i] * n[j];
  }
  return m;
}

enum class Kind { beam_rotation, beam_boost, rotation, boost };

Lorentz draw_transformation(Rng& rng, Kind kind, double rapidity) {
  const Draw draw = rng.draw("equivariance", 16);
  const std::array<double, 3> u = {draw.uniform53(0), draw.uniform53(1), draw.uniform53(2)};
  const double z = 2 * draw.uniform53(3) - 1, phi = 2 * M_PI * draw.uniform53(4), r = std::sqrt(1 - z * z);
  switch (kind) {
    case Kind::beam_rotation:
      return random_transform("xyrotation", 0, u, {});
    case Kind::beam_boost:
      return boost(u[0] < 0.5 ? rapidity : -rapidity, {0, 0, 1});
    case Kind::rotation:
      return random_transform("rotation", 0, u, {});
    default:
      return boost(rapidity, {r * std::cos(phi), r * std::sin(phi), z});
  }
}

JetSet moved(Context& ctx, const JetSet& jets, const Lorentz& lambda) {
  const int64_t T = jets.fourmomenta.dim(0);
  std::vector<double> rows(16 * T);
  for (int64_t t = 0; t < T; ++t) std::copy(lambda.begin(), lambda.end(), rows.begin() + 16 * t);
  JetSet out = jets;
  out.fourmomenta = ctx.empty({T, 4}, DType::f64);
  kernels::lorentz_transform(ctx, ctx.of({T, 4, 4}, DType::f64, rows), jets.fourmomenta, out.fourmomenta);
  return out;
}

/// Light constituents get the regulator's mass.
JetSet regulated(Context& ctx, const JetSet& jets, EmbeddingConfig embedding) {
  embedding.boost_jet = false;
  embedding.max_particles = {};
  JetSet out = jets;
  out.fourmomenta = embed_jets(ctx, embedding, jets.fourmomenta, ctx.empty({jets.fourmomenta.dim(0), 0}, DType::f64),
                               jets.ptr, DType::f64, {.spurions = false, .tagging_features = false})
                        .fourmomenta;
  return out;
}

/// The same network in f64 and f32, in any laboratory.
class Network {
 public:
  Network(Context& ctx, const ExperimentConfig& config, const TaggingTask& task, Tagger& parameters)
      : ctx_(ctx), config_(config), task_(task), parameters_(parameters) {}

  /// Logits of jets that went through lambda; the reference vectors went with them, unless `fixed`.
  std::vector<double> logits(const JetSet& jets, DType dtype, const Lorentz* lambda, bool fixed) const {
    EmbeddingConfig embedding = config_.data;
    if (lambda && !fixed) embedding.laboratory = *lambda;
    auto tagger = make_tagger(ctx_, config_.model, task_, embedding, dtype);
    const auto state = parameters_.state_dict(ctx_);
    tagger->load_state_dict(ctx_, [&](const std::string& name) {
      for (const auto& [key, tensor] : state)
        if (key == name) return tensor;
      return Tensor();
    });
    Workers workers(ctx_);
    PreparedWeights prepared(ctx_);
    const JetSet there = lambda ? moved(ctx_, jets, *lambda) : jets;
    return tagger_logits(workers, prepared, *tagger, there, 512, config_.data.momentum_dtype());
  }

 private:
  Context& ctx_;
  const ExperimentConfig& config_;
  const TaggingTask& task_;
  Tagger& parameters_;
};

struct Deviation {
  double sum = 0, largest = 0, count = 0;
  void add(const std::vector<double>& a, const std::vector<double>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      const double d = std::abs(a[i] - b[i]);
      sum += d, ++count;
      largest = !(d <= largest) ? d : largest;  // NaN stays
    }
  }
  double mean() const { return count > 0 ? sum / count : 0; }
};

struct Row {
  std::string name;
  double rapidity;
  Kind kind;
  Deviation f64, f32, fixed;
};

Figure figure(const std::string& title, const std::vector<Row>& rows) {
  Figure f{.title = title,
           .x = {.label = "rapidity of the boost"},
           .y = {.label = "mean change of the logit", .log = true},
           .series = {{.label = "f64", .x = {}, .y = {}, .style = Style::Marked, .color = 0},
                      {.label = "f32", .x = {}, .y = {}, .style = Style::Marked, .color = 1},
                      {.label = "f64, beams stay", .x = {}, .y = {}, .style = Style::Marked, .color = 2}}};
  for (const Row& row : rows) {
    if (row.kind != Kind::boost) continue;
    const Deviation* const deviations[] = {&row.f64, &row.f32, &row.fixed};
    for (int i = 0; i < 3; ++i) {
      f.series[i].x.push_back(row.rapidity);
      f.series[i].y.push_back(deviations[i]->mean());
    }
  }
  return f;
}

}  // namespace

int equivariance_command(const EquivarianceRequest& request) {
  namespace fs = std::filesystem;
  ExperimentConfig config;
  fs::path plot = request.plot, model;
  if (request.run_folder.empty()) {
    config = read_config(compose(request.compose));
    validate(config);
  } else {
    const fs::path folder = request.run_folder;
    if (!fs::exists(folder / "config.toml"))
      fail("inspect", "{} is not the folder of a run: it has no config.toml", folder.string());
    const int64_t index = latest_index(folder);
    const fs::path own = folder / fmt::format("config_{}.toml", index);
    config = read_config(read_toml(fs::exists(own) ? own : folder / "config.toml"));
    model = RunFolder::model_path(folder, index);
    if (plot.empty()) plot = folder / fmt::format("plots_{}", index) / "equivariance.svg";
  }
  Context ctx(request.threads, static_cast<uint64_t>(config.seed.value_or(0)));
  const TaggingTask task = tagging_task(config);
  const auto file = find_data(config.data.data_dir, fmt::format("toptagging_{}.npz", config.data.dataset));
  const JetSet all = read_toptagging(ctx.host(), file, "test");
  std::vector<int64_t> indices(std::min(request.jets, all.size()));
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int64_t>(i);
  JetSet jets = gather_jets(ctx.host(), all, indices, DType::f64);
  if (request.regulate) jets = regulated(ctx, jets, config.data);

  auto parameters = make_tagger(ctx, config.model, task, config.data, DType::f64);
  if (model.empty())
    parameters->standardise(ctx, jets);
  else
    load_averaged_model(ctx, model, *parameters);
  const Network network(ctx, config, task, *parameters);
  const auto f64 = network.logits(jets, DType::f64, nullptr, false),
             f32 = network.logits(jets, DType::f32, nullptr, false);
  Deviation size;
  size.add(f64, std::vector<double>(f64.size(), 0.0));
  const std::string title = fmt::format("{} with {} parameters, {}", parameters->title(), parameters->num_parameters(),
                                        model.empty() ? std::string("untrained") : model.string());
  fmt::print("{}\n{} jets of the test set of {}; mean |logit| {:.3g}\n", title, jets.size(), file.string(),
             size.mean());
  if (config.model.contains("framesnet"))
    fmt::print("frames {}, features of the frames network {}, beams {}, time {}\n",
               config.model["framesnet"].value("type", "IdentityFrames"), config.data.tagging_features.value_or("none"),
               config.data.beam_reference.value_or("none"), config.data.add_time_reference ? "yes" : "none");
  fmt::print("\n{:<34} {:>21} {:>21} {:>21}\n{:<34} {:>21} {:>21} {:>21}\n", "change of the logit, mean and largest",
             "f64", "f32", "f64, beams stay", "", "beams move along", "beams move along", "in the laboratory");

  std::vector<Row> rows = {{"rotations about the beam", 0, Kind::beam_rotation, {}, {}, {}},
                           {"boosts along the beam, rapidity 1", 1, Kind::beam_boost, {}, {}, {}},
                           {"rotations", 0, Kind::rotation, {}, {}, {}}};
  for (double rapidity : {0.1, 0.5, 1., 2., 3., 4., 5.})
    rows.push_back({fmt::format("boosts, rapidity {}", rapidity), rapidity, Kind::boost, {}, {}, {}});
  Rng rng(1);
  for (Row& row : rows) {
    for (int64_t i = 0; i < request.directions; ++i) {
      const Lorentz lambda = draw_transformation(rng, row.kind, row.rapidity);
      row.f64.add(network.logits(jets, DType::f64, &lambda, false), f64);
      row.f32.add(network.logits(jets, DType::f32, &lambda, false), f32);
      row.fixed.add(network.logits(jets, DType::f64, &lambda, true), f64);
    }
    fmt::print("{:<34}   {:>9.1e} {:>9.1e}   {:>9.1e} {:>9.1e}   {:>9.1e} {:>9.1e}\n", row.name, row.f64.mean(),
               row.f64.largest, row.f32.mean(), row.f32.largest, row.fixed.mean(), row.fixed.largest);
  }
  if (plot.empty()) return 0;
  if (const std::string text = svg(figure(title, rows)); !text.empty()) {
    if (plot.has_parent_path()) fs::create_directories(plot.parent_path());
    write_atomic(plot, text);
    fmt::print("\nPlot: {}\n", plot.string());
  }
  return 0;
}

}  // namespace lightcone
