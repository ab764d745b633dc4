#pragma once
#include <array>
#include <cstddef>

#include "gpusim/cublaslt/problem.h"
#include "gpusim/machine/timeline.h"

namespace gpusim::lt {

/// Alpha or beta: read when cublasLtMatmul is called (host), or when the matmul runs (device).
struct Factor {
  std::array<std::byte, 8> value{};
  const void* pointer = nullptr;  // on the device
};

/// All that a matmul needs when its turn comes; the descriptors may be gone by then.
struct Call {
  Problem problem;
  const void* a = nullptr;
  const void* b = nullptr;
  const void* c = nullptr;  // null: beta is 0
  void* d = nullptr;
  Factor alpha, beta;
  void* workspace = nullptr;
  uint64_t workspace_bytes = 0;  // what the algorithm uses of it

  bool in_place() const { return c == d && problem.c == problem.d; }
};

void run(const Call& call, const Operation& now);

}  // namespace gpusim::lt
