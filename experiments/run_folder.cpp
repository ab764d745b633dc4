#include "experiments/run_folder.h"

#include <charconv>
#include <random>

#include "engine/error.h"
#include "experiments/toml.h"

namespace lightcone {

namespace fs = std::filesystem;

RunFolder::RunFolder(ExperimentConfig& config) : saves_(config.save) {
  const bool warm = config.run_dir.has_value() && config.warm_start_idx.has_value();
  if (warm) {
    path_ = *config.run_dir;
    warm_start_ = config.warm_start_idx;
    if (!fs::exists(model_path(*warm_start_))) fail("warm start", "{} is not there", model_path(*warm_start_).string());
    index_ = latest_index(path_) + 1;
    while (fs::exists(config_path(index_))) ++index_;  // an evaluation leaves no network
  } else {
    if (config.warm_start_idx)
      throw Error(
          "warm start: warm_start_idx needs the folder of a run: lightcone run -cp RUN_FOLDER -cn config "
          "warm_start_idx=0");
    const fs::path experiment = fs::path(config.base_dir) / "runs" / config.exp_name;
    if (!config.run_name) {
      std::random_device entropy;
      do {
        config.run_name =
            fmt::format("{}_{:04}", config.model.value("/net/type"_json_pointer, "run"), entropy() % 10000);
      } while (fs::exists(experiment / *config.run_name));
    }
    path_ = experiment / *config.run_name;
    if (saves_ && fs::exists(path_))
      fail("run",
           "{} exists already; choose another run_name, or continue it: lightcone run -cp {} -cn config "
           "warm_start_idx=0",
           path_.string(), path_.string());
  }
  config.run_idx = index_;
  config.run_dir = path_.string();
}

void RunFolder::create(const ExperimentConfig& config, Log& log) {
  if (!saves_) return;
  std::error_code error;
  fs::create_directories(path_ / "models", error);
  if (error) fail("run", "cannot create {}: {}", (path_ / "models").string(), error.message());
  // A later warm start reads this file: it then continues this run.
  ExperimentConfig saved = config;
  saved.warm_start_idx = index_;
  write_atomic(config_path(index_), toml_text(write_fields(saved)));
  log.to_file(path_ / fmt::format("out_{}.log", index_));
  if (!warm_start_) publish();
}

void RunFolder::publish() const { write_atomic(path_ / "config.toml", read_file(config_path(index_))); }

fs::path RunFolder::config_path(int64_t index) const { return path_ / fmt::format("config_{}.toml", index); }

fs::path RunFolder::model_path(const fs::path& run_folder, int64_t index) {
  return run_folder / "models" / fmt::format("model_run{}.safetensors", index);
}
fs::path RunFolder::state_path(int64_t index) const {
  return path_ / "models" / fmt::format("state_run{}.safetensors", index);
}
fs::path RunFolder::plots_path() const { return path_ / fmt::format("plots_{}", index_); }

int64_t latest_index(const fs::path& run_folder) {
  int64_t latest = -1;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run_folder / "models", error)) {
    const std::string name = entry.path().stem().string();
    int64_t index = -1;
    if (name.starts_with("model_run") && entry.path().extension() == ".safetensors") {
      const auto [end, parsed] = std::from_chars(name.data() + 9, name.data() + name.size(), index);
      if (parsed == std::errc() && end == name.data() + name.size()) latest = std::max(latest, index);
    }
  }
  if (latest < 0) fail("run", "{} has no models/model_run<idx>.safetensors", run_folder.string());
  return latest;
}

}  // namespace lightcone
