#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "engine/file.h"
#include "engine/log.h"
#include "experiments/config.h"

namespace lightcone {

/// The folder of one run, <base_dir>/runs/<exp_name>/<run_name>/. Index 0 is the first training, each warm start adds
/// one.
///
///     config_<idx>.toml                the composed configuration of each training; its presence says that the
///                                      training began
///     config.toml                      that of the latest, set to go on from it (warm_start_idx)
///     out_<idx>.log                    what the terminal showed
///     metrics.csv                      a row per step, warm starts one after the other
///     plots_<idx>/, report.html, results.json, results_<idx>.json     in this order: whatever has the last is complete
///     models/model_run<idx>.safetensors   weights (and the averaged ones as ema.<name>)
///     models/state_run<idx>.safetensors   all that a resumed training needs (checkpoint.h)
///     .lock                            held by the process that writes here
///
/// A kill at any instant leaves a folder that --resume goes on with, or none: a new folder is filled under another
/// name, .<run_name>.<process>.tmp, and renamed.
class RunFolder {
 public:
  /// Decides name, folder and index, and writes them into `config` (run_name, run_dir, run_idx). Creates nothing yet
  /// but locks a folder that is there. Throws Error if the folder exists and this is no warm start, if a warm start
  /// finds no network, or if another process works on it. `resumes`: run_dir and run_idx say which run goes on.
  explicit RunFolder(ExperimentConfig& config, bool resumes = false);

  bool saves() const { return saves_; }
  bool resumes() const { return resumes_; }
  /// Creates the folder with config_<idx>.toml and sends the log there; to be called when all that could refuse the run
  /// has been read. `save_state` is called before the training counts as begun. Does nothing if config.save is false.
  void create(const ExperimentConfig& config, Log& log, const std::function<void()>& save_state = {});
  /// Makes this training the one that config.toml goes on from: at once for a new run, for a warm start when its
  /// network has been saved, so that one that fails leaves the run as it was.
  void publish(const ExperimentConfig& config) const;
  /// The command that goes on with this run.
  std::string resume_command() const;

  int64_t index() const { return index_; }
  /// The training that this one goes on from.
  std::optional<int64_t> warm_start() const { return warm_start_; }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_path(int64_t index) const;
  static std::filesystem::path model_path(const std::filesystem::path& run_folder, int64_t index);
  std::filesystem::path model_path(int64_t index) const { return model_path(path_, index); }
  std::filesystem::path state_path(int64_t index) const;
  static std::filesystem::path results_path(const std::filesystem::path& run_folder, int64_t index);
  std::filesystem::path plots_path() const;

 private:
  void create_new(const ExperimentConfig& config, const std::function<void()>& save_state);
  void write_config(const ExperimentConfig& config) const;
  void lock();

  std::filesystem::path path_;
  int64_t index_ = 0;
  std::optional<int64_t> warm_start_;
  bool saves_, resumes_;
  std::unique_ptr<FileLock> lock_;
};

/// The highest index of a training that began in a run's folder. Throws Error if there is none.
int64_t latest_training(const std::filesystem::path& run_folder);
/// The highest index of a network in a run's folder. Throws Error if there is none.
int64_t latest_index(const std::filesystem::path& run_folder);

}  // namespace lightcone
