#include <iostream>
#include <random>

#include "engine/file.h"
#include "experiments/commands/commands.h"
#include "experiments/overrides.h"
#include "experiments/tagging/tagging.h"
#include "experiments/toml.h"

namespace lightcone {

namespace {

// Keys that change no bits of the training: what may be set anew when it is resumed.
bool harmless(const std::string& key) {
  for (const char* name : {"plot", "evaluate", "data.data_dir", "training.checkpoint_every_n_minutes"})
    if (key == name) return true;
  return key.starts_with("evaluation.") || key.starts_with("plotting.");
}

/// The configuration of the training that is to go on, or nothing if the run is complete.
std::optional<ExperimentConfig> resumed_config(const RunRequest& request) {
  const std::filesystem::path folder = std::filesystem::path(request.resume + "/").parent_path();
  if (!std::filesystem::is_directory(folder))
    fail("resume", "{} is not there: if its run was killed as it began, start it again", folder.string());
  const int64_t index = latest_training(folder);
  if (std::filesystem::exists(RunFolder::results_path(folder, index))) {
    fmt::print("{} (index {}) is complete; to train on: lightcone run -cp {} -cn config warm_start_idx={}\n",
               folder.string(), index, folder.string(), index);
    return {};
  }
  for (const auto& text : request.compose.overrides)
    if (const std::string key = parse_override(text).key; !harmless(key))
      fail("resume",
           "{} cannot change: a resumed run ends with the bits that it would have had. Set what you like in a new "
           "training from its last state: lightcone run -cp {} -cn config warm_start_idx={} {}",
           excerpt(key), folder.string(), index, excerpt(text));
  ExperimentConfig config = read_config(compose(
      {std::filesystem::absolute(folder).string(), fmt::format("config_{}", index), request.compose.overrides}));
  config.run_dir = folder.string();
  config.run_idx = index;
  return config;
}

ExperimentConfig new_config(const RunRequest& request) {
  ExperimentConfig config = read_config(compose(request.compose));
  // A run that was copied or moved is where -cp says, not where its configuration remembers.
  if (config.run_dir && std::filesystem::is_directory(std::filesystem::path(request.compose.config_dir) / "models"))
    config.run_dir = request.compose.config_dir;
  return config;
}

}  // namespace

int run_command(const RunRequest& request) {
  RunOptions options{.resumes = !request.resume.empty()};
  std::optional<ExperimentConfig> chosen = options.resumes ? resumed_config(request) : new_config(request);
  if (!chosen) return 0;
  ExperimentConfig& config = *chosen;
  validate(config);
  for (const auto& text : request.compose.overrides) options.new_schedule |= parse_override(text).key == "training.lr";
  if (!request.profile_trace.empty()) check_writable(request.profile_trace);
  Log log;
  // Without a seed one is drawn and noted in the run's config.toml, so that the run can be repeated to the bit.
  if (!config.seed) config.seed = static_cast<int64_t>(std::random_device{}() % 1000000);
  const Device device = choose_device(config.device, [&](const std::string& line) { log->info("{}", line); });
  if (config.use_mlflow) log->warn("use_mlflow = true: this version writes metrics.csv and results.json only");
  Context ctx(device, request.threads, static_cast<uint64_t>(*config.seed));
  ctx.set_tf32(config.float32_matmul_precision != "highest");
  ctx.profiler().set_on(request.profile || !request.profile_trace.empty());
  try {
    run_tagging(ctx, config, log, options);
  } catch (const std::exception& e) {
    log.file_only();  // main() prints it to standard error
    try {
      log->error("{}", e.what());
    } catch (const Error&) {  // the log itself cannot be written
    }
    throw;
  }
  if (request.profile) std::cout << ctx.profiler().table();
  if (!request.profile_trace.empty()) write_atomic(request.profile_trace, ctx.profiler().chrome_trace());
  return 0;
}

}  // namespace lightcone
