// The program as its users meet it: what works, and what one wrong word gives.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "engine/device.h"
#include "engine/fields.h"
#include "engine/file.h"
#include "engine/npz.h"
#include "engine/safetensors.h"
#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;
namespace fs = std::filesystem;

namespace {

// A training of a second: the smallest network on the smallest data.
std::vector<std::string> tiny(const std::vector<std::string>& more = {}) {
  return joined(
      {"run", "-cn", "toptagging", "model=tag_transformer_1k", "training=top_1k", "data.dataset=tiny",
       "training.iterations=12", "training.batchsize=32", "training.validate_every_n_steps=5", "seed=1", "run_name=a"},
      more);
}

// The error is one line, names `words`, status 1, and nothing was written.
void rejects(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  ScratchFolder folder;
  const Finished f = test::lightcone(arguments, folder.path());
  INFO(f.output);
  CHECK(f.status == 1);
  for (const auto& w : words) {
    INFO("expected: ", w);
    CHECK(has(f.output, w));
  }
  CHECK(lines(f.output) <= 6);
  CHECK(fs::is_empty(folder.path()));
}

}  // namespace

TEST_CASE("cli: help and version") {
  const Finished help = test::lightcone({"--help"});
  CHECK(help.status == 0);
  for (const char* word : {"run", "predict", "verify", "inspect", "bench"}) CHECK(has(help.output, word));
  const Finished version = test::lightcone({"--version"});
  CHECK(version.status == 0);
  CHECK(has(version.output, "lightcone 0."));
  CHECK(test::lightcone({}).status == 1);
}

TEST_CASE("cli: kernels are counted by the program with a simulated GPU alone") {
  rejects({"bench", "--counters"}, {"--counters needs a simulated GPU", "lightcone_gpusim bench --counters"});
}

TEST_CASE("cli: run writes the folder of the design, predict and inspect read it") {
  ScratchFolder folder;
  const Finished run = test::lightcone(tiny(), folder.path());
  INFO(run.output);
  REQUIRE(run.status == 0);
  const fs::path out = folder.path() / "runs" / "topt_local_debug" / "a";
  for (const char* file : {"config.toml", "config_0.toml", "out_0.log", "metrics.csv", "results.json", "report.html",
                           "models/model_run0.safetensors", "models/state_run0.safetensors"}) {
    INFO(file);
    CHECK(fs::exists(out / file));
  }
  const Json results = Json::parse(read_file(out / "results.json"));
  for (const char* set : {"train", "val", "test"})
    for (const char* key : {"accuracy", "auc", "rejection_0.3", "rejection_0.5", "rejection_0.8", "loss"}) {
      INFO(set, " ", key);
      CHECK(results[set].contains(key));
    }
  CHECK(results["num_parameters"] == 1777);
  CHECK(results["peak_memory_mib"] > 1);
  CHECK(results["seconds"] > 0);
  const std::string metrics = read_file(out / "metrics.csv");
  CHECK(lines(metrics) == 13);

  const std::string data = tiny_jets.string();
  const Finished predict = test::lightcone(
      {"predict", out.string(), "--in", data, "--out", "scores.npz", "--key", "kinematics_test"}, folder.path());
  INFO(predict.output);
  REQUIRE(predict.status == 0);
  Context ctx(1);
  const Tensor scores = Npz(folder.path() / "scores.npz").load(ctx, "scores");
  REQUIRE(scores.shape() == Shape{200});
  for (float s : scores.span<float>()) CHECK((s > 0 && s < 1));
  // One jet at a time gives the same bits: a score does not depend on the other jets of the batch.
  REQUIRE(test::lightcone({"predict", out.string(), "--in", data, "--out", "single.npz", "--key", "kinematics_test",
                           "--batch", "1"},
                          folder.path())
              .status == 0);
  const Tensor single = Npz(folder.path() / "single.npz").load(ctx, "scores");
  CHECK(std::equal(scores.data<float>(), scores.data<float>() + 200, single.data<float>()));

  const Finished inspect = test::lightcone({"inspect", out.string(), data}, folder.path());
  CHECK(inspect.status == 0);
  CHECK(has(inspect.output, "net.blocks.0.attention.qkv_linear.linear.weight"));
  CHECK(has(inspect.output, "kinematics_train"));

  const Finished again = test::lightcone(tiny(), folder.path());
  CHECK(again.status == 1);
  CHECK(has(again.output, "exists already"));
}

TEST_CASE("cli: a warm start goes on, with the next index") {
  ScratchFolder folder;
  REQUIRE(test::lightcone(tiny(), folder.path()).status == 0);
  const std::string out = (folder.path() / "runs" / "topt_local_debug" / "a").string();
  const Finished warm = test::lightcone(
      {"run", "-cp", out, "-cn", "config", "warm_start_idx=0", "training.scheduler_scale=2"}, folder.path());
  INFO(warm.output);
  REQUIRE(warm.status == 0);
  CHECK(fs::exists(out + "/models/model_run1.safetensors"));
  CHECK(fs::exists(out + "/out_1.log"));
  const Finished evaluate =
      test::lightcone({"run", "-cp", out, "-cn", "config", "warm_start_idx=1", "train=false"}, folder.path());
  INFO(evaluate.output);
  CHECK(evaluate.status == 0);
}

TEST_CASE("cli: a warm start that fails leaves the run as it was; a copied run is the one that -cp names") {
  ScratchFolder folder;
  REQUIRE(test::lightcone(tiny(), folder.path()).status == 0);
  const fs::path out = folder.path() / "runs" / "topt_local_debug" / "a", copy = folder / "copy";
  fs::copy(out, copy, fs::copy_options::recursive);
  auto listing = [&] {
    std::vector<std::string> names;
    for (const auto& e : fs::recursive_directory_iterator(out)) names.push_back(e.path().string());
    std::sort(names.begin(), names.end());
    return names;
  };
  const std::string before = read_file(out / "config.toml");
  const auto files = listing();
  for (const char* wrong : {"model.net.num_blocks=2", "training.optimizer=Lion", "warm_start_idx=7"}) {
    const Finished f = test::lightcone({"run", "-cp", out.string(), "-cn", "config", wrong}, folder.path());
    INFO(std::string(wrong), f.output);
    CHECK(f.status == 1);
    CHECK(read_file(out / "config.toml") == before);
    CHECK(listing() == files);
  }
  const Finished f = test::lightcone({"run", "-cp", "copy", "-cn", "config", "data.max_particles=5"}, folder.path());
  INFO(f.output);
  CHECK(f.status == 0);
  CHECK(fs::exists(copy / "models" / "model_run1.safetensors"));
  CHECK(listing() == files);
  // metrics.csv goes on, and each network keeps its configuration.
  const std::string metrics = read_file(copy / "metrics.csv");
  CHECK(lines(metrics) == 25);
  CHECK(has(metrics, "\n24,"));
  CHECK(!has(read_file(copy / "config_0.toml"), "max_particles = 5"));
  CHECK(has(read_file(copy / "config.toml"), "max_particles = 5"));
  const std::string data = tiny_jets.string();
  REQUIRE(test::lightcone({"predict", out.string(), "--in", data, "--out", "a.npy"}, folder.path()).status == 0);
  REQUIRE(
      test::lightcone({"predict", "copy", "--run-idx", "0", "--in", data, "--out", "b.npy"}, folder.path()).status ==
      0);
  CHECK(read_file(folder / "a.npy") == read_file(folder / "b.npy"));
}

TEST_CASE("cli: predict refuses to overwrite its input and names a jet whose score is NaN") {
  ScratchFolder folder;
  REQUIRE(test::lightcone(tiny(), folder.path()).status == 0);
  const std::string run = (folder.path() / "runs" / "topt_local_debug" / "a").string();
  Context ctx(1);
  std::vector<double> jets = {50, 30, 0, 40, 50, 30, 0, 40};
  save_npy(folder / "jets.npy", ctx.of({2, 1, 4}, DType::f64, jets));
  const Finished same = test::lightcone({"predict", run, "--in", "jets.npy", "--out", "jets.npy"}, folder.path());
  CHECK(same.status == 1);
  CHECK(has(same.output, "choose another name"));
  for (double& v : jets) v *= 1e300;
  save_npy(folder / "huge.npy", ctx.of({2, 1, 4}, DType::f64, jets));
  const Finished huge = test::lightcone({"predict", run, "--in", "huge.npy", "--out", "scores.npy"}, folder.path());
  INFO(huge.output);
  CHECK(huge.status == 1);
  CHECK(has(huge.output, "jet 0"));
  CHECK(!fs::exists(folder / "scores.npy"));
}

TEST_CASE("cli: a name may look like a number") {
  ScratchFolder folder;
  CHECK(test::lightcone(tiny({"run_name=nan"}), folder.path()).status == 0);
  CHECK(test::lightcone(tiny({"run_name=1e5"}), folder.path()).status == 0);
  CHECK(fs::exists(folder / "runs/topt_local_debug/nan"));
  CHECK(fs::exists(folder / "runs/topt_local_debug/1e5"));
}

TEST_CASE("cli: a set that cannot be evaluated is refused before the training") {
  ScratchFolder data;
  Context ctx(1);
  const std::vector<double> momenta = {2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1}, ones(3, 1.0), mixed = {1, 0, 1};
  std::vector<std::pair<std::string, Tensor>> arrays;
  for (const char* part : {"train", "val", "test"}) {
    arrays.emplace_back(std::string("kinematics_") + part, ctx.of({3, 1, 4}, DType::f32, momenta));
    arrays.emplace_back(std::string("labels_") + part,
                        ctx.of({3}, DType::i64, std::string(part) == "test" ? ones : mixed));
  }
  save_npz(data / "toptagging_oneclass.npz", arrays);
  rejects(tiny({"data.data_dir=" + data.path().string(), "data.dataset=oneclass"}),
          {"test set", "signal", "both classes"});
}

TEST_CASE("cli: save=false writes nothing") {
  ScratchFolder folder;
  CHECK(test::lightcone(tiny({"save=false"}), folder.path()).status == 0);
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("cli: bad input gets one clear error and nothing is written") {
  rejects(tiny({"training.itertions=3"}), {"training.itertions", "training.iterations"});
  rejects(tiny({"model=tag_transformr"}), {"tag_transformr", "tag_transformer"});
  rejects(tiny({"training.batchsize=-4"}), {"training.batchsize", "-4"});
  rejects(tiny({"training.batchsize=many"}), {"training.batchsize", "many"});
  rejects(tiny({"training.optimizer=Adamm"}), {"Adamm", "Adam"});
  rejects(tiny({"training.scheduler=Cosine"}), {"Cosine", "CosineAnnealingLR"});
  rejects(tiny({"model.net.num_heads=0"}), {"num_heads is 0"});
  rejects(tiny({"model.net.attn_reps=8x0"}), {"8x0", "8x0n+2x1n"});
  rejects(tiny({"model.net.hidden=3"}), {"hidden"});
  rejects(tiny({"data.dataset=nowhere"}), {"toptagging_nowhere.npz"});
  rejects(tiny({"data.beam_reference=lightlke"}), {"lightlke", "lightlike"});
  rejects(tiny({"device=gpu"}), {"device", "gpu", "cuda"});
  if (!why_no_cuda().empty()) {
    rejects(tiny({"device=cuda"}), {"cuda was asked for", why_no_cuda(), "device=cpu"});
    rejects({"verify", "--device", "cuda", "a.safetensors"}, {"cuda was asked for"});
  }
  rejects(tiny({"weightquant.use=true"}), {"weightquant"});
  rejects(tiny({"model.in_channels=99"}), {"model.in_channels is 99", "7"});
  rejects(tiny({"model.net.type=null"}), {"net/type", "null"});
  rejects(tiny({"model.net.num_blocks=100000000"}), {"num_blocks is 100000000"});
  rejects(tiny({"training.scheduler=OneCycleLR", "training.scheduler_scale=0.5"}), {"scheduler_scale", "OneCycleLR"});
  rejects(tiny({"evaluation.eval_set=[test,test]"}), {"eval_set", "twice"});
  rejects({"run", "-cn", "toptaging"}, {"toptaging", "toptagging"});
  rejects({"run", "-cn", "jctagging"}, {"jctagging"});
  rejects({"predict", "nowhere", "--in", "a.npz", "--out", "b.npz"}, {"nowhere"});
  rejects({"inspect", "nowhere"}, {"nowhere"});
  rejects({"verify", "nowhere.safetensors"}, {"nowhere.safetensors"});
}

TEST_CASE("cli: a command, a name or a path that is wrong is found before anything runs") {
  rejects({"predct"}, {"unknown command 'predct'", "did you mean predict"});
  rejects(tiny({"run_name=" + std::string(300, 'x')}), {"run_name", "300 characters", "at most 200"});
  rejects(tiny({"--trace", "nowhere/trace.json"}), {"nowhere/trace.json", "No such file or directory"});
  rejects(tiny({"--trace", "."}), {"is a folder"});
  // The last of two names counts, as with overrides.
  rejects({"run", "-cn", "toptagging", "-cn", "nothing"}, {"nothing"});
}

TEST_CASE("cli: inspect shows control characters as codes") {
  ScratchFolder folder;
  Context ctx(1);
  save_safetensors(folder / "x.safetensors", {{"a\x1b[31m", ctx.zeros({1}, DType::f32)}},
                   {{"key\x07", "\xc2\x9b value"}});
  write_atomic(folder / "x.log", "one\ttwo\n\x1b]0;title\x07 \xce\xb5\n");
  for (const char* name : {"x.safetensors", "x.log"}) {
    const Finished f = test::lightcone({"inspect", name}, folder.path());
    INFO(f.output);
    CHECK(f.status == 0);
    for (const char* bad : {"\x1b", "\x07", "\xc2\x9b"}) CHECK(!has(f.output, bad));
    CHECK(has(f.output, "\\x1b"));
    CHECK(has(f.output, "\\x07"));
  }
  CHECK(has(test::lightcone({"inspect", "x.log"}, folder.path()).output, "one\ttwo\n\\x1b]0;title\\x07 \xce\xb5\n"));
}

TEST_CASE("cli: damaged data is named, and nothing is written") {
  ScratchFolder data;
  const std::string whole = read_file(tiny_jets);
  std::ofstream(data.path() / "toptagging_cut.npz", std::ios::binary) << whole.substr(0, whole.size() / 2);
  std::ofstream(data.path() / "toptagging_junk.npz", std::ios::binary) << std::string(1000, 'x');
  std::ofstream(data.path() / "toptagging_empty.npz", std::ios::binary);
  for (const char* name : {"cut", "junk", "empty"})
    rejects(tiny({"data.data_dir=" + data.path().string(), fmt::format("data.dataset={}", name)}),
            {fmt::format("toptagging_{}.npz", name)});
}

TEST_CASE("cli: a loss that is not finite stops the training, names the step, and the last good network stays") {
  const fs::path run = fs::path("runs") / "topt_local_debug" / "a";
  ScratchFolder at_once, later;
  const Finished none = test::lightcone(tiny({"training.lr=1e18", "training.scheduler=null", "training.optimizer=Adam",
                                              "training.validate_every_n_steps=1", "training.iterations=200"}),
                                        at_once.path());
  INFO(none.output);
  CHECK(none.status == 1);
  CHECK(has(none.output, "step "));
  CHECK(has(none.output, "no network was saved yet"));
  CHECK(!fs::exists(at_once.path() / run / "models" / "model_run0.safetensors"));
  // The rate grows from 1e-2 to 1e18: good at first.
  const Finished kept =
      test::lightcone(tiny({"training.lr=1e18", "training.scheduler=OneCycleLR", "training.onecycle_div_factor=1e20",
                            "training.onecycle_pct_start=0.9", "training.optimizer=Adam", "training.iterations=200",
                            "training.validate_every_n_steps=1"}),
                      later.path());
  INFO(kept.output);
  CHECK(kept.status == 1);
  CHECK(has(kept.output, "is kept"));
  const fs::path model = later.path() / run / "models" / "model_run0.safetensors";
  REQUIRE(fs::exists(model));
  Context ctx(1);
  const Safetensors file(model);
  for (const auto& name : file.names())
    if (file.info(name).type == "F32")
      for (float v : file.load(ctx, name).span<float>()) CHECK(std::isfinite(v));
}
