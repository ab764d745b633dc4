#pragma once
#include <functional>
#include <string>

namespace lightcone {

/// Runs a function and returns a table of what its CUDA kernels did, and for how many of them it waited. Only a program
/// that is linked with a simulated GPU has one (lightcone_gpusim, which sets it before main()); empty otherwise.
using KernelCounts = std::function<std::string(const std::function<void()>&)>;
inline KernelCounts& kernel_counts() {
  static KernelCounts counts;
  return counts;
}

}  // namespace lightcone
