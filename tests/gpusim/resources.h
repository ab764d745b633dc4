#pragma once
#include <string>
#include <vector>

namespace gpusim {

/// What ptxas gave a kernel in the machine code for one target, as `nvcc -Xptxas -v` says it.
struct Resources {
  std::string kernel;  ///< demangled name
  int target = 0;      ///< 80 for sm_80
  int registers = 0, shared_bytes = 0;
  int local_bytes = 0;  ///< of a thread: what it indexes, and registers that were spilled
};

/// Of all kernels in an object, archive or program that nvcc -no-compress made, in the order of the file. Throws Error
/// if the file cannot be read or its machine code is compressed.
std::vector<Resources> resources_in(const std::string& file);

/// Of all kernels in this program.
std::vector<Resources> resources();

/// A kernel's demangled name without namespaces, return type and parameters.
std::string short_name(const std::string& kernel);

}  // namespace gpusim
