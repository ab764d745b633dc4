#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/elementwise_math.h"

/// The terms of loss.h for one prediction x and its target t, on either device, in the type of sums; as objects, whose
/// type names the function.
namespace lightcone::kernels::loss {

// softplus(x) - t x = max(x, 0) - t x + log(1 + exp(-|x|)): for t = 1 and large x the first two cancel exactly.
struct BinaryCrossEntropy {
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T x, T t) const {
    return std::max(x, T(0)) - t * x + vector_math::log1p(vector_math::exp(-std::abs(x)));
  }
};
struct SquaredError {
  template <class T>
  LIGHTCONE_HOST_DEVICE T operator()(T x, T t) const {
    return (x - t) * (x - t);
  }
};

/// Times `factor` = dloss / n, the gradient of x.
template <class F, class T>
LIGHTCONE_HOST_DEVICE T slope(T factor, T x, T t) {
  if constexpr (std::is_same_v<F, BinaryCrossEntropy>)
    return factor * (elementwise::sigmoid(x) - t);
  else
    return factor * (2 * (x - t));
}

}  // namespace lightcone::kernels::loss
