#include "experiments/config.h"

#include <fmt/ranges.h>

#include <limits>
#include <set>

#include "engine/error.h"
#include "experiments/toml.h"

namespace lightcone {

namespace {

void one_of(const char* name, const std::string& value, const std::vector<std::string>& names) {
  if (std::find(names.begin(), names.end(), value) == names.end())
    fail("config", "{} has no option '{}'; nearest: {}; all: {}", name, value,
         fmt::join(nearest_names(value, names, 2), ", "), fmt::join(names, ", "));
}

void one_of(const char* name, const std::optional<std::string>& value, std::vector<std::string> names) {
  if (!value) return;
  names.push_back("null");
  one_of(name, *value, names);
}

// Written so that NaN fails.
template <class T>
void require(bool holds, const char* name, T value, const char* expected) {
  if (!holds) fail("config", "{} = {} must be {}", name, value, expected);
}

void at_least(const char* name, int64_t value, int64_t least) {
  if (value < least) fail("config", "{} = {} must be at least {}", name, value, least);
}

void at_least(const char* name, const std::optional<int64_t>& value, int64_t least) {
  if (value) at_least(name, *value, least);
}

constexpr size_t longest_name = 200;  // a folder's has 255, and temporary ones have more than its name

constexpr double infinity = std::numeric_limits<double>::infinity();

void positive(const char* name, double value) {
  require(value > 0 && value < infinity, name, value, "positive and finite");
}

void positive(const char* name, const std::optional<double>& value) {
  if (value) positive(name, *value);
}

void not_negative(const char* name, double value) {
  require(value >= 0 && value < infinity, name, value, "zero or positive, and finite");
}

void between(const char* name, double value) { require(value > 0 && value < 1, name, value, "between 0 and 1"); }

void validate(const TrainingConfig& c) {
  at_least("training.iterations", c.iterations, 1);
  at_least("training.batchsize", c.batchsize, 1);
  one_of("training.optimizer", c.optimizer, {"Adam", "AdamW", "RAdam", "Lion", "Ranger"});
  for (double beta : c.betas) require(beta >= 0 && beta < 1, "training.betas", beta, "at least 0 and below 1");
  positive("training.eps", c.eps);
  not_negative("training.weight_decay", c.weight_decay);
  not_negative("training.lr_factor_framesnet", c.lr_factor_framesnet);
  not_negative("training.weight_decay_framesnet", c.weight_decay_framesnet);
  positive("training.lr", c.lr);
  one_of("training.scheduler", c.scheduler,
         {"CosineAnnealingLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "ReduceLROnPlateau", "flat+decay"});
  positive("training.scheduler_scale", c.scheduler_scale);
  if (c.scheduler == "OneCycleLR" && c.scheduler_scale < 1)
    fail("config", "training.scheduler_scale = {}: OneCycleLR would end before the training does; use at least 1",
         c.scheduler_scale);
  not_negative("training.cosanneal_eta_min", c.cosanneal_eta_min);
  between("training.reduceplateau_factor", c.reduceplateau_factor);
  at_least("training.reduceplateau_patience", c.reduceplateau_patience, 0);
  positive("training.onecycle_div_factor", c.onecycle_div_factor);
  require(c.onecycle_pct_start >= 0 && c.onecycle_pct_start <= 1, "training.onecycle_pct_start", c.onecycle_pct_start,
          "from 0 to 1");
  at_least("training.es_patience", c.es_patience, 0);
  at_least("training.log_every_n_steps", c.log_every_n_steps, 0);
  at_least("training.validate_every_n_steps", c.validate_every_n_steps, 1);
  positive("training.validate_every_n_epochs_min", c.validate_every_n_epochs_min);
  positive("training.checkpoint_every_n_minutes", c.checkpoint_every_n_minutes);
  positive("training.clip_grad_norm_framesnet", c.clip_grad_norm_framesnet);
  positive("training.clip_grad_norm", c.clip_grad_norm);
  positive("training.clip_grad_value", c.clip_grad_value);
  positive("training.max_grad_norm", c.max_grad_norm);
}

void validate(const DataConfig& c) {
  one_of("data.tagging_features", c.tagging_features, {"all", "zinvariant", "so3invariant"});
  one_of("data.beam_reference", c.beam_reference, {"lightlike", "timelike", "spacelike", "all"});
  one_of("data.features", c.features, {"default", "fourmomenta", "pid", "displacements"});
  positive("data.mass_reg", c.mass_reg);
  positive("data.spurion_scale", c.spurion_scale);
  at_least("data.max_particles", c.max_particles, 1);
  if (c.data_dir.empty()) fail("config", "data.data_dir is empty; name the folder of the data");
  if (c.dataset.empty()) fail("config", "data.dataset is empty; name a data set, such as full or mini");
  auto range = [](const char* name, const std::array<int64_t, 2>& r) {
    if (r[0] < 0 || r[1] <= r[0])
      fail("config", "{} = [{}, {}] must be [first, last + 1] with 0 <= first <= last", name, r[0], r[1]);
  };
  range("data.train_files_range", c.train_files_range);
  range("data.test_files_range", c.test_files_range);
  range("data.val_files_range", c.val_files_range);
}

void validate(const LoaderConfig& c, const std::string& group) {
  auto name = [&](const char* key) { return group + "." + key; };
  at_least(name("num_workers").c_str(), c.num_workers, 0);
  require(c.fetch_step > 0 && c.fetch_step < infinity, name("fetch_step").c_str(), c.fetch_step, "positive and finite");
  at_least(name("steps_per_epoch").c_str(), c.steps_per_epoch, 1);
  at_least(name("steps_per_epoch_val").c_str(), c.steps_per_epoch_val, 1);
  at_least(name("events_per_file").c_str(), c.events_per_file, 1);
  at_least(name("split_num").c_str(), c.split_num, 1);
}

}  // namespace

ExperimentConfig read_config(const Json& composed) {
  Json json = composed;
  if (json.is_object())
    for (const char* name : {"run_name", "jobid"})
      if (auto it = json.find(name); it != json.end() && it->is_number()) *it = it->dump();
  ExperimentConfig config;
  read_fields(json, config, "");
  return config;
}

void validate(const ExperimentConfig& c) {
  one_of("exp_type", c.exp_type, {"toptagging", "toptaggingft", "toptagxl", "jctagging"});
  for (auto& [name, text] : {std::pair{"exp_name", c.exp_name}, std::pair{"run_name", c.run_name.value_or("-")}})
    if (text.empty() || text == "." || text == ".." || text.find('/') != std::string::npos)
      fail("config", "{} = '{}' must be the name of a folder", name, excerpt(text));
  for (auto& [name, text] : {std::pair{"exp_name", c.exp_name}, std::pair{"run_name", c.run_name.value_or("-")}})
    if (text.size() > longest_name)
      fail("config", "{} = '{}' has {} characters, at most {} are possible", name, excerpt(text), text.size(),
           longest_name);
  one_of("device", c.device, {"auto", "cpu", "cuda"});
  at_least("gpus", c.gpus, -1);
  at_least("seed", c.seed, 0);
  one_of("float32_matmul_precision", c.float32_matmul_precision, {"highest", "high", "medium"});
  at_least("warm_start_idx", c.warm_start_idx, 0);
  between("ema_decay", c.ema_decay);
  if (!c.model.is_object() || !c.model.contains("net") || !c.model["net"].is_object() ||
      !c.model["net"].contains("type"))
    fail("config", "model has no net.type; choose a network with model=...");
  validate(c.training);
  validate(c.data);
  validate(c.jc_params, "jc_params");
  validate(c.topxl_params, "topxl_params");
  at_least("evaluation.batchsize", c.evaluation.batchsize, 1);
  for (size_t i = 0; i < c.evaluation.eval_set.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (c.evaluation.eval_set[i] == c.evaluation.eval_set[j])
        fail("config", "evaluation.eval_set names {} twice", c.evaluation.eval_set[i]);
  for (const auto& set : c.evaluation.eval_set) one_of("evaluation.eval_set", set, {"train", "test", "val"});
  if (c.weightquant.use) fail("config", "weightquant.use = true: quantisation is not in this version");
  if (c.inputquant.use) fail("config", "inputquant.use = true: quantisation is not in this version");
  if (c.exp_type == "toptaggingft") {
    if (c.finetune.backbone_path.empty())
      fail("config", "finetune.backbone_path must name the pretrained run's folder");
    positive("finetune.lr_backbone", c.finetune.lr_backbone);
    positive("finetune.lr_head", c.finetune.lr_head);
  }
}

// Class paths become type names all the way down.
static Json with_types(const Json& node, bool is_root) {
  if (!node.is_object()) {
    if (!node.is_array()) return node;
    Json list = Json::array();
    for (const auto& entry : node) list.push_back(with_types(entry, false));
    return list;
  }
  // The model that `model@:` merges into the root, and the settings of the configuration library.
  static const std::set<std::string> stray{"hydra",
                                           "framesnet",
                                           "net",
                                           "in_channels",
                                           "out_channels",
                                           "use_amp",
                                           "attention_backend",
                                           "include_edges",
                                           "add_fourmomenta_backbone",
                                           "mean_aggregation"};
  Json out = Json::object();
  for (const auto& [key, value] : node.items()) {
    if (key == "_partial_" || (is_root && (key == "_target_" || stray.contains(key)))) continue;
    if (key == "_target_" && value.is_string()) {
      const std::string path = value.get<std::string>();
      if (path.find(".wrappers.") == std::string::npos) out["type"] = path.substr(path.rfind('.') + 1);
    } else {
      out[key == "tagging_features_framesnet" ? "tagging_features" : key] = with_types(value, false);
    }
  }
  return out;
}

Json reference_config(const Json& composed) {
  if (!composed.is_object())
    fail("reference_config", "the configuration must be a table, got {}", composed.type_name());
  return with_types(composed, true);
}

}  // namespace lightcone
