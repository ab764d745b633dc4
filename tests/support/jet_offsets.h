#pragma once
#include <vector>

#include "engine/context.h"

namespace lightcone::test {

/// Constituents of each jet, and the row offsets that kernels take.
using Jets = std::vector<int64_t>;

inline Tensor offsets(Context& ctx, const Jets& jets) {
  std::vector<int32_t> ptr{0};
  for (int64_t n : jets) ptr.push_back(ptr.back() + static_cast<int32_t>(n));
  return ctx.offsets(ptr);
}

}  // namespace lightcone::test
