#pragma once
#include <utility>

#include "kernels/elementwise_math.h"

/// The functions of gated_unit.h, on either device.
namespace lightcone::kernels::gated {

/// f(x) and f'(x).
template <Unary f, class S>
LIGHTCONE_HOST_DEVICE std::pair<S, S> value_and_slope(S x) {
  if constexpr (f == Unary::gelu) {
    const auto normal = elementwise::normal(x);
    return {x * normal.cdf, normal.cdf + x * normal.density};
  } else {
    const S value = elementwise::value<f>(x);
    return {value, elementwise::derivative<f>(backward_reads_result(f) ? value : x)};
  }
}

/// run(std::integral_constant<Unary, f>); false where f is no function of gated_unit.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <class F>
LIGHTCONE_HOST_DEVICE bool with_function(Unary f, F&& run) {
  switch (f) {
    case Unary::gelu:
      run(std::integral_constant<Unary, Unary::gelu>());
      return true;
    case Unary::relu:
      run(std::integral_constant<Unary, Unary::relu>());
      return true;
    case Unary::silu:
      run(std::integral_constant<Unary, Unary::silu>());
      return true;
    case Unary::sigmoid:
      run(std::integral_constant<Unary, Unary::sigmoid>());
      return true;
    case Unary::tanh:
      run(std::integral_constant<Unary, Unary::tanh>());
      return true;
    default:
      return false;
  }
}

}  // namespace lightcone::kernels::gated
