#pragma once
#include <filesystem>
#include <optional>

#include "engine/log.h"
#include "experiments/config.h"

namespace lightcone {

/// The folder of one run, <base_dir>/runs/<exp_name>/<run_name>/. Index 0 is the first training, each warm start adds
/// one.
///
///     config.toml, config_<idx>.toml   the composed configuration
///     out_<idx>.log                    what the terminal showed
///     metrics.csv                      a row per step, warm starts one after the other
///     results.json, results_<idx>.json, report.html, plots_<idx>/
///     models/model_run<idx>.safetensors   weights (and the averaged ones as ema.<name>)
///     models/state_run<idx>.safetensors   optimiser, schedule, random streams, position in the data
class RunFolder {
 public:
  /// Decides name, folder and index, and writes them into `config` (run_name, run_dir, run_idx, warm_start_idx).
  /// Creates nothing yet. Throws Error if the folder exists and this is no warm start, or if a warm start finds no
  /// network.
  explicit RunFolder(ExperimentConfig& config);

  bool saves() const { return saves_; }
  /// Creates the folder with config_<idx>.toml and sends the log there; to be called when all that could refuse the run has been read. Does
  /// nothing if config.save is false.
  void create(const ExperimentConfig& config, Log& log);
  /// Makes config_<idx>.toml the run's config.toml: at once for a new run, for a warm start when its network has been saved, so that one
  /// that fails leaves the run as it was.
  void publish() const;

  int64_t index() const { return index_; }
  std::optional<int64_t> warm_start() const { return warm_start_; }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_path(int64_t index) const;
  static std::filesystem::path model_path(const std::filesystem::path& run_folder, int64_t index);
  std::filesystem::path model_path(int64_t index) const { return model_path(path_, index); }
  std::filesystem::path state_path(int64_t index) const;
  std::filesystem::path plots_path() const;

 private:
  std::filesystem::path path_;
  int64_t index_ = 0;
  std::optional<int64_t> warm_start_;
  bool saves_;
};

/// The highest index of a network in a run's folder. Throws Error if there is none.
int64_t latest_index(const std::filesystem::path& run_folder);

}  // namespace lightcone
