#include <doctest/doctest.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/error.h"
#include "experiments/compose.h"
#include "experiments/config.h"
#include "experiments/paths.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;
namespace fs = std::filesystem;

namespace {

ExperimentConfig with(std::vector<std::string> overrides, std::string name = "toptagging") {
  return read_config(compose({"config", std::move(name), std::move(overrides)}));
}

// Every key of `expected` is in `got` with the same value. The experiment fills in channel numbers later.
void check_contains(const Json& expected, const Json& got, const std::string& path, int& compared) {
  for (const auto& [key, value] : expected.items()) {
    const std::string name = path + "." + key;
    CAPTURE(name);
    REQUIRE(got.contains(key));
    if (value.is_object()) {
      check_contains(value, got[key], name, compared);
    } else if (key != "in_channels" && key != "out_channels" && key != "in_s_channels") {
      CHECK(got[key] == value);
      ++compared;
    }
  }
}

}  // namespace

TEST_CASE("config: our tree composes what the references composed") {
  const fs::path folder = fs::path(LIGHTCONE_SOURCE_DIR) / "tests/golden/config";
  int files = 0, models = 0, compared = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const Json golden = Json::parse(std::ifstream(entry.path()));
    std::string file = entry.path().filename().string();
    CAPTURE(file);
    ComposeRequest request{golden["config_dir"], golden["config_name"], {}};
    const Json expected = reference_config(golden["config"]);
    // Other networks' groups come with their code; their trainings are here.
    bool have_model = file.find("transformer_identity") != std::string::npos || file == "lgatr.json";
    for (const auto& override : golden["overrides"]) {
      const auto text = override.get<std::string>();
      if (have_model || text.find("model") == std::string::npos) request.overrides.push_back(text);
    }
    const Json got = compose(request);
    CHECK_NOTHROW(validate(read_config(got)));
    for (const char* group : {"training", "data", "evaluation", "plotting", "weightquant", "inputquant", "model"}) {
      if (std::string(group) == "model" && !have_model) continue;
      Json want = expected[group];
      // The experiment turns the boost off where no frames are learned, and finds data_config by data.features.
      if (std::string(group) == "data") want.erase("boost_jet"), want.erase("data_config");
      check_contains(want, got[group], group, compared);
    }
    if (have_model) CHECK_NOTHROW(validate(read_config(expected)));
    ++files;
    models += have_model;
  }
  CHECK(files == 14);
  CHECK(models == 6);
  CHECK(compared > 14 * 60);
}

TEST_CASE("config: what toptagging runs without a choice of model is published") {
  const Json tree = compose({});
  CHECK(tree["model"]["net"] == compose({"config", "toptagging", {"model=tag_transformer"}})["model"]["net"]);
  CHECK(tree["model"]["net"]["num_blocks"] == 10);
  CHECK(!tree.contains("net"));
}

TEST_CASE("config: the structs' defaults are those of the files") {
  ExperimentConfig defaults, read = with({});
  ExperimentConfig open = defaults;
  open.exp_name = read.exp_name, open.exp_type = read.exp_type, open.model = read.model, open.mlflow = read.mlflow;
  open.training = with({"training=tag_default", "training.iterations=0"}).training;
  open.data.boost_jet = true;
  read.training = open.training;
  CHECK(write_fields(open).dump(1) == write_fields(read).dump(1));
  CHECK(write_fields(open.training) == write_fields(defaults.training));
  ExperimentConfig jc = with({}, "jctagging"), xl = with({}, "toptagxl");
  CHECK(write_fields(jc.jc_params) == write_fields(defaults.jc_params));
  CHECK(write_fields(xl.topxl_params) == write_fields(defaults.topxl_params));
  CHECK(jc.data.train_files_range == defaults.data.train_files_range);
}

TEST_CASE("config: reading is strict, and names may be numbers") {
  CHECK(with({"run_name=5", "jobid=1234"}).run_name == "5");
  CHECK(with({"jobid=1234"}).jobid == "1234");
  CHECK(with({"jc_params.extra-test-selection='pt>1'"}, "jctagging").jc_params.extra_test_selection == "pt>1");
  CHECK(error_of([] { with({"training.lr=fast"}); }) == "config: training.lr must be a number, got \"fast\"");
  CHECK(error_of([] { with({"training.batchsize=null"}); }) ==
        "config: training.batchsize must be an integer, got null");
  CHECK(error_of([] { with({"+training.lrr=1"}); }).starts_with("config: unknown key training.lrr; nearest: lr"));
  CHECK(error_of([] { with({"+lr=1"}); }).starts_with("config: unknown key lr; nearest: "));
}

TEST_CASE("config: values that make no sense are named") {
  const std::pair<const char*, const char*> table[] = {
      {"training.iterations=0", "training.iterations = 0 must be at least 1"},
      {"training.batchsize=-1", "training.batchsize = -1 must be at least 1"},
      {"training.checkpoint_every_n_minutes=0", "training.checkpoint_every_n_minutes = 0 must be positive and finite"},
      {"training.lr=0", "training.lr = 0 must be positive and finite"},
      {"training.lr=nan", "training.lr = nan must be positive and finite"},
      {"training.eps=inf", "training.eps = inf must be positive and finite"},
      {"training.betas=[0.9,1]", "training.betas = 1 must be at least 0 and below 1"},
      {"training.betas=[-0.1,0.9]", "training.betas = -0.1 must be at least 0 and below 1"},
      {"training.weight_decay=-1", "training.weight_decay = -1 must be zero or positive, and finite"},
      {"training.optimizer=AdmW",
       "training.optimizer has no option 'AdmW'; nearest: AdamW, Adam; all: Adam, AdamW, RAdam, Lion, Ranger"},
      {"training.scheduler=flatdecay",
       "training.scheduler has no option 'flatdecay'; nearest: flat+decay, null; all: CosineAnnealingLR, "
       "CosineAnnealingWarmRestarts, OneCycleLR, ReduceLROnPlateau, flat+decay, null"},
      {"training.clip_grad_norm=0", "training.clip_grad_norm = 0 must be positive and finite"},
      {"training.validate_every_n_steps=0", "training.validate_every_n_steps = 0 must be at least 1"},
      {"training.reduceplateau_factor=1", "training.reduceplateau_factor = 1 must be between 0 and 1"},
      {"data.beam_reference=lightlik",
       "data.beam_reference has no option 'lightlik'; nearest: lightlike, timelike; all: lightlike, timelike, "
       "spacelike, all, null"},
      {"data.tagging_features=none",
       "data.tagging_features has no option 'none'; nearest: null, all; all: all, zinvariant, so3invariant, null"},
      {"data.max_particles=0", "data.max_particles = 0 must be at least 1"},
      {"data.mass_reg=-1", "data.mass_reg = -1 must be positive and finite"},
      {"data.data_dir=", "data.data_dir is empty; name the folder of the data"},
      {"evaluation.batchsize=0", "evaluation.batchsize = 0 must be at least 1"},
      {"evaluation.eval_set=[test,valid]",
       "evaluation.eval_set has no option 'valid'; nearest: val, train; all: train, test, val"},
      {"weightquant.use=true", "weightquant.use = true: quantisation is not in this version"},
      {"inputquant.use=true", "inputquant.use = true: quantisation is not in this version"},
      {"device=gpu", "device has no option 'gpu'; nearest: cpu, auto; all: auto, cpu, cuda"},
      {"gpus=-2", "gpus = -2 must be at least -1"},
      {"exp_type=toptaging",
       "exp_type has no option 'toptaging'; nearest: toptagging, toptaggingft; all: toptagging, toptaggingft, "
       "toptagxl, "
       "jctagging"},
      {"exp_name=a/b", "exp_name = 'a/b' must be the name of a folder"},
      {"run_name=..", "run_name = '..' must be the name of a folder"},
      {"ema_decay=1", "ema_decay = 1 must be between 0 and 1"},
      {"model=null", "model has no net.type; choose a network with model=..."},
      {"~model", "model has no net.type; choose a network with model=..."}};
  for (auto& [override, expected] : table) {
    CAPTURE(std::string(override));
    const std::string text = error_of([&, override = override] { validate(with({override})); });
    CHECK(text == std::string("config: ") + expected);
  }
  CHECK(error_of([] { validate(with({"data.test_files_range=[5,5]"}, "jctagging")); }) ==
        "config: data.test_files_range = [5, 5] must be [first, last + 1] with 0 <= first <= last");
  CHECK(error_of([] { validate(with({"jc_params.split_num=0"}, "jctagging")); }) ==
        "config: jc_params.split_num = 0 must be at least 1");
}

TEST_CASE("config: reference_config keeps what matters") {
  const Json out = reference_config(Json::parse(R"({
      "hydra": {"run": 1}, "_target_": "experiments.tagging.wrappers.TransformerWrapper", "net": {"x": 1},
      "framesnet": {}, "exp_name": "a", "data": {"tagging_features_framesnet": "all"},
      "model": {"_target_": "experiments.tagging.wrappers.TransformerWrapper", "use_amp": false,
                "net": {"_target_": "lloca.backbone.transformer.Transformer", "_partial_": true, "list": [{"_target_": "a.B"}]},
                "framesnet": {"_target_": "lloca.framesnet.nonequi_frames.IdentityFrames"}}})"));
  CHECK(out == Json::parse(R"({"exp_name": "a", "data": {"tagging_features": "all"},
      "model": {"use_amp": false, "net": {"type": "Transformer", "list": [{"type": "B"}]},
                "framesnet": {"type": "IdentityFrames"}}})"));
  CHECK_THROWS_AS(reference_config(Json(3)), Error);
}

TEST_CASE("paths: the share folder and the data") {
  CHECK(fs::equivalent(share_dir(), LIGHTCONE_SOURCE_DIR));
  const fs::path folder = fs::temp_directory_path() / ("lightcone_paths_" + std::to_string(getpid()));
  fs::create_directories(folder / "configs");
  fs::create_directories(folder / "data");
  std::ofstream(folder / "data/jets.npz") << "x";
  setenv("LIGHTCONE_SHARE", folder.c_str(), 1);
  CHECK(share_dir() == folder);
  CHECK(find_data("data", "jets.npz") == folder / "data/jets.npz");
  CHECK(find_data("data/", "jets.npz") == folder / "data/jets.npz");
  CHECK(find_data((folder / "data").string(), "jets.npz") == folder / "data/jets.npz");
  CHECK(error_of([&] { find_data("elsewhere", "jets.npz"); }).find("data: jets.npz does not exist (tried ") == 0);
  check_error([&] { find_data("data", "no.npz"); }, (folder / "data/no.npz").string());
  setenv("LIGHTCONE_SHARE", "/nowhere", 1);
  CHECK(error_of([] { share_dir(); }).find("share_dir: LIGHTCONE_SHARE is /nowhere") == 0);
  unsetenv("LIGHTCONE_SHARE");
  fs::remove_all(folder);
}
