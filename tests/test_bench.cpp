#include <doctest/doctest.h>

#ifdef LIGHTCONE_BENCH_BINARY
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/text.h"

using namespace lightcone::test;

namespace {

struct Outcome {
  int status;
  std::string text;
};

Outcome bench(const std::string& arguments) {
  FILE* pipe = popen((std::string("'" LIGHTCONE_BENCH_BINARY "' ") + arguments + " 2>&1").c_str(), "r");
  REQUIRE(pipe);
  std::string text;
  for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
  return {WEXITSTATUS(pclose(pipe)), text};
}

}  // namespace

TEST_CASE("every bench runs and its check passes") {
  const auto file = std::filesystem::temp_directory_path() / ("lightcone_bench_" + std::to_string(getpid()) + ".json");
  const Outcome outcome = bench("--quick --threads 1 --json " + file.string());
  INFO(outcome.text);
  REQUIRE(outcome.status == 0);
  const auto json = nlohmann::json::parse(std::ifstream(file));
  std::filesystem::remove(file);
  CHECK(json["quick"] == true);
  CHECK(json["threads"] == 1);
  for (const char* key : {"commit", "version", "arch", "cpu"}) CHECK(json[key].is_string());
  CHECK(json["date"].get<std::string>().size() == std::string("2000-01-01T00:00:00Z").size());
  for (const char* key : {"copy", "gemm f64", "gemm f32", "gemm bf16"}) CHECK(json["ceilings"][key] > 0);
  std::set<std::string> names;
  for (const auto& result : json["results"]) {
    INFO(result.dump());
    CHECK(names.insert(result["name"]).second);
    CHECK(result["ok"] == true);
    CHECK(result["error"] <= result["tolerance"]);
    CHECK(result["runs"] >= 3);
    CHECK(result["median_seconds"] > 0);
    CHECK(std::isfinite(result["share"].get<double>()));
  }
  for (const char* family : {"linear", "mlp", "attention", "add", "sum over", "bce_with_logits", "layer_norm",
                             "segment_sum", "softmax", "minkowski_inner", "jet_features", "embed_jets", "dropout"})
    CHECK(std::any_of(names.begin(), names.end(), [&](auto& name) { return name.starts_with(family); }));
}

TEST_CASE("the bench takes a filter and refuses what it does not know") {
  const Outcome norm = bench("--quick --threads 1 --filter 'layer_norm f64'");
  CHECK(norm.status == 0);
  CHECK(has(norm.text, "layer_norm f64"));
  CHECK(!has(norm.text, "linear"));
  auto refuses = [](const std::string& arguments, const std::string& message) {
    const Outcome outcome = bench(arguments);
    CHECK(outcome.status == 2);
    CHECK_MESSAGE(has(outcome.text, "lightcone_bench: " + message), outcome.text);
  };
  refuses("--speed", "unknown option --speed");
  refuses("--threads", "--threads needs a value");
  refuses("--threads 0", "--threads is \"0\", expected a number from 1 to 4096");
  refuses("--threads 2x", "--threads is \"2x\", expected a number from 1 to 4096");
  refuses("--quick --filter nothing", "no case has \"nothing\" in its name");
  refuses("--json /nowhere/x.json", "cannot write /nowhere/x.json");
}
#endif
