#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>
#include <optional>

#include "data/toptagging.h"
#include "experiments/batch_gradient.h"
#include "experiments/checkpoint.h"
#include "experiments/commands/commands.h"
#include "experiments/kernel_counts.h"
#include "experiments/machine.h"
#include "experiments/paths.h"
#include "experiments/tagging/tagging.h"
#include "version.h"

namespace lightcone {

namespace {

struct Timing {
  double median = 0, low = 0, high = 0;  // milliseconds
};

/// Once to warm up, then `runs` times.
template <class F>
Timing time_runs(int runs, F&& f) {
  f();
  std::vector<double> ms;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms.front(), ms.back()};
}

/// The first jet with at least 50 constituents, cut to the first 50.
JetSet one_jet(Context& ctx, const JetSet& jets) {
  const int32_t* ptr = jets.ptr.data<int32_t>();
  for (int64_t j = 0; j < jets.size(); ++j) {
    if (ptr[j + 1] - ptr[j] < 50) continue;
    JetSet one;
    one.fourmomenta = jets.fourmomenta.narrow(ptr[j], 50);
    const double offsets[] = {0, 50};
    one.ptr = ctx.of({2}, DType::i32, offsets);
    one.labels = jets.labels.narrow(j, 1);
    return one;
  }
  throw Error("bench: no jet of the data set has 50 constituents");
}

}  // namespace

int bench_command(const BenchRequest& request) {
  if (request.counters && !kernel_counts())
    fail("bench",
         "--counters needs a simulated GPU, which this program has not; run lightcone_gpusim bench --counters");
  ExperimentConfig config = read_config(compose(request.compose));
  validate(config);
  Context ctx(request.counters ? Device::cuda : command_device(config.device), request.threads, 1);
  ctx.set_tf32(config.float32_matmul_precision != "highest");
  auto tagger = build_tagger(ctx, config, tagging_task(config));
  const DType momentum = config.data.momentum_dtype();
  const JetSet jets = read_toptagging(
      ctx.host(), find_data(config.data.data_dir, fmt::format("toptagging_{}.npz", config.data.dataset)), "train");
  auto first = [&](int64_t count) {
    std::vector<int64_t> indices(std::min(count, jets.size()));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int64_t>(i);
    return gather_jets(ctx.host(), jets, indices, momentum);
  };

  tagger->standardise(ctx, first(static_cast<int64_t>(request.batch)));

  // From four-momenta to updated parameters.
  const auto batch_jets = static_cast<int64_t>(std::min(request.batch, jets.size()));
  std::vector<int64_t> indices(batch_jets);
  std::iota(indices.begin(), indices.end(), 0);
  const std::vector<JetSet> batch = gather_parts(ctx.host(), jets, indices, momentum, jets_per_part(ctx.device()));
  Workers workers(ctx);
  Optimizer optimizer = make_optimizer(ctx, *tagger, config.training);
  int64_t step = 0;
  struct Step {
    PendingBatch batch;
    PendingNorms norms;
  };
  auto ask_for_step = [&] {
    PendingBatch result = batch_gradient(workers, static_cast<int64_t>(batch.size()), [&](Tape& tape, int64_t part) {
      return tagging_loss_share(*tagger, tape, batch[part], batch_jets);
    });
    return Step{std::move(result), update(ctx, *tagger, optimizer, nullptr, config.training, step++)};
  };
  auto train_step = [&] {
    Step asked = ask_for_step();
    asked.batch.get();
    asked.norms.get();
  };
  if (request.counters) {
    std::optional<Step> asked;
    const std::string table = kernel_counts()([&] { asked = ask_for_step(); });
    fmt::print("{}, one training step, {} jets\n{}", tagger->title(), batch_jets, table);
    return 0;
  }
  const Timing train = time_runs(request.runs, train_step);
  const MemoryStatistics memory = workers.memory();
  auto infer = [&](const JetSet& set, int runs) {
    PreparedWeights prepared(ctx);
    return time_runs(runs, [&] { tagger_logits(workers, prepared, *tagger, set, request.batch, momentum); });
  };
  const JetSet many = first(512);
  const Timing large = infer(many, request.runs),
               single = infer(one_jet(ctx.host(), first(jets.size())), std::max(20, request.runs));

  Json out = {{"net", tagger->title()},
              {"commit", LIGHTCONE_COMMIT},
              {"device", name_of(ctx.device())},
              {"cpu", this_machine().cpu},
              {"gpu", ctx.device() == Device::cuda ? gpu_text() : ""},
              {"threads", ctx.threads()},
              {"batch", batch_jets},
              {"tokens", first(batch_jets).fourmomenta.dim(0)},
              {"params", tagger->num_parameters()},
              {"amp", config.model.value("use_amp", false)},
              {"train_step_ms", train.median},
              {"train_step_ms_range", {train.low, train.high}},
              {"infer_jets_per_s", 1e3 * static_cast<double>(many.size()) / large.median},
              {"infer_one_jet_ms", single.median},
              {"peak_tensor_mib", static_cast<double>(memory.peak) / 1048576.0},
              {"peak_rss_mib", static_cast<double>(peak_memory()) / 1048576.0}};
  fmt::print("{}\n", out.dump());
  if (!request.json.empty()) {
    std::ofstream file(request.json, std::ios::app);
    file << out.dump() << "\n";
    if (!file.flush()) fail("bench", "cannot write {}", request.json);
  }
  return 0;
}

}  // namespace lightcone
