// `lightcone verify` on numbers that the PyTorch implementation gave.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "tests/support/op_case.h"
#include "tests/support/process.h"
#include "tests/support/scratch_folder.h"

using namespace lightcone;
using namespace lightcone::test;
namespace fs = std::filesystem;

namespace {

const fs::path golden = fs::path(LIGHTCONE_SOURCE_DIR) / "tests" / "golden" / "tagging";

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A copy of a reference file with another last number in one tensor. (Not the first: an energy is what the mass regulator sets anew.)
void edited(const fs::path& from, const fs::path& to, const std::string& name, double factor) {
  Context ctx(1);
  const Safetensors file(from);
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& n : file.names()) {
    Tensor t = file.load(ctx, n);
    if (n == name) {
      double& last = t.data<double>()[t.numel() - 1];
      last = last * factor + (factor - 1);
    }
    tensors.emplace_back(n, t);
  }
  save_safetensors(to, tensors, file.metadata());
}

}  // namespace

TEST_CASE("verify: every Transformer with identity frames agrees, in f64 and with an f32 network") {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    if (!has(entry.path().filename().string(), "transformer_identity")) continue;
    ++files;
    for (const char* option : {"--all", "--float32"}) {
      const Finished f = test::lightcone({"verify", entry.path().string(), option});
      INFO(f.output);
      CHECK(f.status == 0);
      for (const char* quantity : {"out/embedding_tagging_features", "mid/net_in/inputs", "out/logits", "out/loss",
                                   "grad/", "eval/logits", "traj/loss", "traj/grad_norm", "PASS"})
        CHECK(has(f.output, quantity));
    }
  }
  CHECK(files == 5);
}

TEST_CASE("verify: one changed number is a miss, by name") {
  ScratchFolder folder;
  const fs::path from = golden / "transformer_identity_globaltoken.safetensors",
                 to = folder.path() / "edited.safetensors";
  for (const char* name :
       {"param/net.blocks.1.mlp.0.weight", "in/fourmomenta", "out/logits", "out/loss", "grad/net.linear_in.weight",
        "grad/net.linear_out.bias", "mid/net_in/inputs", "eval/logits", "traj/loss", "traj/grad_norm",
        "traj/param_final/net.linear_in.weight", "out/embedding_fourmomenta", "out/embedding_tagging_features"}) {
    edited(from, to, name, 1 + 1e-6);
    const Finished f = test::lightcone({"verify", to.string()});
    INFO(std::string(name), "\n", f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, "MISS"));
    if (std::string(name).starts_with("out/") || std::string(name).starts_with("grad/")) {
      const size_t at = f.output.find(std::string("  ") + name);
      REQUIRE(at != std::string::npos);
      const std::string line = f.output.substr(at, f.output.find('\n', at) - at);
      INFO(line);
      CHECK(has(line, "MISS"));
    }
  }
}

TEST_CASE("verify: a network that is not there is said to be so, and its embedding is compared all the same") {
  const Finished f = test::lightcone({"verify", (golden / "graphnet_identity.safetensors").string()});
  INFO(f.output);
  CHECK(f.status == 2);
  CHECK(has(f.output, "NOT THERE"));
  CHECK(has(f.output, "GraphNet"));
  CHECK(has(f.output, "out/embedding_tagging_features"));
}

TEST_CASE("verify: files that are no reference files get one clear line") {
  ScratchFolder folder;
  Context ctx(1);
  save_safetensors(folder.path() / "plain.safetensors", {{"x", ctx.zeros({2}, DType::f64)}});
  const Finished plain = test::lightcone({"verify", (folder.path() / "plain.safetensors").string()});
  CHECK(plain.status == 1);
  CHECK(has(plain.output, "no 'config'"));
  const std::string whole = read_file(golden / "transformer_identity.safetensors");
  std::ofstream(folder.path() / "cut.safetensors", std::ios::binary) << whole.substr(0, whole.size() - 100);
  const Finished cut = test::lightcone({"verify", (folder.path() / "cut.safetensors").string()});
  CHECK(cut.status == 1);
  CHECK(has(cut.output, "cut.safetensors"));
}
