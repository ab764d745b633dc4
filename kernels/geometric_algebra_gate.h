#pragma once
#include <utility>

#include "kernels/elementwise_math.h"
#include "kernels/geometric_algebra.h"

/// The gates of geometric_algebra.h for one scalar component, on either device.
namespace lightcone::geometric_algebra {

using kernels::Gate;

template <class T>
struct Slope {
  T value, derivative;
};

template <Gate f, class T>
LIGHTCONE_HOST_DEVICE Slope<T> gate(T s) {
  namespace elementwise = kernels::elementwise;
  if constexpr (f == Gate::relu) {
    return {s <= 0 ? T(0) : s, s > 0 ? T(1) : T(0)};
  } else if constexpr (f == Gate::gelu) {
    constexpr T scale = 0.79788456080286535588, cubic = 0.044715;  // sqrt(2 / pi)
    const T u = vector_math::tanh(scale * (s + cubic * s * s * s));
    return {T(0.5) * s * (1 + u), T(0.5) * (1 + u) + T(0.5) * s * (1 - u * u) * scale * (1 + 3 * cubic * s * s)};
  } else {
    const T p = elementwise::sigmoid(s);
    if constexpr (f == Gate::sigmoid)
      return {p, p * (1 - p)};
    else
      return {s * p, p * (1 + s * (1 - p))};
  }
}

/// run(std::integral_constant<Gate, f>())
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <class F>
LIGHTCONE_HOST_DEVICE void with_gate(Gate f, F&& run) {
  switch (f) {
    case Gate::relu:
      return run(std::integral_constant<Gate, Gate::relu>());
    case Gate::sigmoid:
      return run(std::integral_constant<Gate, Gate::sigmoid>());
    case Gate::gelu:
      return run(std::integral_constant<Gate, Gate::gelu>());
    case Gate::silu:
      return run(std::integral_constant<Gate, Gate::silu>());
  }
}

}  // namespace lightcone::geometric_algebra
