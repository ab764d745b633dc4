#include <cstring>

#include "gpusim/machine/lanes.h"
#include "gpusim/runtime/state.h"

using namespace gpusim;

namespace {

/// Textures, surfaces, managed memory, clusters, interprocess handles: none, so 0.
int attribute_of(const Device& device, cudaDeviceAttr attribute) {
  const DeviceFacts& facts = device.facts;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return max_threads_per_block;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
    case cudaDevAttrMaxBlockDimZ:
      return max_block[attribute - cudaDevAttrMaxBlockDimX];
    case cudaDevAttrMaxGridDimX:
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return max_grid[attribute - cudaDevAttrMaxGridDimX];
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return shared_per_block;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return facts.shared_optin;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return facts.shared_per_multiprocessor;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return shared_reserved;
    case cudaDevAttrTotalConstantMemory:
      return constant_bytes;
    case cudaDevAttrWarpSize:
      return warp_size;
    case cudaDevAttrMaxPitch:
      return 2147483647;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return registers_per_multiprocessor;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return max_threads_per_multiprocessor;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return max_blocks_per_multiprocessor;
    case cudaDevAttrMultiProcessorCount:
      return facts.multiprocessors;
    case cudaDevAttrComputeCapabilityMajor:
      return facts.capability / 10;
    case cudaDevAttrComputeCapabilityMinor:
      return facts.capability % 10;
    case cudaDevAttrClockRate:
      return facts.clock_khz;
    case cudaDevAttrMemoryClockRate:
      return facts.memory_clock_khz;
    case cudaDevAttrGlobalMemoryBusWidth:
      return facts.memory_bus_bits;
    case cudaDevAttrL2CacheSize:
      return facts.l2_bytes;
    case cudaDevAttrMaxPersistingL2CacheSize:
      return facts.persisting_l2_bytes;
    case cudaDevAttrAsyncEngineCount:
      return facts.copy_engines;
    case cudaDevAttrSingleToDoublePrecisionPerfRatio:
      return facts.double_ratio;
    case cudaDevAttrTextureAlignment:
    case cudaDevAttrSurfaceAlignment:
      return 512;
    case cudaDevAttrTexturePitchAlignment:
      return 32;
    case cudaDevAttrPciBusId:
      return device.number + 1;
    case cudaDevAttrGpuOverlap:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrEccEnabled:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrGlobalL1CacheSupported:
    case cudaDevAttrLocalL1CacheSupported:
    case cudaDevAttrComputePreemptionSupported:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrMemoryPoolsSupported:
      return 1;
    case cudaDevAttrHostNumaId:
      return -1;
    default:
      return 0;
  }
}

}  // namespace

extern "C" {

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int number) {
  return call([&](State& s) {
    require(value && attribute >= cudaDevAttrMaxThreadsPerBlock && attribute < cudaDevAttrMax);
    *value = attribute_of(device_of(s, number), attribute);
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int number) {
  return call([&](State& s) {
    require(properties);
    const Device& device = device_of(s, number);
    const auto of = [&](cudaDeviceAttr attribute) { return attribute_of(device, attribute); };
    cudaDeviceProp& p = *properties;
    p = {};
    std::strncpy(p.name, device.facts.name, sizeof p.name - 1);
    p.uuid.bytes[15] = static_cast<char>(number + 1);
    p.totalGlobalMem = device.memory.capacity();
    p.sharedMemPerBlock = shared_per_block;
    p.sharedMemPerBlockOptin = static_cast<size_t>(device.facts.shared_optin);
    p.sharedMemPerMultiprocessor = static_cast<size_t>(device.facts.shared_per_multiprocessor);
    p.reservedSharedMemPerBlock = shared_reserved;
    p.regsPerBlock = p.regsPerMultiprocessor = registers_per_multiprocessor;
    p.warpSize = warp_size;
    p.memPitch = static_cast<size_t>(of(cudaDevAttrMaxPitch));
    p.maxThreadsPerBlock = max_threads_per_block;
    std::memcpy(p.maxThreadsDim, max_block, sizeof max_block);
    std::memcpy(p.maxGridSize, max_grid, sizeof max_grid);
    p.totalConstMem = constant_bytes;
    p.major = of(cudaDevAttrComputeCapabilityMajor);
    p.minor = of(cudaDevAttrComputeCapabilityMinor);
    p.textureAlignment = p.surfaceAlignment = static_cast<size_t>(of(cudaDevAttrTextureAlignment));
    p.texturePitchAlignment = static_cast<size_t>(of(cudaDevAttrTexturePitchAlignment));
    p.multiProcessorCount = device.facts.multiprocessors;
    p.canMapHostMemory = p.concurrentKernels = p.ECCEnabled = p.unifiedAddressing = 1;
    p.streamPrioritiesSupported = p.globalL1CacheSupported = p.localL1CacheSupported = 1;
    p.computePreemptionSupported = p.cooperativeLaunch = p.hostRegisterSupported = p.memoryPoolsSupported = 1;
    p.pciBusID = of(cudaDevAttrPciBusId);
    p.asyncEngineCount = device.facts.copy_engines;
    p.memoryBusWidth = device.facts.memory_bus_bits;
    p.l2CacheSize = device.facts.l2_bytes;
    p.persistingL2CacheMaxSize = device.facts.persisting_l2_bytes;
    p.maxThreadsPerMultiProcessor = max_threads_per_multiprocessor;
    p.maxBlocksPerMultiProcessor = max_blocks_per_multiprocessor;
    p.hostNumaId = -1;
  });
}
}
