#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>

#include "engine/error.h"
#include "engine/fields.h"
#include "experiments/commands/commands.h"
#include "experiments/interrupt.h"
#include "version.h"

using namespace lightcone;

namespace {

// Hydra's short names have two letters, which no option parser here allows.
std::vector<std::string> with_long_names(int argc, char** argv) {
  std::vector<std::string> out;
  for (int i = argc - 1; i > 0; --i) {  // CLI11 takes arguments in reverse
    const std::string a = argv[i];
    out.push_back(a == "-cp" ? "--config-path" : a == "-cn" ? "--config-name" : a);
  }
  return out;
}

const CLI::Validator at_least_one(
    [](const std::string& text) {
      return CLI::Number(text).empty() && std::stod(text) >= 1 ? "" : "must be a number of at least 1, got " + text;
    },
    "N >= 1");

void add_compose(CLI::App& app, ComposeRequest& compose) {
  app.add_option("--config-path", compose.config_dir,
                 "-cp: tree of configurations: config, config_quick, a folder, or a run's folder")
      ->take_last();
  app.add_option("--config-name", compose.config_name,
                 "-cn: which experiment: toptagging, demo, …; given twice, the last counts")
      ->take_last();
  app.add_option("overrides", compose.overrides, "group=option and a.b.c=value, later ones win");
}

void add_device(CLI::App& app, std::string& device) {
  app.add_option("--device", device, "cuda, cpu, or auto: cuda where a GPU answers")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
}

void add_threads(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "CPU threads; 0 takes all")->check(CLI::Range(0, 4096));
}

int dispatch(int argc, char** argv) {
  CLI::App app{"Lightcone: Lorentz-symmetric networks for particle physics", "lightcone"};
  app.set_version_flag("--version",
                       fmt::format("lightcone {} {} ({})", LIGHTCONE_VERSION, LIGHTCONE_COMMIT, LIGHTCONE_ARCH));
  app.require_subcommand(1);
  app.footer(
      "lightcone COMMAND --help tells more. Example:\n  lightcone run -cn toptagging model=tag_transformer_10k "
      "training=top_10k data.dataset=mini");

  RunRequest run;
  auto* run_app = app.add_subcommand("run", "train and evaluate an experiment");
  add_compose(*run_app, run.compose);
  run_app
      ->add_option("--resume", run.resume,
                   "folder of a run that was killed, interrupted or ran out of disk: goes on to the bits that it "
                   "would have had; overrides may set plot, evaluate, plotting.*, evaluation.*, data.data_dir and "
                   "training.checkpoint_every_n_minutes")
      ->excludes("--config-path")
      ->excludes("--config-name");
  run_app->footer(
      "SIGINT and SIGTERM end a run after its step, saved; a second SIGINT ends it at once. A killed run loses at most "
      "training.checkpoint_every_n_minutes (5) of work.\nIn a warm start (-cp RUN_FOLDER -cn config warm_start_idx=0) "
      "rate and schedule go on; training.lr=… on the command line begins a new schedule at that rate.");
  add_threads(*run_app, run.threads);
  run_app->add_flag("--profile", run.profile, "print the time spent in each kernel");
  run_app->add_option("--trace", run.profile_trace, "write a Chrome trace of every kernel to this file");

  PredictRequest predict;
  auto* predict_app = app.add_subcommand("predict", "score jets with a trained network");
  predict_app->add_option("run", predict.run_folder, "folder of the run")->required();
  predict_app->add_option("--in", predict.in, "jets: .npz or .npy, [N, P, 4] (E, px, py, pz) in GeV, padded with zeros")
      ->required();
  predict_app->add_option("--out", predict.out, "scores: .npy [N], or .npz with scores and logits")->required();
  predict_app->add_option("--key", predict.key, "which array of an npz file");
  predict_app->add_option("--run-idx", predict.run_idx, "which of the run's networks (default: the latest)");
  predict_app->add_option("--batch", predict.batchsize, "jets at a time")->check(at_least_one);
  add_device(*predict_app, predict.device);
  add_threads(*predict_app, predict.threads);

  VerifyRequest verify;
  auto* verify_app = app.add_subcommand("verify", "compare with numbers that a PyTorch network gave");
  verify_app->add_option("files", verify.files, "reference files (.safetensors)")->required();
  verify_app->add_flag("--float32", verify.float32, "with an f32 network, tolerance 1e-4");
  verify_app->add_flag("--all", verify.all, "a line for every quantity that agrees, too");
  add_device(*verify_app, verify.device);
  add_threads(*verify_app, verify.threads);

  std::vector<std::string> inspected;
  bool asks_equivariance = false;
  EquivarianceRequest equivariance;
  auto* inspect_app = app.add_subcommand(
      "inspect", "what is in a run folder, checkpoint, npz or npy file; or how equivariant a network is");
  inspect_app->add_option("paths", inspected, "files and folders")->required();
  auto* regulate =
      inspect_app->add_flag("--regulate", equivariance.regulate,
                            "give jets the regulator's mass before they move: without it, regulating them in "
                            "every laboratory anew shows");
  auto* equivariance_flag = inspect_app->add_flag(
      "--equivariance", asks_equivariance,
      "boost and rotate jets: how does the output of a run's network move, or of the untrained network that "
      "overrides (model=…) describe?");
  for (auto* option :
       {inspect_app->add_option("--config-path", equivariance.compose.config_dir, "-cp: as in run"),
        inspect_app->add_option("--config-name", equivariance.compose.config_name, "-cn: as in run"),
        inspect_app->add_option("--jets", equivariance.jets, "how many jets")->check(at_least_one),
        inspect_app->add_option("--plot", equivariance.plot, "SVG file (default: in the run's folder)"), regulate})
    option->needs(equivariance_flag);
  add_threads(*inspect_app, equivariance.threads);

  BenchRequest bench;
  auto* bench_app = app.add_subcommand("bench", "time training and inference of a network");
  add_compose(*bench_app, bench.compose);
  bench_app->add_option("--batch", bench.batch, "jets per training step")->check(at_least_one);
  bench_app->add_option("--runs", bench.runs, "timed steps")->check(at_least_one);
  bench_app->add_option("--json", bench.json, "append the result to this file as a line of JSON");
  bench_app->add_flag(
      "--counters", bench.counters,
      "lightcone_gpusim alone: no times, but what the kernels of a training step do on a simulated GPU");
  add_threads(*bench_app, bench.threads);

  // The parser says only that a subcommand is missing.
  std::vector<std::string> names;
  for (const auto* known : app.get_subcommands({})) names.push_back(known->get_name());
  if (argc > 1 && argv[1][0] != '-' && std::find(names.begin(), names.end(), argv[1]) == names.end())
    fail(fmt::format("unknown command '{}'", argv[1]), "did you mean {}? All: {}",
         nearest_names(argv[1], names, 1).at(0), fmt::join(names, ", "));

  try {
    app.parse(with_long_names(argc, argv));
  } catch (const CLI::ParseError& e) {
    // Help and version exit with 0, whatever else with 1.
    return app.exit(e) == 0 ? 0 : 1;
  }
  if (run_app->parsed()) return run_command(run);
  if (predict_app->parsed()) return predict_command(predict);
  if (verify_app->parsed()) return verify_command(verify);
  if (inspect_app->parsed()) {
    if (!asks_equivariance) return inspect_command(inspected);
    if (inspected.size() == 1 && std::filesystem::is_directory(inspected[0]))
      equivariance.run_folder = inspected[0];
    else
      equivariance.compose.overrides = inspected;
    return equivariance_command(equivariance);
  }
  return bench_command(bench);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files is an Error of the write
  try {
    return dispatch(argc, argv);
  } catch (const Interrupted& e) {
    std::cerr << "lightcone: " << e.what() << "\n";
    return e.status();
  } catch (const std::bad_alloc&) {
    std::cerr << "lightcone: not enough memory; use a smaller network or batch\n";
  } catch (const std::exception& e) {
    std::cerr << "lightcone: " << e.what() << "\n";
  }
  return 1;
}
