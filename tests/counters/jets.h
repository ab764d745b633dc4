#pragma once
#include "tests/counters/counts.h"
#include "tests/support/jet_offsets.h"

namespace lightcone::test {

/// Eight jets of 50 to 150 constituents.
struct JetOperands : Operands {
  static constexpr int64_t T = 780, B = 8;
  Tensor ptr = offsets(ctx, {50, 150, 90, 120, 60, 75, 100, 135});
  Tensor empty(Shape shape, DType dtype) { return ctx.empty(shape, dtype); }
};

}  // namespace lightcone::test
