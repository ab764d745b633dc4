// The whole program on a GPU, the simulated one: lightcone_gpusim does what lightcone does on the CPU.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <sstream>

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

Finished on_gpu(const std::vector<std::string>& arguments, const fs::path& folder = ".") {
  return Child(arguments, folder, {.program = LIGHTCONE_GPUSIM_BINARY}).finish();
}

const fs::path run = "runs/topt_local_debug/a";

struct Trained {
  std::unique_ptr<ScratchFolder> folder = std::make_unique<ScratchFolder>();
  std::vector<std::vector<double>> rows;  // of metrics.csv: step, loss, rate, norms, …
  std::string model;                      // bytes
  std::string output;
};

Trained trained(const std::vector<std::string>& more, bool gpu) {
  Trained out;
  const std::vector<std::string> arguments =
      joined({"run", "-cn", "toptagging", "training=top_1k", "data.dataset=tiny", "training.iterations=20",
              "training.batchsize=4", "data.max_particles=25", "training.validate_every_n_steps=1000", "evaluate=false",
              "plot=false", "seed=1", "run_name=a", gpu ? "device=cuda" : "device=cpu"},
             more);
  const Finished f = gpu ? on_gpu(arguments, out.folder->path()) : test::lightcone(arguments, out.folder->path());
  out.output = f.output;
  INFO(f.output);
  REQUIRE(f.status == 0);
  std::istringstream lines(read_file(out.folder->path() / run / "metrics.csv"));
  std::string line, cell;
  std::getline(lines, line);  // names
  while (std::getline(lines, line)) {
    std::istringstream cells(line);
    out.rows.emplace_back();
    while (std::getline(cells, cell, ',')) out.rows.back().push_back(cell.empty() ? 0 : std::stod(cell));
  }
  out.model = read_file(out.folder->path() / run / "models/model_run0.safetensors");
  return out;
}

}  // namespace

TEST_CASE("gpu program: verify agrees wherever the CPU's does, in f64 and with f32 networks") {
  std::vector<std::string> all, narrow;
  for (const auto& entry : fs::directory_iterator(fs::path(LIGHTCONE_SOURCE_DIR) / "tests/golden/tagging")) {
    const std::string name = entry.path().filename();
    all.push_back(entry.path());
    for (const char* network : {"transformer_identity", "slim", "lgatr", "jc_transformer_identity", "jc_slim"})
      if (name.starts_with(network)) narrow.push_back(entry.path());
  }
  auto last_line = [](const std::string& text) { return text.substr(text.rfind('\n', text.size() - 2) + 1); };
  for (const auto& arguments : {joined({"verify"}, all), joined({"verify", "--float32"}, narrow)}) {
    const Finished cpu = test::lightcone(joined(arguments, {"--device", "cpu"}));
    const Finished gpu = on_gpu(joined(arguments, {"--device", "cuda"}));
    INFO(gpu.output);
    CHECK(has(gpu.output, " 0 miss,"));
    CHECK(last_line(gpu.output) == last_line(cpu.output));
    CHECK(gpu.status == cpu.status);
  }
}

TEST_CASE("gpu program: twenty steps of training agree with the CPU's, and with themselves to the bit") {
  const std::vector<std::vector<std::string>> networks = {
      {"model=tag_transformer_1k"},
      // In f64: boosts amplify the rounding of f32 by gamma², on either device, and twenty steps do so again.
      {"model=tag_transformer_1k", "model/framesnet=learnedpd", "use_float64=true"},
      {"model=tag_slim_1k"},
      {"model=tag_lgatr", "model.net.hidden_mv_channels=4", "model.net.hidden_s_channels=8", "model.net.num_blocks=1",
       "model.net.attention.num_heads=2"}};
  for (const auto& network : networks) {
    INFO(fmt::format("{}", fmt::join(network, " ")));
    const Trained cpu = trained(network, false), gpu = trained(network, true), again = trained(network, true);
    CHECK(gpu.model == again.model);
    REQUIRE(gpu.rows.size() == cpu.rows.size());
    CHECK(gpu.rows.size() == 20);
    for (size_t i = 0; i < cpu.rows.size(); ++i) {
      REQUIRE(gpu.rows[i].size() == cpu.rows[i].size());
      INFO("step " << i);
      CHECK(gpu.rows[i] == again.rows[i]);
      for (size_t c = 0; c < cpu.rows[i].size(); ++c) {
        INFO("column " << c);
        CHECK(gpu.rows[i][c] == doctest::Approx(cpu.rows[i][c]).epsilon(1e-4));
      }
    }
  }
}

TEST_CASE("gpu program: a network that was trained on the CPU gives the same scores on a GPU") {
  const Trained cpu = trained({"model=tag_slim_1k"}, false);
  const std::string data = tiny_jets.string();
  auto scores = [&](bool gpu, const std::string& out) {
    const std::vector<std::string> arguments = {"predict", run.string(), "--in",     data,
                                                "--out",   out,          "--key",    "kinematics_val",
                                                "--batch", "100",        "--device", gpu ? "cuda" : "cpu"};
    const Finished f = gpu ? on_gpu(arguments, cpu.folder->path()) : test::lightcone(arguments, cpu.folder->path());
    INFO(f.output);
    REQUIRE(f.status == 0);
    Context ctx(1);
    return load_npy(ctx, cpu.folder->path() / out);
  };
  const Tensor there = scores(true, "gpu.npy"), here = scores(false, "cpu.npy");
  REQUIRE(there.shape() == here.shape());
  for (int64_t i = 0; i < here.numel(); ++i)
    CHECK(there.data<float>()[i] == doctest::Approx(here.data<float>()[i]).epsilon(1e-5));
}

TEST_CASE("gpu program: bench --counters names every kernel of a step") {
  const Finished f = on_gpu({"bench", "--counters", "model=tag_slim_1k", "training=top_1k", "data.dataset=tiny",
                             "--batch", "4", "--threads", "1"});
  INFO(f.output);
  CHECK(f.status == 0);
  CHECK(has(f.output, "The CPU waited for 0 of "));
  for (const char* word : {"lorentz_norm", "attention", "A100", "H100", "H200", "occ.", "bound"})
    CHECK(has(f.output, word));
}
