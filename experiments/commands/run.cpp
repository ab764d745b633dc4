#include <iostream>
#include <random>

#include "engine/file.h"
#include "experiments/commands/commands.h"
#include "experiments/tagging/tagging.h"

namespace lightcone {

namespace {

/// auto takes a GPU where one answers; this version computes on the CPU only.
void choose_device(const ExperimentConfig& config, Log& log) {
  if (config.device == "cuda")
    throw Error("device = cuda: this version has no CUDA kernels; use device=cpu or device=auto");
  if (config.device == "auto") log->info("device = auto: computing on the CPU");
}

}  // namespace

int run_command(const RunRequest& request) {
  ExperimentConfig config = read_config(compose(request.compose));
  // A run that was copied or moved is where -cp says, not where its configuration remembers.
  if (config.run_dir && std::filesystem::is_directory(std::filesystem::path(request.compose.config_dir) / "models"))
    config.run_dir = request.compose.config_dir;
  validate(config);
  Log log;
  // Without a seed one is drawn and noted in the run's config.toml, so that the run can be repeated to the bit.
  if (!config.seed) config.seed = static_cast<int64_t>(std::random_device{}() % 1000000);
  choose_device(config, log);
  if (config.use_mlflow) log->warn("use_mlflow = true: this version writes metrics.csv and results.json only");
  Context ctx(request.threads, static_cast<uint64_t>(*config.seed));
  ctx.profiler().set_on(request.profile || !request.profile_trace.empty());
  try {
    run_tagging(ctx, config, log);
  } catch (const std::exception& e) {
    log.file_only();  // main() prints it to standard error
    log->error("{}", e.what());
    throw;
  }
  if (request.profile) std::cout << ctx.profiler().table();
  if (!request.profile_trace.empty()) write_atomic(request.profile_trace, ctx.profiler().chrome_trace());
  return 0;
}

}  // namespace lightcone
