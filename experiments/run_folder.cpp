#include "experiments/run_folder.h"

#include <unistd.h>

#include <charconv>
#include <random>

#include "engine/error.h"
#include "experiments/toml.h"

namespace lightcone {

namespace fs = std::filesystem;

namespace {

/// The highest <idx> of the files <prefix><idx><suffix> in a folder, -1 without any.
int64_t highest_index(const fs::path& folder, std::string_view prefix, std::string_view suffix) {
  int64_t highest = -1;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() <= prefix.size() + suffix.size()) continue;
    int64_t index = -1;
    const char* last = name.data() + name.size() - suffix.size();
    const auto [end, parsed] = std::from_chars(name.data() + prefix.size(), last, index);
    if (parsed == std::errc() && end == last) highest = std::max(highest, index);
  }
  return highest;
}

}  // namespace

RunFolder::RunFolder(ExperimentConfig& config, bool resumes) : saves_(config.save), resumes_(resumes) {
  const bool warm = config.run_dir.has_value() && config.warm_start_idx.has_value();
  if (resumes) {
    path_ = *config.run_dir;
    index_ = *config.run_idx;
    warm_start_ = config.warm_start_idx;
    lock();
  } else if (warm) {
    path_ = *config.run_dir;
    warm_start_ = config.warm_start_idx;
    if (!fs::exists(model_path(*warm_start_))) fail("warm start", "{} is not there", model_path(*warm_start_).string());
    if (saves_) lock();
    // An evaluation leaves no network.
    index_ = std::max(latest_index(path_), highest_index(path_, "config_", ".toml")) + 1;
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
    path_ = (experiment / *config.run_name).lexically_normal();
    if (saves_ && fs::exists(path_))
      fail(
          "run",
          "{0} exists already; choose another run_name; a run that was killed goes on with lightcone run --resume {0}, "
          "one that is finished trains on with lightcone run -cp {0} -cn config warm_start_idx=0",
          path_.string());
  }
  config.run_idx = index_;
  config.run_dir = path_.string();
}

void RunFolder::lock() {
  lock_ = std::make_unique<FileLock>(path_ / ".lock");
  if (!lock_->held()) return;
  for (const auto& folder : {path_, path_ / "models", plots_path()}) remove_temporaries(folder);
}

void RunFolder::write_config(const ExperimentConfig& config) const {
  ExperimentConfig saved = config;
  saved.warm_start_idx = warm_start_;
  write_atomic(config_path(index_), toml_text(write_fields(saved)));
}

void RunFolder::create(const ExperimentConfig& config, Log& log, const std::function<void()>& save_state) {
  if (!saves_) return;
  if (!resumes_ && !warm_start_) {
    create_new(config, save_state);
  } else if (!resumes_) {
    if (save_state) save_state();
    write_config(config);
  }
  log.to_file(path_ / fmt::format("out_{}.log", index_));
}

void RunFolder::create_new(const ExperimentConfig& config, const std::function<void()>& save_state) {
  const fs::path final = path_, experiment = path_.parent_path();
  const std::string prefix = fmt::format(".{}.", final.filename().string());
  std::error_code error;
  auto check = [&](const char* what) {
    if (error) fail("run", "cannot {} {}: {}; choose a base_dir that is yours", what, final.string(), error.message());
  };
  fs::create_directories(experiment, error);
  check("create");
  // What a kill left at this place; its lock went with its process.
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(experiment, error))
    if (const std::string name = entry.path().filename().string(); name.starts_with(prefix) && name.ends_with(".tmp"))
      left.push_back(entry.path());
  for (const auto& folder : left) try {
      const FileLock unused(folder / ".lock");
      if (unused.held()) fs::remove_all(folder, error);
    } catch (const Error&) {  // in use
    }

  path_ = experiment / fmt::format("{}{}.tmp", prefix, ::getpid());
  try {
    fs::create_directories(path_ / "models", error);
    check("create");
    lock();
    if (save_state) save_state();
    write_config(config);
    publish(config);
    fs::rename(path_, final, error);
    check("create");
  } catch (...) {
    fs::remove_all(path_, error);
    throw;
  }
  path_ = final;
  sync_folder(experiment);
}

void RunFolder::publish(const ExperimentConfig& config) const {
  ExperimentConfig saved = config;
  saved.warm_start_idx = index_;
  write_atomic(path_ / "config.toml", toml_text(write_fields(saved)));
}

std::string RunFolder::resume_command() const {
  const std::string path = path_.lexically_normal().string();
  const bool plain =
      path.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=.,:@%/") ==
      std::string::npos;
  if (plain) return "lightcone run --resume " + path;
  std::string quoted;
  for (char c : path) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return "lightcone run --resume '" + quoted + "'";
}

fs::path RunFolder::config_path(int64_t index) const { return path_ / fmt::format("config_{}.toml", index); }

fs::path RunFolder::model_path(const fs::path& run_folder, int64_t index) {
  return run_folder / "models" / fmt::format("model_run{}.safetensors", index);
}
fs::path RunFolder::state_path(int64_t index) const {
  return path_ / "models" / fmt::format("state_run{}.safetensors", index);
}
fs::path RunFolder::plots_path() const { return path_ / fmt::format("plots_{}", index_); }

fs::path RunFolder::results_path(const fs::path& run_folder, int64_t index) {
  return run_folder / fmt::format("results_{}.json", index);
}

int64_t latest_training(const fs::path& run_folder) {
  const int64_t latest = highest_index(run_folder, "config_", ".toml");
  if (latest < 0) fail("run", "{} is not the folder of a run: it has no config_<idx>.toml", run_folder.string());
  return latest;
}

int64_t latest_index(const fs::path& run_folder) {
  const int64_t latest = highest_index(run_folder / "models", "model_run", ".safetensors");
  if (latest < 0)
    fail("run", "{} has no models/model_run<idx>.safetensors: its training has not ended, or nothing was saved",
         run_folder.string());
  return latest;
}

}  // namespace lightcone
