#pragma once
#include <string_view>

#include "engine/context.h"

namespace lightcone {

/// Checks of a kernel's operands in its front door; every message names the operation, the argument, what was expected
/// and what came.
///
///     check(ctx, "layer_norm", "x", x).rank(2);
///     check(ctx, "layer_norm", "y", y).like(x);
///     check(ctx, "layer_norm", "mean", mean).shape({T}).dtype(sum_dtype(x.dtype()));
class Check {
 public:
  Check(std::string_view operation, std::string_view argument, const Tensor& tensor)
      : operation_(operation), argument_(argument), t_(tensor) {
    if (!tensor.defined()) fail(operation, "{} is not there", argument);
  }
  Check& rank(int expected) {
    if (t_.rank() != expected) fail(operation_, "{} has shape {}, expected {} axes", argument_, t_.shape(), expected);
    return *this;
  }
  Check& shape(const Shape& expected) {
    if (!(t_.shape() == expected)) fail(operation_, "{} has shape {}, expected {}", argument_, t_.shape(), expected);
    return *this;
  }
  Check& dtype(DType expected) {
    if (t_.dtype() != expected) fail(operation_, "{} is {}, expected {}", argument_, t_.dtype(), expected);
    return *this;
  }
  /// One of two.
  Check& dtype(DType expected, DType other) {
    if (t_.dtype() != expected && t_.dtype() != other)
      fail(operation_, "{} is {}, expected {} or {}", argument_, t_.dtype(), expected, other);
    return *this;
  }
  /// f64, f32 or bf16.
  Check& compute() {
    if (t_.dtype() > DType::bf16) fail(operation_, "{} is {}, expected f64, f32 or bf16", argument_, t_.dtype());
    return *this;
  }
  /// f64 or f32: four-momenta, whose masses bf16 would lose.
  Check& momentum() {
    if (t_.dtype() > DType::f32) fail(operation_, "{} is {}, expected f64 or f32", argument_, t_.dtype());
    return *this;
  }
  /// `extent` entries along the last axis, any axes before it.
  Check& columns(int64_t extent) {
    if (t_.rank() == 0 || t_.dim(-1) != extent)
      fail(operation_, "{} has shape {}, expected {} entries along the last axis", argument_, t_.shape(), extent);
    return *this;
  }
  Check& like(const Tensor& other) { return shape(other.shape()).dtype(other.dtype()); }

 private:
  std::string_view operation_, argument_;
  const Tensor& t_;
};

/// For functions that compute on every device: the operand must be where the Context computes.
inline Check check(const Context& ctx, std::string_view operation, std::string_view argument, const Tensor& tensor) {
  Check c(operation, argument, tensor);
  if (tensor.device() != ctx.device())
    fail(operation, "{} is on {}, expected it on {} as the context", argument, tensor.device(), ctx.device());
  return c;
}

/// For functions that compute on the CPU alone: the operand must be there.
inline Check check(std::string_view operation, std::string_view argument, const Tensor& tensor) {
  Check c(operation, argument, tensor);
  if (tensor.device() != Device::cpu)
    fail(operation, "{} is on {}, where this version has no kernel for it; use device=cpu", argument, tensor.device());
  return c;
}

}  // namespace lightcone
