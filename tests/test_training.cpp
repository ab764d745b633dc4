// The training loop: same bits whatever the number of threads, whatever was interrupted.
#include <doctest/doctest.h>

#include "data/toptagging.h"
#include "engine/file.h"
#include "experiments/compose.h"
#include "experiments/tagging/tagging.h"
#include "tests/support/files.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/state_entries.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

ExperimentConfig small_config(const std::filesystem::path& base, const std::vector<std::string>& more = {}) {
  const std::vector<std::string> overrides =
      joined({"model=tag_transformer_1k", "training=top_1k", "model.net.dropout_prob=0.1", "data.dataset=tiny",
              "training.iterations=50", "training.batchsize=32", "training.validate_every_n_steps=20", "seed=3",
              "run_name=r", "base_dir=" + base.string()},
             more);
  ExperimentConfig config = read_config(compose({.overrides = overrides}));
  validate(config);
  return config;
}

struct Trained {
  std::string model;                         // bytes of the file
  std::map<std::string, std::string> state;  // and of its entries
  TrainingHistory history;
};

Trained train(int threads, const std::vector<std::string>& more = {}) {
  ScratchFolder base;
  ExperimentConfig config = small_config(base.path(), more);
  Context ctx(threads, 3);
  Log log(false);
  const JetSet jets = read_toptagging(ctx, tiny_jets, "train"), val = read_toptagging(ctx, tiny_jets, "val");
  auto tagger = build_tagger(ctx, config, {});
  RunFolder folder(config);
  folder.create(config, log);
  TaggingTraining task(ctx, *tagger, jets, val, config, 3);
  Trainer trainer(ctx, task, config, folder, log);
  Trained out;
  out.history = trainer.train();
  out.model = read_file(folder.model_path(0));
  out.state = state_entries(folder.state_path(0));
  return out;
}

}  // namespace

TEST_CASE("training: the same checkpoint bytes for 1 and 2 threads and from run to run, 50 steps with dropout") {
  const Trained one = train(1), again = train(1), two = train(2);
  CHECK(one.model == again.model);
  CHECK(one.state == again.state);
  CHECK(one.model == two.model);
  CHECK(one.state == two.state);
  CHECK(one.history.loss == two.history.loss);
  CHECK(train(1, {"model.net.dropout_prob=0.2"}).model != one.model);
}

TEST_CASE("training: bf16 products too give the same bytes for 1 and 2 threads") {
  CHECK(train(1, {"model.use_amp=true"}).model == train(2, {"model.use_amp=true"}).model);
}

TEST_CASE("training: recomputed activations change nothing") {
  CHECK(train(2, {"model.net.checkpoint_blocks=true"}).model == train(2).model);
}

TEST_CASE("training: the loss falls, for every optimiser") {
  for (const char* optimizer : {"Adam", "AdamW", "RAdam", "Lion", "Ranger"}) {
    const auto h = train(2, {std::string("training.optimizer=") + optimizer, "training.iterations=150",
                             std::string("training.lr=") + (std::string(optimizer) == "Lion" ? "1e-3" : "1e-2")})
                       .history;
    double first = 0, last = 0;
    for (size_t i = 0; i < 10; ++i) first += h.loss[i] / 10, last += h.loss[h.loss.size() - 1 - i] / 10;
    INFO(std::string(optimizer), ": ", first, " -> ", last);
    CHECK(last < 0.85 * first);
  }
}

TEST_CASE("training: early stopping keeps the best network, max_grad_norm skips, EMA averages") {
  const auto stopped =
      train(2, {"training.es_patience=0", "training.es_load_best_model=true", "training.lr=0.3",
                "training.iterations=400", "training.validate_every_n_steps=2", "training.scheduler=null"});
  CHECK(stopped.history.stopped_early);
  CHECK(stopped.history.loss.size() < 400);
  const auto ema = train(2, {"ema=true"});
  CHECK(has(ema.model, "ema.net.linear_in.weight"));
  CHECK(ema.model != train(2).model);
  // Skipping begins after step 1000, as in the references.
  CHECK(train(2, {"training.max_grad_norm=1e-9", "training.iterations=1010"}).history.skipped == 9);
}

TEST_CASE("training: every schedule runs, and ends where it should") {
  auto last_lr = [](const char* name) {
    return train(2, {std::string("training.scheduler=") + name}).history.lr.back();
  };
  CHECK(last_lr("null") == 1e-2);
  CHECK(last_lr("CosineAnnealingLR") < 1e-4);
  CHECK(last_lr("CosineAnnealingWarmRestarts") < 1e-3);
  CHECK(last_lr("OneCycleLR") < 1e-5);
  CHECK(last_lr("ReduceLROnPlateau") == 1e-2);
  CHECK(last_lr("flat+decay") < 1e-2);
}
