// A run goes on where it may, and says why where it may not: changes, a second process, a full disk, folders and data
// that are not there or not its own.
#include <doctest/doctest.h>

#include <csignal>

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

TEST_CASE("resume: a complete run says so; a change that matters is refused; the folder of no run is named") {
  ScratchFolder folder;
  fs::copy(reference().first.path(), folder.path(), fs::copy_options::recursive);
  const Finished complete = test::lightcone(resume, folder.path());
  CHECK(complete.status == 0);
  CHECK(has(complete.output, "is complete"));
  // Without its last files it evaluates again, also from a moved folder.
  fs::rename(folder / run.string(), folder / "moved");
  fs::remove(folder / "moved/results_0.json");
  auto resumed = [&](const Arguments& more, const char* path = "moved") {
    return test::lightcone(joined({"run", "--resume", path, "--threads", "1"}, more), folder.path());
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
  REQUIRE(child.wait_for([&] { return metrics_rows(other / run.string()) > 5; }));
  fs::rename(other / run.string(), other / "elsewhere");
  const Finished f = child.finish();
  INFO(f.output);
  CHECK(f.status == 1);
  CHECK(has(f.output, "No such file or directory; was the folder deleted?"));
}

TEST_CASE("resume: data that vanished are named, and may be elsewhere") {
  ScratchFolder folder;
  fs::create_directory(folder / "jets");
  fs::copy(tiny_jets, folder / "jets/toptagging_tiny.npz");
  Child child(training({"data.data_dir=jets"}), folder.path());
  REQUIRE(child.wait_for([&] { return metrics_rows(folder / run.string()) > 5; }));
  child.send(SIGKILL);
  child.finish();
  fs::remove(folder / run.string() / "results_0.json");  // where it was quick
  fs::rename(folder / "jets", folder / "moved");
  const Finished f = test::lightcone(resume, folder.path());
  INFO(f.output);
  CHECK(f.status == 1);
  CHECK(has(f.output, "toptagging_tiny.npz does not exist"));
  CHECK(has(f.output, "data.data_dir"));
  const Arguments command = joined(resume, {"data.data_dir=moved"});
  REQUIRE(test::lightcone(command, folder.path()).status == 0);
  auto expected = reference().first_content, got = content(folder / run.string());
  for (const char* name : {"config.toml", "config_0.toml"}) expected.erase(name), got.erase(name);
  check_same(expected, got);
  // Other jets are refused.
  fs::copy(tiny_jets.parent_path() / "toptagging_mini.npz", folder / "moved/toptagging_tiny.npz",
           fs::copy_options::overwrite_existing);
  fs::remove(folder / run.string() / "results_0.json");
  CHECK(has(test::lightcone(command, folder.path()).output, "it must be the same jets"));
}

TEST_CASE(
    "warm start: training.lr on the command line is the rate, and the schedule begins anew; without, it goes on") {
  ScratchFolder folder;
  auto first_rate = [&](const Arguments& more) {
    ScratchFolder copy;
    fs::copy(reference().first.path(), copy.path(), fs::copy_options::recursive);
    const Finished f = test::lightcone(joined({"run", "-cp", run.string(), "-cn", "config", "warm_start_idx=0",
                                               "plot=false", "evaluate=false", "--threads", "1"},
                                              more),
                                       copy.path());
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
