#pragma once
#include <functional>
#include <map>
#include <string>

#include "autograd/tape.h"
#include "engine/workers.h"

namespace lightcone {

/// What a batch gave: its loss, and what the network observed of it (Tape::observe), by name.
struct BatchResult {
  double loss = 0;
  std::map<std::string, double> observed;
};

/// The same while a GPU is at it.
class PendingBatch {
 public:
  /// Waits for the numbers of this batch, and not for what was asked of the GPU since.
  BatchResult get();

 private:
  friend PendingBatch batch_gradient(Workers&, int64_t, const std::function<Var(Tape&, int64_t)>&);
  struct Part {
    std::vector<Observation> observed;
    Context::Reading numbers;  ///< the loss, then those that were observed
  };
  std::vector<Part> parts_;
};

/// Loss of one batch, and its gradient added to Parameter::grad. `loss(tape, part)` gives the share of one part; the
/// batch's loss is their sum. Parts are worked on at the same time, each on one thread; losses and gradients are added
/// in the order of the parts, so that the bits are the same for any number of threads. Each part has random streams of
/// its own, which depend on the main Context's Rng and the number of the part.
PendingBatch batch_gradient(Workers& workers, int64_t parts, const std::function<Var(Tape& tape, int64_t part)>& loss);

}  // namespace lightcone
