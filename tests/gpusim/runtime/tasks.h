#pragma once
#include "gpusim/runtime/copy.h"
#include "gpusim/runtime/registration.h"

namespace gpusim {

// Work as a task, checked as the call that asks for it is: for streams, and for graphs that are built by hand.

struct Configuration {
  dim3 grid, block;
  size_t shared = 0;
  cudaStream_t stream = nullptr;
};
Task launch_task(Device& device, CUkern_st& kernel, const Configuration& with, void** arguments,
                 bool cooperative = false);

/// `stage`: the source is read now, not when the task runs.
Task copy_task(State& s, const Copy& copy, bool stage = false);

/// Rows of bytes to set.
struct Set {
  const char* call = "";
  void* to = nullptr;
  size_t pitch = 0;
  unsigned value = 0;
  size_t width = 0, height = 1;
  unsigned element = 1;  ///< bytes of the value
};
Task set_task(State& s, const Set& set);

Task host_task(std::string name, std::function<void()> function);

}  // namespace gpusim
