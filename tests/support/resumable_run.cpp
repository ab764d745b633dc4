#include "tests/support/resumable_run.h"

#include <doctest/doctest.h>

#include <chrono>

#include "engine/fields.h"
#include "engine/file.h"
#include "tests/support/process.h"
#include "tests/support/state_entries.h"
#include "tests/support/text.h"

namespace lightcone::test {
namespace fs = std::filesystem;

Arguments training(const Arguments& more) {
  return joined({"run",
                 "-cn",
                 "toptagging",
                 "model=tag_transformer_1k",
                 "training=top_1k",
                 "data.dataset=tiny",
                 "model.net.dropout_prob=0.1",
                 "ema=true",
                 "training.iterations=60",
                 "training.batchsize=16",
                 "training.lr=4e-2",
                 "training.scheduler=ReduceLROnPlateau",
                 "training.reduceplateau_patience=0",
                 "training.reduceplateau_factor=0.7",
                 "training.es_patience=3",
                 "training.es_load_best_model=true",
                 "training.validate_every_n_steps=4",
                 "training.checkpoint_every_n_minutes=1e-4",
                 "seed=4",
                 "run_name=a",
                 "--threads",
                 "1"},
                more);
}

Arguments warm_start(const Arguments& more) {
  return joined({"run", "-cp", run.string(), "-cn", "config", "warm_start_idx=0", "training.lr=1e-2",
                 "training.es_patience=100", "--threads", "1"},
                more);
}

int64_t metrics_rows(const fs::path& folder) {
  return fs::exists(folder / "metrics.csv") ? lines(read_file(folder / "metrics.csv")) : 0;
}

Content content(const fs::path& folder) {
  Content out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = fs::relative(entry.path(), folder).string(), file = entry.path().filename().string();
    if (file == ".lock" || file == "report.html" || file.ends_with(".log")) continue;
    if (file.starts_with("results")) {
      Json results = Json::parse(read_file(entry.path()));
      for (const char* key : {"seconds", "training_seconds", "peak_memory_mib"}) results.erase(key);
      out[name] = results.dump();
    } else if (file.starts_with("state_run") && file.ends_with(".safetensors")) {
      for (auto& [key, bytes] : state_entries(entry.path())) out[name + ": " + key] = bytes;
    } else {
      out[name] = read_file(entry.path());
    }
  }
  return out;
}

void check_same(const Content& expected, const Content& got) {
  std::string different;
  for (const auto& [name, bytes] : expected)
    if (auto it = got.find(name); it == got.end() || it->second != bytes) different += name + ", ";
  for (const auto& [name, bytes] : got)
    if (!expected.contains(name)) different += "new " + name + ", ";
  CHECK(different == "");
}

Reference::Reference() {
  const auto start = std::chrono::steady_clock::now();
  const Finished f = test::lightcone(training(), first.path());
  seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  INFO(f.output);
  REQUIRE(f.status == 0);
  // Early stopping, after step 52 on the author's machine, makes the case worth more; other machines' bits differ.
  WARN(has(f.output, "Stopped early"));
  CHECK(has(f.output, "Taking the network of the best validation"));
  first_content = content(first / run.string());
  fs::copy(first.path(), both.path(), fs::copy_options::recursive);
  const Finished w = test::lightcone(warm_start(), both.path());
  INFO(w.output);
  REQUIRE(w.status == 0);
  both_content = content(both / run.string());
  CHECK(both_content.at("models/state_run0.safetensors: model.net.linear_in.weight") !=
        both_content.at("models/state_run1.safetensors: model.net.linear_in.weight"));
}

const Reference& reference() {
  static const Reference r;
  return r;
}

}  // namespace lightcone::test
