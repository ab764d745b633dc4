#pragma once
#include <optional>
#include <vector>

#include "autograd/tape.h"
#include "kernels/equi_linear.h"

namespace lightcone {

/// The parameters of one map, see kernels/equi_linear.h; Var{} where it has none.
struct EquiLinearParameters {
  Var weight, bias = {}, s2mvs = {}, s2mvs_bias = {}, mvs2s = {}, mvs2s_bias = {}, s2s = {};
};

struct EquiLinearOptions {
  kernels::EquiLinearLayout layout = {};
  Var head_scale = {};                 ///< [H]: factors of the H parts of the input
  Var residual = {}, residual_s = {};  ///< added to the results
  std::optional<DType> result = {};
};

struct Multivectors {
  Var mv;  ///< [8, T, 2C], see kernels/geometric_algebra.h
  Var s;   ///< [T, S]; Var{} for none
};

/// The maps' results side by side. Under tape.amp() products take bf16 operands, and x may be bf16.
Multivectors equi_linear(const Multivectors& x, const std::vector<EquiLinearParameters>& maps,
                         const EquiLinearOptions& options = {});

}  // namespace lightcone
