#pragma once
#include <vector>

#include "engine/context.h"

namespace lightcone::test {

/// Constituents of each jet, and the row offsets that kernels take.
using Jets = std::vector<int64_t>;

inline Tensor offsets(Context& ctx, const Jets& jets) {
  std::vector<double> ptr{0};
  for (int64_t n : jets) ptr.push_back(ptr.back() + static_cast<double>(n));
  return ctx.of({static_cast<int64_t>(ptr.size())}, DType::i32, ptr);
}

}  // namespace lightcone::test
