#pragma once
#include <cstring>

#include "engine/context.h"

namespace lightcone::test {

inline bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.device() != Device::cpu || b.device() != Device::cpu) {
    Context cpu(1);
    return same_bits(cpu.copy(a), cpu.copy(b));
  }
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0);
}

}  // namespace lightcone::test
