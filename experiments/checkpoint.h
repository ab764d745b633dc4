#pragma once
#include <filesystem>

#include "autograd/module.h"
#include "autograd/optim/ema.h"
#include "autograd/optim/optimizer.h"
#include "autograd/optim/scheduler.h"
#include "data/batches.h"

namespace lightcone {

/// A network's file: the state dict under the reference's names and, where parameters are averaged, the averages as
/// "ema.<name>". Written atomically.
void save_model(Context& ctx, const std::filesystem::path& path, const Module& model, const Ema* ema);
/// Reads the state dict back. Throws Error naming the entry that is missing or has another shape.
void load_model(Context& ctx, const std::filesystem::path& path, Module& model);
/// For prediction: the averaged parameters where the file has them, else the last ones.
void load_averaged_model(Context& ctx, const std::filesystem::path& path, Module& model);

/// What a training needs to go on with the same bits, in one file, so that a kill cannot part it: the network's
/// weights, optimiser, schedule, averages, positions of the random streams, position in the data, number of steps done,
/// and what the training loop keeps (trainer.cpp).
struct TrainingState {
  Module& model;
  Optimizer& optimizer;
  Scheduler& scheduler;
  Ema* ema;
  BatchPosition position;
  int64_t step = 0;
  State loop;
};
void save_state(Context& ctx, const std::filesystem::path& path, const TrainingState& state);
/// Loads into the network, optimiser, schedule, averages and ctx.rng() that `state` names; position, step and loop are
/// set.
void load_state(Context& ctx, const std::filesystem::path& path, TrainingState& state);

}  // namespace lightcone
