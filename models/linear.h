#pragma once
#include <optional>

#include "autograd/module.h"

namespace lightcone {

/// y = x w^T + b with the state dict of torch.nn.Linear (weight [out, in], bias [out]); initial weights and biases
/// uniform in ±1/sqrt(in), drawn from the stream "init".
struct Linear : Module {
  Parameter weight, bias;
  Linear(Context& ctx, int64_t in, int64_t out, DType dtype);
  Var operator()(const Var& x, std::optional<DType> result = {});  ///< see autograd/matmul.h
  Var gelu(const Var& x);                                          ///< GELU(x w^T + b), one kernel
  Var residual(const Var& x, const Var& residual);                 ///< residual + x w^T + b, one kernel
};

/// Uniform numbers in ±bound from the stream "init".
Tensor uniform_init(Context& ctx, Shape shape, DType dtype, double bound);

}  // namespace lightcone
