#pragma once
#include "kernels/amx.h"
#include "kernels/elementwise.h"
#include "tests/support/bits.h"
#include "tests/support/op_case.h"

// For tests of bf16 beside f32.
namespace lightcone::test {

/// The same numbers in another dtype, each rounded once.
inline Tensor as(Context& ctx, const Tensor& t, DType dtype) {
  Tensor out = ctx.empty(t.shape(), dtype);
  kernels::cast(ctx, t, out);
  return out;
}

/// Numbers that bf16 holds, in f32.
inline Tensor bf16_values(Context& ctx, const Array& a) { return as(ctx, to_tensor(ctx, a, DType::bf16), DType::f32); }

/// f(true) with AMX tiles if the machine has them, and f(false) without.
template <class F>
void with_and_without_amx(F&& f) {
  for (bool on : {true, false}) {
    use_amx(on);
    if (on && !amx_available()) continue;
    f(on);
  }
  use_amx(true);
}

}  // namespace lightcone::test
