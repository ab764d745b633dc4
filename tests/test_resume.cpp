// Nothing lost: a run that is killed at any instant, interrupted, or out of disk goes on to the bits that it would have
// had.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <random>

#include "engine/fields.h"
#include "engine/file.h"
#include "tests/support/process.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/state_entries.h"

using namespace lightcone;
using namespace lightcone::test;
namespace fs = std::filesystem;

namespace {

const fs::path run = "runs/topt_local_debug/a";
const std::vector<std::string> resume = {"run", "--resume", run.string(), "--threads", "1"};

// All state that a training can have counts: dropout, averages, a plateau schedule that reduces, a best network.
std::vector<std::string> training(std::vector<std::string> more = {}) {
  std::vector<std::string> out = {"run",
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
                                  "1"};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

std::vector<std::string> warm_start(std::vector<std::string> more = {}) {
  std::vector<std::string> out = {"run",
                                  "-cp",
                                  run.string(),
                                  "-cn",
                                  "config",
                                  "warm_start_idx=0",
                                  "training.lr=1e-2",
                                  "training.es_patience=100",
                                  "--threads",
                                  "1"};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

int64_t lines(const fs::path& file) {
  if (!fs::exists(file)) return 0;
  const std::string text = read_file(file);
  return std::count(text.begin(), text.end(), '\n');
}

/// What a run leaves, by name: bytes, without the times that it took.
std::map<std::string, std::string> content(const fs::path& folder) {
  std::map<std::string, std::string> out;
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

void check_same(const std::map<std::string, std::string>& expected, const std::map<std::string, std::string>& got) {
  std::string different;
  for (const auto& [name, bytes] : expected)
    if (auto it = got.find(name); it == got.end() || it->second != bytes) different += name + ", ";
  for (const auto& [name, bytes] : got)
    if (!expected.contains(name)) different += "new " + name + ", ";
  CHECK(different == "");
}

/// A training and a warm start that nothing interrupted.
struct Reference {
  ScratchFolder first, both;
  std::map<std::string, std::string> first_content, both_content;
  double seconds = 0;
  Reference() {
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
};

const Reference& reference() {
  static const Reference r;
  return r;
}

int wanted_kills() {
  const char* set = std::getenv("LIGHTCONE_KILLS");
  return set ? std::atoi(set) : 50;
}

unsigned seed() {
  const char* set = std::getenv("LIGHTCONE_SEED");
  return set ? static_cast<unsigned>(std::atoi(set)) : std::random_device{}();
}

/// How many kills came before the training had begun, during it, and after it.
struct Kills {
  int before = 0, during = 0, after = 0, left_temporaries = 0;
  int all() const { return before + during + after; }
};

// Starts the run `index`, kills it at a random instant, goes on, kills it again, until one comes to its end.
void kill_until_complete(const std::vector<std::string>& start, const fs::path& folder, int index, std::mt19937& random,
                         Kills& kills) {
  const fs::path config = folder / run / fmt::format("config_{}.toml", index),
                 state = folder / run / fmt::format("models/state_run{}.safetensors", index);
  // Every fourth one early: much is done in the first instants.
  auto delay = [&, uniform = std::uniform_real_distribution<double>(0, 0.8 * reference().seconds)]() mutable {
    return uniform(random) * (random() % 4 ? 1 : 0.15);
  };
  for (;;) {
    const bool begun = fs::exists(config);
    Child child(begun ? resume : start, folder);
    usleep(static_cast<useconds_t>(1e6 * delay()));
    child.send(SIGKILL);
    const Finished f = child.finish();
    if (f.status != 128 + SIGKILL) {
      INFO(f.output);
      REQUIRE(f.status == 0);
      return;
    }
    if (!fs::exists(config))
      ++kills.before;
    else if (state_entries(state).at("loop.number.finished") == std::string(8, '\0'))
      ++kills.during;
    else
      ++kills.after;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.path().extension() == ".tmp") {
        ++kills.left_temporaries;
        break;
      }
  }
}

}  // namespace

TEST_CASE("resume: a run that is killed again and again ends with the bits of one that is not") {
  const unsigned s = seed();
  std::mt19937 random(s);
  INFO("LIGHTCONE_SEED=", s);
  Kills kills;
  int runs = 0;
  for (; kills.all() < wanted_kills(); ++runs) {
    ScratchFolder folder;
    if (runs % 2 == 0) {
      kill_until_complete(training(), folder.path(), 0, random, kills);
      check_same(reference().first_content, content(folder / run.string()));
    } else {
      fs::copy(reference().first.path(), folder.path(), fs::copy_options::recursive);
      kill_until_complete(warm_start(), folder.path(), 1, random, kills);
      check_same(reference().both_content, content(folder / run.string()));
    }
    // Of a new run's folder under its first name, too.
    CHECK(std::distance(fs::directory_iterator(folder / run.parent_path().string()), {}) == 1);
  }
  MESSAGE(kills.all() << " kills (" << kills.before << " before the training, " << kills.during << " during it, "
                      << kills.after << " after it; " << kills.left_temporaries << " left temporary files) of " << runs
                      << " runs, LIGHTCONE_SEED=" << s);
  CHECK(kills.during > 0);
}

TEST_CASE("resume: SIGINT and SIGTERM end a training after its step, saved, and say how to go on") {
  const std::vector<std::string> longer = {"training.iterations=300", "training.es_patience=1000",
                                           "training.checkpoint_every_n_minutes=null",
                                           "training.validate_every_n_steps=150", "plot=false"};
  ScratchFolder whole, folder;
  REQUIRE(test::lightcone(training(longer), whole.path()).status == 0);
  const fs::path metrics = folder / run.string() / "metrics.csv";
  std::vector<std::string> command = training(longer);
  int64_t rows = 20;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    Child child(command, folder.path());
    REQUIRE(child.wait_for([&] { return lines(metrics) > rows; }));
    child.send(signal);
    const Finished f = child.finish();
    INFO(f.output);
    CHECK(f.status == 128 + signal);
    CHECK(has(f.output, "go on with: lightcone run --resume " + run.string()));
    CHECK(!has(f.output, "Finished"));
    // No step was lost, though none was to be saved here.
    const auto state = state_entries(folder / run.string() / "models/state_run0.safetensors");
    CHECK(static_cast<int64_t>(state.at("loop.tensor.history.step").size() / 8) == lines(metrics) - 1);
    rows = lines(metrics) + 20;
    command = resume;
  }
  REQUIRE(test::lightcone(resume, folder.path()).status == 0);
  check_same(content(whole / run.string()), content(folder / run.string()));
}

TEST_CASE("resume: signals at random instants, evaluation and plots included") {
  const unsigned s = seed();
  std::mt19937 random(s);
  INFO("LIGHTCONE_SEED=", s);
  std::uniform_real_distribution<double> delay(0, 1.1 * reference().seconds);
  for (int i = 0; i < 4; ++i) {
    ScratchFolder folder;
    for (bool complete = false; !complete;) {
      const int signal = random() % 2 ? SIGINT : SIGTERM;
      const bool begun = fs::exists(folder / run.string() / "config_0.toml");
      Child child(begun ? resume : training(), folder.path());
      usleep(static_cast<useconds_t>(1e6 * delay(random)));
      child.send(signal);
      const Finished f = child.finish();
      INFO(f.output);
      complete = f.status == 0;
      if (!complete) REQUIRE(f.status == 128 + signal);
    }
    check_same(reference().first_content, content(folder / run.string()));
  }
}

TEST_CASE("resume: a second SIGINT ends at once") {
  ScratchFolder folder;
  // Steps of seconds.
  Child child(training({"model=tag_transformer", "training.batchsize=400", "model.net.dropout_prob=0"}), folder.path());
  const fs::path log = folder / run.string() / "out_0.log";
  REQUIRE(child.wait_for([&] { return fs::exists(log) && has(read_file(log), "Training for"); }));
  child.send(SIGINT);
  usleep(50000);
  CHECK(child.running());
  child.send(SIGINT);
  const Finished f = child.finish();
  INFO(f.output);
  CHECK(f.status == 128 + SIGINT);
  CHECK(has(f.output, "lightcone run --resume"));
  CHECK(state_entries(folder / run.string() / "models/state_run0.safetensors")
            .at("loop.tensor.history.step")
            .empty());  // the step was not waited for
}

TEST_CASE("resume: a complete run says so; a change that matters is refused; the folder of no run is named") {
  ScratchFolder folder;
  fs::copy(reference().first.path(), folder.path(), fs::copy_options::recursive);
  const Finished complete = test::lightcone(resume, folder.path());
  CHECK(complete.status == 0);
  CHECK(has(complete.output, "is complete"));
  // Without its last files it evaluates again, also from a moved folder.
  fs::rename(folder / run.string(), folder / "moved");
  fs::remove(folder / "moved/results_0.json");
  auto resumed = [&](std::vector<std::string> more, const char* path = "moved") {
    more.insert(more.begin(), {"run", "--resume", path, "--threads", "1"});
    return test::lightcone(more, folder.path());
  };
  for (const char* change : {"training.lr=1", "model.net.num_blocks=1", "seed=2", "run_name=b", "ema=false",
                             "training.iterations=100", "~seed", "model=tag_transformer", "train=false"}) {
    const Finished f = resumed({change});
    INFO(f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, "cannot change"));
    CHECK(has(f.output, "warm_start_idx=0"));
  }
  const Finished again = resumed({"evaluation.batchsize=7", "training.checkpoint_every_n_minutes=1"});
  INFO(again.output);
  CHECK(again.status == 0);
  auto expected = reference().first_content, got = content(folder / "moved");
  for (const char* name : {"config.toml"}) expected.erase(name), got.erase(name);  // they name the folder
  check_same(expected, got);

  CHECK(resumed({}, "nowhere").status == 1);
  CHECK(has(resumed({}, "nowhere").output, "nowhere is not there"));
  CHECK(has(resumed({}, ".").output, "is not the folder of a run"));
  CHECK(resumed({"-cn", "demo"}).status == 1);
}

TEST_CASE("resume: two processes on one folder") {
  ScratchFolder folder;
  Child first(training({"training.iterations=100000", "training.es_patience=100000"}), folder.path());
  REQUIRE(first.wait_for([&] { return fs::exists(folder / run.string() / "config_0.toml"); }));
  const Finished second = test::lightcone(resume, folder.path());
  INFO(second.output);
  CHECK(second.status == 1);
  CHECK(has(second.output, "is in use by process"));
  CHECK(first.running());
  first.send(SIGKILL);
  CHECK(first.finish().status == 128 + SIGKILL);
  Child third(resume, folder.path());  // the lock went with its process
  CHECK(third.wait_for([&] { return has(read_file(folder / run.string() / "out_0.log"), "resumed"); }));
}

TEST_CASE("resume: a full disk ends a run with one clear error, and its last state goes on") {
  ScratchFolder folder;
  // The largest file is the state at the end.
  const auto size = fs::file_size(reference().first / run.string() / "models/state_run0.safetensors");
  for (const auto& command : {training(), resume}) {
    Child child(command, folder.path(), {.file_limit = size - 1000});
    const Finished f = child.finish();
    INFO(f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, "models/state_run0.safetensors: cannot be written: File too large"));
    CHECK(has(f.output, "is kept; then go on with: lightcone run --resume " + run.string()));
    CHECK(state_entries(folder / run.string() / "models/state_run0.safetensors").at("loop.tensor.history.step").size() >
          0);
  }
  // Too small for the first file: nothing is left.
  ScratchFolder none;
  Child child(training(), none.path(), {.file_limit = 1000});
  CHECK(child.finish().status == 1);
  CHECK(fs::is_empty(none / "runs/topt_local_debug"));
  // The log is full.
  const fs::path log = folder / run.string() / "out_0.log";
  fs::remove(log);
  fs::create_symlink("/dev/full", log);
  const Finished full = test::lightcone(resume, folder.path());
  INFO(full.output);
  CHECK(full.status == 1);
  CHECK(has(full.output, "out_0.log: cannot be written: No space left on device"));
  fs::remove(log);
  // Another number of threads is fine.
  REQUIRE(test::lightcone({"run", "--resume", run.string(), "--threads", "2"}, folder.path()).status == 0);
  check_same(reference().first_content, content(folder / run.string()));
}

TEST_CASE("resume: a folder that may not be written, or is gone") {
  ScratchFolder folder;
  fs::copy(reference().first.path(), folder.path(), fs::copy_options::recursive);
  fs::remove(folder / run.string() / "results_0.json");
  const auto before = content(folder / run.string());
  const fs::perms all = fs::status(folder.path()).permissions(), none = all & ~fs::perms(0222);
  fs::permissions(folder.path(), none);
  fs::permissions(folder / run.string(), none);
  fs::permissions(folder / run.string() / ".lock", none);
  for (const auto& command : {resume, training({"run_name=b", "base_dir=sub"})}) {
    Child child(command, folder.path(), {.unprivileged = true});
    const Finished f = child.finish();
    if (f.status == 126 || f.status == 127) {
      MESSAGE("skipped: the program cannot be started without root's rights");
      continue;
    }
    INFO(f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, "Permission denied"));
    CHECK(has(f.output, "that is yours"));
  }
  for (const fs::path& p : {folder.path(), folder / run.string(), folder / run.string() / ".lock"})
    fs::permissions(p, all);
  check_same(before, content(folder / run.string()));

  ScratchFolder other;
  Child child(training({"training.iterations=100000", "training.es_patience=100000"}), other.path());
  REQUIRE(child.wait_for([&] { return lines(other / run.string() / "metrics.csv") > 5; }));
  fs::rename(other / run.string(), other / "elsewhere");
  const Finished f = child.finish();
  INFO(f.output);
  CHECK(f.status == 1);
  CHECK(has(f.output, "No such file or directory; was the folder deleted?"));
}

TEST_CASE("resume: data that vanished are named, and may be elsewhere") {
  ScratchFolder folder;
  const fs::path tiny = fs::path(LIGHTCONE_SOURCE_DIR) / "data/toptagging_tiny.npz";
  fs::create_directory(folder / "jets");
  fs::copy(tiny, folder / "jets/toptagging_tiny.npz");
  Child child(training({"data.data_dir=jets"}), folder.path());
  REQUIRE(child.wait_for([&] { return lines(folder / run.string() / "metrics.csv") > 5; }));
  child.send(SIGKILL);
  child.finish();
  fs::remove(folder / run.string() / "results_0.json");  // where it was quick
  fs::rename(folder / "jets", folder / "moved");
  const Finished f = test::lightcone(resume, folder.path());
  INFO(f.output);
  CHECK(f.status == 1);
  CHECK(has(f.output, "toptagging_tiny.npz does not exist"));
  CHECK(has(f.output, "data.data_dir"));
  auto command = resume;
  command.push_back("data.data_dir=moved");
  REQUIRE(test::lightcone(command, folder.path()).status == 0);
  auto expected = reference().first_content, got = content(folder / run.string());
  for (const char* name : {"config.toml", "config_0.toml"}) expected.erase(name), got.erase(name);
  check_same(expected, got);
  // Other jets are refused.
  const fs::path mini = fs::path(LIGHTCONE_SOURCE_DIR) / "data/toptagging_mini.npz";
  fs::copy(mini, folder / "moved/toptagging_tiny.npz", fs::copy_options::overwrite_existing);
  fs::remove(folder / run.string() / "results_0.json");
  CHECK(has(test::lightcone(command, folder.path()).output, "it must be the same jets"));
}

TEST_CASE(
    "warm start: training.lr on the command line is the rate, and the schedule begins anew; without, it goes on") {
  ScratchFolder folder;
  auto first_rate = [&](std::vector<std::string> more) {
    ScratchFolder copy;
    fs::copy(reference().first.path(), copy.path(), fs::copy_options::recursive);
    std::vector<std::string> command = {
        "run",       "-cp", run.string(), "-cn", "config", "warm_start_idx=0", "plot=false", "evaluate=false",
        "--threads", "1"};
    command.insert(command.end(), more.begin(), more.end());
    const Finished f = test::lightcone(command, copy.path());
    INFO(f.output);
    REQUIRE(f.status == 0);
    Context ctx(1);
    return Safetensors(copy / run.string() / "models/state_run1.safetensors")
        .load(ctx, "loop.tensor.history.lr")
        .data<double>()[0];
  };
  const double on = first_rate({});
  CHECK(on < 4e-2);  // reduced on the plateau
  CHECK(first_rate({"training.lr=4e-2"}) == 4e-2);
  CHECK(first_rate({"training.lr=5e-3", "training.scheduler=ReduceLROnPlateau"}) == 5e-3);
}
