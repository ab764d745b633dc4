#include <chrono>
#include <cmath>

#include "data/toptagging.h"
#include "engine/file.h"
#include "engine/safetensors.h"
#include "experiments/figures.h"
#include "experiments/interrupt.h"
#include "experiments/machine.h"
#include "experiments/paths.h"
#include "experiments/progress.h"
#include "experiments/report.h"
#include "experiments/tagging/tagging.h"
#include "experiments/toml.h"

namespace lightcone {

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Sets {
  JetSet train, val, test;
  const JetSet& of(const std::string& name) const { return name == "train" ? train : name == "val" ? val : test; }
};

// An area under the curve needs both; found out before a training, not after it.
void require_both_classes(const JetSet& jets, const std::string& what) {
  const auto labels = jets.labels.span<int64_t>();
  if (labels.empty()) fail("run", "{} has no jets", what);
  if (std::all_of(labels.begin(), labels.end(), [&](int64_t l) { return l == labels[0]; }))
    fail("run", "{} has {} jets only; both classes are needed", what, labels[0] ? "signal" : "background");
}

Sets load_sets(Context& ctx, const ExperimentConfig& config, Log& log) {
  if (config.exp_type != "toptagging")
    fail("run",
         "exp_type {} is not in this version of lightcone, which runs toptagging; its configuration composes, its data "
         "reader is to come",
         config.exp_type);
  const auto start = Clock::now();
  const auto path = find_data(config.data.data_dir, fmt::format("toptagging_{}.npz", config.data.dataset));
  log->info("Reading {}", path.string());
  Sets sets;
  if (config.train) sets.train = read_toptagging(ctx, path, "train"), sets.val = read_toptagging(ctx, path, "val");
  for (const auto& name : config.evaluation.eval_set) {
    JetSet& set = name == "train" ? sets.train : name == "val" ? sets.val : sets.test;
    if (config.evaluate && set.size() == 0) set = read_toptagging(ctx, path, name);
  }
  for (const char* name : {"train", "val", "test"})
    if (const JetSet& set = sets.of(name); set.labels.defined() && (std::string(name) != "train" || config.train))
      require_both_classes(set, fmt::format("{}: the {} set", path.string(), name));
  for (const char* name : {"train", "val", "test"})
    if (const JetSet& set = sets.of(name); set.size())
      log->info("{:>5}: {} jets, {:.1f} constituents on average", name, set.size(),
                static_cast<double>(set.fourmomenta.dim(0)) / static_cast<double>(set.size()));
  log->info("Read in {:.2f} s", seconds_since(start));
  return sets;
}

std::vector<int> int_labels(const JetSet& jets) {
  const auto labels = jets.labels.span<int64_t>();
  return {labels.begin(), labels.end()};
}

struct Evaluation {
  EvaluatedSets sets;
  std::vector<int> labels;  // of the set that is drawn: test where it is there
  std::vector<double> logits;
  std::string drawn;
};

void evaluate(Context& ctx, Tagger& tagger, const Sets& sets, const ExperimentConfig& config, const std::string& suffix,
              Evaluation& out, Log& log) {
  const DType momentum = config.data.momentum_dtype();
  Workers workers(ctx);
  PreparedWeights prepared(ctx);
  // The test set first: its numbers are the ones to quote, and the figures mark the first set.
  std::vector<std::string> names = config.evaluation.eval_set;
  std::stable_partition(names.begin(), names.end(), [](const std::string& name) { return name == "test"; });
  for (const auto& name : names) {
    const JetSet& jets = sets.of(name);
    const auto start = Clock::now();
    std::vector<double> logits = tagger_logits(workers, prepared, tagger, jets, config.evaluation.batchsize, momentum);
    const double rate = static_cast<double>(jets.size()) / std::max(seconds_since(start), 1e-9);
    std::vector<int> labels = int_labels(jets);
    BinaryMetrics m = binary_metrics(labels, logits);
    log->info("Evaluated {}: {} jets, {:.0f} jets/s", name + suffix, jets.size(), rate);
    if (suffix.empty() && (name == "test" || out.drawn.empty()))
      out.labels = labels, out.logits = logits, out.drawn = name;
    out.sets.emplace_back(name + suffix, std::move(m));
  }
}

Json results_json(const Evaluation& evaluation, const Tagger& tagger, const TrainingHistory& history, double seconds) {
  Json json = Json::object();
  for (const auto& [name, metrics] : evaluation.sets) json[name] = to_json(metrics);
  json["num_parameters"] = tagger.num_parameters();
  json["training_seconds"] = history.training_seconds;
  json["seconds"] = seconds;
  json["peak_memory_mib"] = static_cast<double>(peak_memory()) / 1048576.0;
  return json;
}

std::vector<std::pair<std::string, Figure>> figures(const ExperimentConfig& config, const TrainingHistory& h,
                                                    const Evaluation& e) {
  std::vector<std::pair<std::string, Figure>> out;
  if (config.plotting.roc && !e.sets.empty()) out.emplace_back("roc", roc_figure(e.sets));
  if (config.plotting.score && !e.logits.empty())
    out.emplace_back("score", score_figure(e.labels, e.logits, "top", "QCD"));
  if (config.plotting.loss && !h.loss.empty()) {
    out.emplace_back("loss", loss_figure(h.loss, h.validation_step, h.validation_loss));
    out.emplace_back("lr", learning_rate_figure(h.lr));
    if (config.training.log_grad_norm) out.emplace_back("grad_norm", gradient_norm_figure(h.grad_norm));
  }
  return out;
}

Report make_report(const ExperimentConfig& config, const Tagger& tagger, const TrainingHistory& h, const Evaluation& e,
                   double seconds, Context& ctx) {
  Report r;
  r.title = fmt::format("{} / {}", config.exp_name, *config.run_name);
  r.subtitle = fmt::format("{} with {} parameters on top tagging ({}): top-quark jets against QCD jets.",
                           tagger.title(), tagger.num_parameters(), config.data.dataset);
  r.facts = {{"Network", tagger.title()}, {"Parameters", fmt::format("{}", tagger.num_parameters())}};
  if (!h.loss.empty()) {
    r.facts.emplace_back("Iterations", fmt::format("{}", h.loss.size()));
    r.facts.emplace_back("Batch size", fmt::format("{}", config.training.batchsize));
    r.facts.emplace_back("Training", duration_text(h.training_seconds));
    r.facts.emplace_back("Speed", fmt::format("{:.0f} jets/s", h.items_per_second));
  }
  r.subtitle += fmt::format(" Whole run: {}.", duration_text(seconds));
  r.facts.emplace_back("Threads", fmt::format("{}", ctx.threads()));
  r.facts.emplace_back("Peak memory", bytes_text(peak_memory()));
  if (ctx.device() == Device::cuda) r.facts.emplace_back("On the GPU", bytes_text(ctx.allocator().statistics().peak));
  r.facts.emplace_back("Seed", fmt::format("{}", *config.seed));
  if (!e.sets.empty()) r.tables.push_back(results_table(e.sets));
  for (const auto& [name, figure] : figures(config, h, e)) r.figures.push_back({svg(figure), ""});
  ExperimentConfig copy = config;
  r.sections.push_back({.title = "Machine", .facts = machine_facts(ctx.device())});
  r.sections.push_back({.title = "Versions", .facts = version_facts()});
  r.sections.push_back({.title = "Configuration", .text = toml_text(write_fields(copy))});
  return r;
}

void write_plots(const RunFolder& folder, const ExperimentConfig& config, const TrainingHistory& h,
                 const Evaluation& e) {
  std::filesystem::create_directories(folder.plots_path());
  for (const auto& [name, figure] : figures(config, h, e))
    if (const std::string text = svg(figure); !text.empty()) write_atomic(folder.plots_path() / (name + ".svg"), text);
  if (config.evaluation.save_roc && !e.sets.empty()) {
    std::string text = "# background efficiency, signal efficiency\n";
    for (const auto& [name, m] : e.sets)
      if (name == e.drawn)
        for (size_t k = 0; k < m.roc.threshold.size(); ++k)
          text += fmt::format("{:.9g} {:.9g}\n", m.roc.background_efficiency(k), m.roc.signal_efficiency(k));
    write_atomic(folder.plots_path() / "roc.txt", text);
  }
}

void print_table(const EvaluatedSets& sets, Log& log) {
  const Table table = results_table(sets);
  std::vector<size_t> width(table.header.size(), 0);
  auto columns = [](const std::string& s) {
    return static_cast<size_t>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  };
  auto rows = table.rows;
  rows.insert(rows.begin(), table.header);
  for (auto& name : rows.front())  // subscripts are for the page
    std::erase_if(name, [](char c) { return c == '{' || c == '}'; });
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], columns(row[i]));
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += std::string(width[i] - columns(row[i]) + (i ? 3 : 0), ' ') + row[i];
    log->info("{}", line);
  }
}

void finish(const ExperimentConfig& config, const RunFolder& folder, const Tagger& tagger,
            const TrainingHistory& history, const Evaluation& evaluation, double seconds, Context& ctx, Log& log) {
  if (!evaluation.sets.empty()) print_table(evaluation.sets, log);
  log->info("Finished after {}, peak memory {}{}", duration_text(seconds), bytes_text(peak_memory()),
            ctx.device() == Device::cuda ? fmt::format(", on the GPU {}", bytes_text(ctx.allocator().statistics().peak))
                                         : "");
  if (!folder.saves()) return;
  if (config.plot) {
    write_plots(folder, config, history, evaluation);
    write_atomic(folder.path() / "report.html", html(make_report(config, tagger, history, evaluation, seconds, ctx)));
    log->info("Report: {}", (folder.path() / "report.html").string());
  }
  // As with the configuration: the latest, and each warm start's own; the last file of all says that the run is
  // complete.
  const std::string results = results_json(evaluation, tagger, history, seconds).dump(2) + "\n";
  write_atomic(folder.path() / "results.json", results);
  write_atomic(RunFolder::results_path(folder.path(), folder.index()), results);
}

}  // namespace

void run_tagging(Context& ctx, ExperimentConfig& config, Log& log, RunOptions options) {
  const Interrupts interrupts("nothing was written");
  const auto start = Clock::now();
  std::unique_ptr<Tagger> tagger = build_tagger(ctx, config, tagging_task(config));
  RunFolder folder(config, options.resumes);
  const Sets sets = load_sets(ctx.host(), config, log);
  std::optional<TaggingTraining> training;
  std::optional<Trainer> trainer;
  if (config.train) {
    training.emplace(ctx, *tagger, sets.train, sets.val, config, static_cast<uint64_t>(*config.seed));
    trainer.emplace(ctx, *training, config, folder, log);
    if (folder.resumes())
      trainer->resume();
    else if (folder.warm_start())
      trainer->warm_start(*folder.warm_start(), options.new_schedule);
  } else if (folder.warm_start()) {
    const auto model = folder.model_path(*folder.warm_start());
    config.ema ? load_averaged_model(ctx, model, *tagger) : load_model(ctx, model, *tagger);
  } else if (config.evaluate) {
    log->warn("train = false without a warm start: the network has its initial, random weights");
  }
  // Whatever is wrong with the input was said before: nothing is written then.
  folder.create(config, log, [&] {
    if (trainer) trainer->save_state();
  });
  Interrupts::advise(folder.saves() ? "go on with: " + folder.resume_command() : "nothing is saved (save=false)");
  log->info("Run {} (index {}{}{}), seed {}, {} threads{}", folder.path().string(), folder.index(),
            folder.resumes() ? ", resumed" : "", folder.saves() ? "" : ", not saved", *config.seed, ctx.threads(),
            ctx.device() == Device::cuda ? ", on " + gpu_text() : "");
  log->info("{} with {} parameters in {}", tagger->title(), tagger->num_parameters(),
            config.use_float64 ? "f64" : "f32");

  TrainingHistory history;
  Evaluation evaluation;
  if (trainer) {
    history = trainer->train();
    if (config.evaluate && trainer->ema()) {
      const auto averaged = trainer->ema()->average();
      evaluate(ctx, *tagger, sets, config, "", evaluation, log);
    }
  }
  if (config.evaluate)
    evaluate(ctx, *tagger, sets, config, trainer && trainer->ema() ? "_without_ema" : "", evaluation, log);
  const double seconds = seconds_since(start) + (trainer ? trainer->earlier_seconds() : 0);
  finish(config, folder, *tagger, history, evaluation, seconds, ctx, log);
}

}  // namespace lightcone
