#pragma once
#include <vector>

#include "engine/device.h"

namespace lightcone::test {

/// Where this test program computes: on the CPU; the ones for CUDA kernels (lightcone_cuda_tests on a GPU,
/// lightcone_gpusim_tests on the simulated one) on both.
inline std::vector<Device> devices() {
#ifdef LIGHTCONE_TEST_CUDA
  return {Device::cpu, Device::cuda};
#else
  return {Device::cpu};
#endif
}

}  // namespace lightcone::test
