#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/fields.h"
#include "models/embedding.h"

namespace lightcone {

/// The configuration of an experiment, typed; compose() makes the Json that it is read from. Names, meaning and
/// defaults are those of configs/; std::optional is where null is allowed. A group that an experiment has no use for
/// (jc_params in top tagging) keeps its defaults.

struct TrainingConfig {
  int64_t iterations = 0;
  int64_t batchsize = 512;
  std::string optimizer = "AdamW";
  std::array<double, 2> betas{0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  double lr_factor_framesnet = 1;
  double weight_decay_framesnet = 0;
  double lr = 1e-3;
  std::optional<std::string> scheduler = "CosineAnnealingLR";  // null: constant
  double scheduler_scale = 1;                                  // length of the schedule in units of iterations
  double cosanneal_eta_min = 0;
  double reduceplateau_factor = 0.1;
  int64_t reduceplateau_patience = 50;
  double onecycle_div_factor = 25;
  double onecycle_pct_start = 0.3;
  int64_t es_patience = 100;  // in validations
  bool es_load_best_model = false;
  int64_t log_every_n_steps = 200;  // 0: never
  int64_t validate_every_n_steps = 5000;
  std::optional<double> validate_every_n_epochs_min;
  std::optional<double> checkpoint_every_n_minutes = 5;  // besides those of the validations; null: none
  bool log_grad_norm = true;
  std::optional<double> clip_grad_norm_framesnet;
  std::optional<double> clip_grad_norm = 1;
  std::optional<double> clip_grad_value;
  std::optional<double> max_grad_norm;  // a step whose gradient is longer is skipped
  void fields(auto& f) {
    f("iterations", iterations);
    f("batchsize", batchsize);
    f("optimizer", optimizer);
    f("betas", betas);
    f("eps", eps);
    f("weight_decay", weight_decay);
    f("lr_factor_framesnet", lr_factor_framesnet);
    f("weight_decay_framesnet", weight_decay_framesnet);
    f("lr", lr);
    f("scheduler", scheduler);
    f("scheduler_scale", scheduler_scale);
    f("cosanneal_eta_min", cosanneal_eta_min);
    f("reduceplateau_factor", reduceplateau_factor);
    f("reduceplateau_patience", reduceplateau_patience);
    f("onecycle_div_factor", onecycle_div_factor);
    f("onecycle_pct_start", onecycle_pct_start);
    f("es_patience", es_patience);
    f("es_load_best_model", es_load_best_model);
    f("log_every_n_steps", log_every_n_steps);
    f("validate_every_n_steps", validate_every_n_steps);
    f("validate_every_n_epochs_min", validate_every_n_epochs_min);
    f("checkpoint_every_n_minutes", checkpoint_every_n_minutes);
    f("log_grad_norm", log_grad_norm);
    f("clip_grad_norm_framesnet", clip_grad_norm_framesnet);
    f("clip_grad_norm", clip_grad_norm);
    f("clip_grad_value", clip_grad_value);
    f("max_grad_norm", max_grad_norm);
  }
};

struct DataConfig : EmbeddingConfig {
  std::string data_dir = "data";
  // top tagging
  std::string dataset = "full";
  // JetClass and TopTagXL; a range [a, b] takes the files a to b-1
  std::string features = "default";
  std::optional<std::string> data_config;
  bool add_scalar_features = true;
  std::array<int64_t, 2> train_files_range{0, 100};
  std::array<int64_t, 2> test_files_range{100, 120};
  std::array<int64_t, 2> val_files_range{120, 121};
  void fields(auto& f) {
    EmbeddingConfig::fields(f);
    f("data_dir", data_dir);
    f("dataset", dataset);
    f("features", features);
    f("data_config", data_config);
    f("add_scalar_features", add_scalar_features);
    f("train_files_range", train_files_range);
    f("test_files_range", test_files_range);
    f("val_files_range", val_files_range);
  }
};

/// How many-file data sets are read: jc_params (JetClass) and topxl_params (TopTagXL).
struct LoaderConfig {
  int64_t num_workers = 2;
  double fetch_step = 0.01;
  std::optional<std::string> extra_selection;
  std::optional<std::string> extra_test_selection;
  bool fetch_by_files = false;
  bool in_memory = false;
  bool not_remake_weights = false;
  std::optional<int64_t> steps_per_epoch;
  std::optional<int64_t> steps_per_epoch_val;
  int64_t events_per_file = 100000;
  bool async_load = true;
  int64_t split_num = 1;
  void fields(auto& f) {
    f("num_workers", num_workers);
    f("fetch_step", fetch_step);
    f("extra_selection", extra_selection);
    f("extra-test-selection", extra_test_selection);
    f("fetch_by_files", fetch_by_files);
    f("in_memory", in_memory);
    f("not_remake_weights", not_remake_weights);
    f("steps_per_epoch", steps_per_epoch);
    f("steps_per_epoch_val", steps_per_epoch_val);
    f("events_per_file", events_per_file);
    f("async_load", async_load);
    f("split_num", split_num);
  }
};

struct EvaluationConfig {
  int64_t batchsize = 512;
  bool eval_quantized = false;
  bool save_roc = false;
  std::vector<std::string> eval_set{"train", "test", "val"};
  void fields(auto& f) {
    f("batchsize", batchsize);
    f("eval_quantized", eval_quantized);
    f("save_roc", save_roc);
    f("eval_set", eval_set);
  }
};

struct PlottingConfig {
  bool loss = true;
  bool roc = true;
  bool score = true;
  void fields(auto& f) {
    f("loss", loss);
    f("roc", roc);
    f("score", score);
  }
};

struct WeightQuantConfig {
  bool use = false;
  int64_t bits = 0;  // 0: ternary
  std::string quantizer = "lsbq";
  std::string prox_map = "parq";
  int64_t start_step = 0;
  int64_t final_hard_steps = 0;
  double steepness = 100;
  bool inout = false;
  bool attn = true;
  bool mlp = true;
  bool framesnet = false;
  int64_t warmup_steps = 0;
  int64_t quant_period = 10;
  bool quant_per_channel = false;
  bool quant_shrink = false;
  double anneal_wd_frac = 0;
  double nm_gamma = 0;
  void fields(auto& f) {
    f("use", use);
    f("bits", bits);
    f("quantizer", quantizer);
    f("prox_map", prox_map);
    f("start_step", start_step);
    f("final_hard_steps", final_hard_steps);
    f("steepness", steepness);
    f("inout", inout);
    f("attn", attn);
    f("mlp", mlp);
    f("framesnet", framesnet);
    f("warmup_steps", warmup_steps);
    f("quant_period", quant_period);
    f("quant_per_channel", quant_per_channel);
    f("quant_shrink", quant_shrink);
    f("anneal_wd_frac", anneal_wd_frac);
    f("nm_gamma", nm_gamma);
  }
};

struct StaticQuantConfig {
  bool use = false;
  std::string method = "absolute";
  std::optional<double> beta;
  double quantile = 1e-3;
  int64_t observer_start = 0;
  int64_t observer_stop = -1;  // -1: never
  void fields(auto& f) {
    f("use", use);
    f("method", method);
    f("beta", beta);
    f("quantile", quantile);
    f("observer_start", observer_start);
    f("observer_stop", observer_stop);
  }
};

struct InputQuantConfig {
  bool use = false;
  int64_t bits = 8;
  std::string quantizer = "float";
  bool quant_per_channel = false;
  bool match_weightquant = true;
  bool mlp = true;
  bool attn = true;
  bool framesnet = true;
  StaticQuantConfig static_scales;
  void fields(auto& f) {
    f("use", use);
    f("bits", bits);
    f("quantizer", quantizer);
    f("quant_per_channel", quant_per_channel);
    f("match_weightquant", match_weightquant);
    f("mlp", mlp);
    f("attn", attn);
    f("framesnet", framesnet);
    f("static", static_scales);
  }
};

struct FinetuneConfig {
  std::string backbone_path;  // the folder of the pretrained run
  std::string backbone_cfg = "config.toml";
  double lr_backbone = 3e-6;
  double lr_head = 3e-4;
  void fields(auto& f) {
    f("backbone_path", backbone_path);
    f("backbone_cfg", backbone_cfg);
    f("lr_backbone", lr_backbone);
    f("lr_head", lr_head);
  }
};

struct MlflowConfig {
  std::string db = "./runs/mlflow/mlflow.db";
  std::string artifacts = "./runs/mlflow/artifacts";
  void fields(auto& f) {
    f("db", db);
    f("artifacts", artifacts);
  }
};

struct ExperimentConfig {
  std::string exp_name;
  std::string exp_type;
  std::optional<std::string> run_name;
  std::string base_dir = ".";
  std::string device = "auto";
  int64_t gpus = -1;  // -1: all there are
  std::optional<std::string> jobid;
  std::optional<int64_t> seed;
  bool debug = false;
  bool use_float64 = false;
  std::string float32_matmul_precision = "highest";
  std::optional<int64_t> warm_start_idx;
  std::optional<std::string> run_dir;  // run_dir and run_idx are filled in by the run (run_folder.h)
  std::optional<int64_t> run_idx;
  bool save = true;
  bool use_mlflow = false;
  bool save_source = true;
  bool ema = false;
  double ema_decay = 0.999;
  bool train = true;
  bool evaluate = true;
  bool plot = true;
  Json model = Json::object();  // typed in models/, by its net.type and framesnet.type
  TrainingConfig training;
  DataConfig data;
  LoaderConfig jc_params;
  LoaderConfig topxl_params;
  FinetuneConfig finetune;
  EvaluationConfig evaluation;
  PlottingConfig plotting;
  WeightQuantConfig weightquant;
  InputQuantConfig inputquant;
  MlflowConfig mlflow;
  void fields(auto& f) {
    f("exp_name", exp_name);
    f("exp_type", exp_type);
    f("run_name", run_name);
    f("base_dir", base_dir);
    f("device", device);
    f("gpus", gpus);
    f("jobid", jobid);
    f("seed", seed);
    f("debug", debug);
    f("use_float64", use_float64);
    f("float32_matmul_precision", float32_matmul_precision);
    f("warm_start_idx", warm_start_idx);
    f("run_dir", run_dir);
    f("run_idx", run_idx);
    f("save", save);
    f("use_mlflow", use_mlflow);
    f("save_source", save_source);
    f("ema", ema);
    f("ema_decay", ema_decay);
    f("train", train);
    f("evaluate", evaluate);
    f("plot", plot);
    f("model", model);
    f("training", training);
    f("data", data);
    f("jc_params", jc_params);
    f("topxl_params", topxl_params);
    f("finetune", finetune);
    f("evaluation", evaluation);
    f("plotting", plotting);
    f("weightquant", weightquant);
    f("inputquant", inputquant);
    f("mlflow", mlflow);
  }
};

/// The typed configuration; a number as run_name or jobid becomes text. Throws Error on an unknown key or a wrong type.
ExperimentConfig read_config(const Json& composed);

/// Throws Error, one line, at the first value that makes no sense.
void validate(const ExperimentConfig& config);

/// A configuration that the PyTorch references composed, in our form: `_target_: a.b.Transformer` becomes
/// `type: "Transformer"`, a renamed key gets its new name, and what only their configuration library or their wrapper
/// classes need goes, as does the stray copy of a model that their toptagging leaves at the root. The rest stays as it
/// is.
Json reference_config(const Json& composed);

}  // namespace lightcone
