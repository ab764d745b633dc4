#pragma once
#include <functional>
#include <memory>

#include "engine/context.h"

namespace lightcone {

/// Work that a GPU does again and again on the same tensors: recorded once, it is asked for as a whole, which takes the
/// CPU as long as a single kernel.
///
///     Graph step(ctx, [&] { … });   // calls the function, and records what it asks of the GPU
///     …                             // other numbers in the same tensors
///     step.replay();                // the same work again
///
/// On the CPU replay() calls the function. On a GPU it does not: what the function does on the CPU is done when it is
/// recorded (twice), and numbers that it copies to the GPU stay those of the recording. Tensors that it makes are
/// written again by every replay. Throws Error, and leaves ctx as it was, if the function draws random numbers or reads
/// a number from the GPU.
class Graph {
 public:
  Graph(Context& ctx, std::function<void()> work);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void replay();

 private:
  struct Recording;
  /// Calls work with memory of the recording's own.
  void record(Context& ctx, const std::function<void()>& work);

  std::function<void()> work_;            // on the CPU
  std::unique_ptr<Recording> recording_;  // on a GPU
};

}  // namespace lightcone
