#include "gpusim/runtime/occupancy.h"
#include "gpusim/runtime/registration.h"

using namespace gpusim;

extern "C" {

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return call([&](State& s) {
    require(attributes);
    CUkern_st& handle = kernel_of(function);
    Device& on = device(s);
    const KernelInfo& kernel = info(kernel_on(handle, on));
    *attributes = {};
    attributes->sharedSizeBytes = kernel.static_shared;
    attributes->localSizeBytes = kernel.local_bytes;
    attributes->maxThreadsPerBlock = static_cast<int>(kernel.max_threads);
    attributes->numRegs = static_cast<int>(kernel.registers);
    attributes->ptxVersion = program_of(*handle.binary, on).module().target;
    attributes->binaryVersion = on.facts.capability;
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(dynamic_limit(handle, kernel, on.number));
    attributes->preferredShmemCarveout = handle.carveout;
  });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return call([&](State& s) {
    CUkern_st& handle = kernel_of(function);
    Device& on = device(s);
    const KernelInfo& kernel = info(kernel_on(handle, on));
    switch (attribute) {
      case cudaFuncAttributeMaxDynamicSharedMemorySize:
        require(value >= 0 &&
                static_cast<uint64_t>(value) + kernel.static_shared <= static_cast<uint64_t>(on.facts.shared_optin));
        handle.dynamic_shared_limit[on.number] = value;
        break;
      case cudaFuncAttributePreferredSharedMemoryCarveout:
        require(value >= -1 && value <= 100);
        handle.carveout = value;
        break;
      case cudaFuncAttributeNonPortableClusterSizeAllowed:
      case cudaFuncAttributeClusterSchedulingPolicyPreference:
        break;
      default:
        not_supported(fmt::format("cudaFuncSetAttribute: attribute {}", static_cast<int>(attribute)));
    }
  });
}

cudaError_t cudaFuncSetCacheConfig(const void* function, cudaFuncCache) {
  return call([&](State&) { kernel_of(function); });
}

cudaError_t cudaFuncGetName(const char** name, const void* function) {
  return call([&](State&) {
    require(name);
    *name = kernel_of(function).name.c_str();
  });
}

cudaError_t cudaFuncGetParamInfo(const void* function, size_t index, size_t* offset, size_t* bytes) {
  return call([&](State& s) {
    const KernelInfo& kernel = info(kernel_on(kernel_of(function), device(s)));
    require(offset && index < kernel.parameters.size());
    *offset = kernel.parameters[index].offset;
    if (bytes) *bytes = kernel.parameters[index].bytes;
  });
}
}
