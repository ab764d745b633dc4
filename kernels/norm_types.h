#pragma once
#include "engine/dtype.h"

namespace lightcone::kernels {

/// f(Type<X>, Type<Y>) where y has the dtype of x, or bf16 for f32: what norms and multivectors write for products.
template <class F>
void dispatch_narrow(const char* where, DType x, DType y, F&& f) {
  dispatch_compute(where, x, [&](auto type) {
    if constexpr (std::is_same_v<typename decltype(type)::type, float>)
      if (y == DType::bf16) return f(type, Type<bf16>{});
    f(type, type);
  });
}

}  // namespace lightcone::kernels
