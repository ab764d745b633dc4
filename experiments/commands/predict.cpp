#include <cmath>

#include "data/toptagging.h"
#include "engine/npz.h"
#include "experiments/commands/commands.h"
#include "experiments/tagging/tagging.h"
#include "experiments/toml.h"

namespace lightcone {

int predict_command(const PredictRequest& request) {
  namespace fs = std::filesystem;
  const fs::path folder = request.run_folder, out = request.out;
  if (!fs::exists(folder / "config.toml"))
    fail("predict", "{} is not the folder of a run: it has no config.toml", folder.string());
  if (out.extension() != ".npy" && out.extension() != ".npz")
    fail("predict", "--out {}: expected a name that ends in .npy or .npz", out.string());
  std::error_code ignored;
  if (fs::equivalent(out, request.in, ignored))
    fail("predict", "--out {} is the file with the jets; choose another name", out.string());
  const int64_t index = request.run_idx.value_or(latest_index(folder));
  // Each network has its own configuration: a warm start may have changed it.
  const fs::path own = folder / fmt::format("config_{}.toml", index);
  const ExperimentConfig config = read_config(read_toml(fs::exists(own) ? own : folder / "config.toml"));
  const TaggingTask task = tagging_task(config);
  if (task.extra_scalars > 0)
    fail("predict", "the network of {} needs {} scalars per constituent, which an array of four-momenta lacks",
         folder.string(), task.extra_scalars);

  Context ctx(command_device(request.device), request.threads);
  ctx.set_tf32(config.float32_matmul_precision != "highest");
  std::unique_ptr<Tagger> tagger = build_tagger(ctx, config, task);
  load_averaged_model(ctx, RunFolder::model_path(folder, index), *tagger);
  const JetSet jets = read_jets(ctx.host(), request.in, request.key);
  Workers workers(ctx);
  PreparedWeights prepared(ctx);
  const std::vector<double> logits =
      tagger_logits(workers, prepared, *tagger, jets, request.batchsize, config.data.momentum_dtype());

  for (size_t i = 0; i < logits.size(); ++i)
    if (std::isnan(logits[i]))
      fail("predict", "the score of jet {} is NaN; look at its momenta", i / static_cast<size_t>(task.num_outputs));

  // One output: the probability of signal. Several: softmax over the classes.
  const int64_t outputs = task.num_outputs;
  std::vector<double> scores = logits;
  for (size_t j = 0; j < logits.size(); j += outputs) {
    if (outputs == 1) {
      scores[j] = 1 / (1 + std::exp(-logits[j]));
      continue;
    }
    const double largest = *std::max_element(&logits[j], &logits[j] + outputs);
    double sum = 0;
    for (int64_t k = 0; k < outputs; ++k) sum += scores[j + k] = std::exp(logits[j + k] - largest);
    for (int64_t k = 0; k < outputs; ++k) scores[j + k] /= sum;
  }
  Context& host = ctx.host();
  Shape shape{jets.size()};
  if (outputs > 1) shape.append(outputs);
  if (out.extension() == ".npy")
    save_npy(out, host.of(shape, DType::f32, scores));
  else
    save_npz(out, {{"scores", host.of(shape, DType::f32, scores)}, {"logits", host.of(shape, DType::f32, logits)}});
  fmt::print("{} jets of {} scored with {}: {}\n", jets.size(), jets_array(request.in, request.key),
             RunFolder::model_path(folder, index).string(), out.string());
  return 0;
}

}  // namespace lightcone
