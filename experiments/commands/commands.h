#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/device.h"
#include "experiments/compose.h"

namespace lightcone {

/// The subcommands of the program. Each returns the exit status and throws Error for what the user has to mend.

struct RunRequest {
  ComposeRequest compose;
  std::string resume;  ///< folder of a run that ended early and goes on; overrides only where they change no bits
  int threads = 0;     ///< 0: all
  std::string profile_trace;  ///< file for a Chrome trace; empty: no profile
  bool profile = false;       ///< print a table of time per kernel at the end
};
int run_command(const RunRequest& request);

/// choose_device(), whose line goes to standard error: standard output is for results.
Device command_device(const std::string& name);

struct PredictRequest {
  std::string run_folder, in, out;
  std::optional<std::string> key;  ///< array of an npz input
  std::optional<int64_t> run_idx;  ///< which of the run's networks; default the latest
  int64_t batchsize = 512;
  std::string device = "auto";
  int threads = 0;
};
int predict_command(const PredictRequest& request);

struct VerifyRequest {
  std::vector<std::string> files;
  bool float32 = false;  ///< network in f32 (momenta stay f64), tolerance 1e-4
  bool all = false;      ///< print every quantity, not only the worst gradient
  std::string device = "auto";
  int threads = 0;
};
/// 0: all agree; 1: something differs; 2: nothing differs, but some file's network is not in this version, or the file
/// holds no model.
int verify_command(const VerifyRequest& request);

int inspect_command(const std::vector<std::string>& paths);

struct EquivarianceRequest {
  ComposeRequest compose;  ///< a network with its initial parameters, unless …
  std::string run_folder;  ///< … this is the folder of a run
  int64_t jets = 100;      ///< of the test set
  int64_t directions = 8;  ///< of each kind of transformation
  std::string plot;        ///< SVG file; by default in the run's folder, or none
  int threads = 0;
  bool regulate = false;  ///< the mass regulator acts before jets move, too: it is no equivariant part of the network
};
/// Boosts and rotates jets and prints how the network's output moves.
int equivariance_command(const EquivarianceRequest& request);

struct BenchRequest {
  ComposeRequest compose;
  int64_t batch = 128;
  int runs = 10;
  int threads = 0;
  std::string json;       ///< file to append the JSON line to
  bool counters = false;  ///< instead, what the kernels of a training step do on a simulated GPU
};
int bench_command(const BenchRequest& request);

}  // namespace lightcone
