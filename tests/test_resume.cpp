// Nothing lost: a run that is killed at any instant, or interrupted, goes on to the bits that it would have had.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <random>

#include "engine/fields.h"
#include "engine/file.h"
#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/resumable_run.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/state_entries.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;
namespace fs = std::filesystem;

namespace {

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

// Starts the run `index`, kills it at a random instant, goes on, kills it again, until one comes to its end. Instants
// by the clock reach the set-up, the evaluation and the plots; those by the steps reach the training, however short a
// part of the run it is on this machine.
void kill_until_complete(const Arguments& start, const fs::path& folder, int index, std::mt19937& random,
                         Kills& kills) {
  const fs::path config = folder / run / fmt::format("config_{}.toml", index),
                 state = folder / run / fmt::format("models/state_run{}.safetensors", index);
  auto uniform = [&](double end) { return std::uniform_real_distribution<double>(0, end)(random); };
  auto training_ended = [&] {
    return fs::exists(state) && state_entries(state).at("loop.number.finished") != std::string(8, '\0');
  };
  for (;;) {
    Child child(fs::exists(config) ? resume : start, folder);
    double seconds = uniform(0.8 * reference().seconds);
    if (!training_ended() && random() % 2) {
      const int64_t rows = metrics_rows(folder / run) + static_cast<int64_t>(random() % 20);
      child.wait_for([&] { return metrics_rows(folder / run) > rows; });
      seconds = uniform(0.005);
    } else if (random() % 4 == 0) {
      seconds *= 0.15;  // much is done in the first instants
    }
    usleep(static_cast<useconds_t>(1e6 * seconds));
    child.send(SIGKILL);
    const Finished f = child.finish();
    if (f.status != 128 + SIGKILL) {
      INFO(f.output);
      REQUIRE(f.status == 0);
      return;
    }
    if (!fs::exists(config))
      ++kills.before;
    else if (!training_ended())
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
  const Arguments longer = {"training.iterations=300", "training.es_patience=1000",
                            "training.checkpoint_every_n_minutes=null", "training.validate_every_n_steps=150",
                            "plot=false"};
  ScratchFolder whole, folder;
  REQUIRE(test::lightcone(training(longer), whole.path()).status == 0);
  Arguments command = training(longer);
  int64_t rows = 20;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    Child child(command, folder.path());
    REQUIRE(child.wait_for([&] { return metrics_rows(folder / run.string()) > rows; }));
    child.send(signal);
    const Finished f = child.finish();
    INFO(f.output);
    CHECK(f.status == 128 + signal);
    CHECK(has(f.output, "go on with: lightcone run --resume " + run.string()));
    CHECK(!has(f.output, "Finished"));
    // No step was lost, though none was to be saved here.
    const auto state = state_entries(folder / run.string() / "models/state_run0.safetensors");
    CHECK(static_cast<int64_t>(state.at("loop.tensor.history.step").size() / 8) ==
          metrics_rows(folder / run.string()) - 1);
    rows = metrics_rows(folder / run.string()) + 20;
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
  // The first step begins soon after the table of steps does.
  REQUIRE(child.wait_for([&] { return fs::exists(folder / run.string() / "metrics.csv"); }));
  usleep(100000);
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
