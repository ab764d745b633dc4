#include <cuda_profiler_api.h>

#include <cstring>

#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/registration.h"

using namespace gpusim;

namespace {

/// The memory and streams of the device are gone, and with them a fault that ended its context.
void reset(State& s, Device& device) {
  wait_for_device(device.number);
  unload_all(device.number);
  std::erase_if(s.pool_of, [&](const auto& entry) { return entry.second->device == device.number; });
  device.default_pool.used = 0;
  const Operation now = host_operation(s, "cudaDeviceReset");
  for (const Memory::Allocation& allocation : device.memory.live())
    device.memory.free(reinterpret_cast<void*>(allocation.address), now);
  device.lost = cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return call(Calls::always, [&](State& s) {
    require(count);
    *count = static_cast<int>(s.devices.size());
    require(*count > 0, cudaErrorNoDevice);
  });
}

cudaError_t cudaSetDevice(int number) {
  return call(Calls::always, [&](State& s) { set_current_device(device_of(s, number).number); });
}

cudaError_t cudaGetDevice(int* number) {
  return call(Calls::always, [&](State& s) {
    require(number);
    *number = device(s).number;
  });
}

cudaError_t cudaInitDevice(int number, unsigned, unsigned) {
  return call([&](State& s) { device_of(s, number); });
}

cudaError_t cudaSetValidDevices(int* numbers, int count) {
  return call([&](State& s) {
    for (int i = 0; i < count; ++i) device_of(s, numbers[i]);
  });
}

cudaError_t cudaChooseDevice(int* number, const cudaDeviceProp* wanted) {
  return call([&](State& s) {
    require(number && wanted);
    *number = device_of(s, 0).number;
  });
}

cudaError_t cudaSetDeviceFlags(unsigned flags) {
  return call([&](State& s) { device(s).flags = flags; });
}

cudaError_t cudaGetDeviceFlags(unsigned* flags) {
  return call([&](State& s) {
    require(flags);
    *flags = device(s).flags;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call([](State& s) {
    const int number = device(s).number;
    check_no_capture(s, number);
    wait_for_device(number);
  });
}

cudaError_t cudaDeviceReset() {
  return call(Calls::always, [](State& s) { reset(s, device(s)); });
}

cudaError_t cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  return call([&](State& s) {
    require(limit <= cudaLimitPersistingL2CacheSize, cudaErrorUnsupportedLimit);
    device(s).limits[limit] = value;
  });
}

cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  return call([&](State& s) {
    require(value);
    const std::map<cudaLimit, size_t> standard{{cudaLimitStackSize, 1024},
                                               {cudaLimitPrintfFifoSize, 7 << 20},
                                               {cudaLimitMallocHeapSize, 8 << 20},
                                               {cudaLimitDevRuntimeSyncDepth, 2},
                                               {cudaLimitDevRuntimePendingLaunchCount, 2048},
                                               {cudaLimitMaxL2FetchGranularity, 64},
                                               {cudaLimitPersistingL2CacheSize, 0}};
    const auto normal = standard.find(limit);
    require(normal != standard.end(), cudaErrorUnsupportedLimit);
    const auto chosen = device(s).limits.find(limit);
    *value = chosen == device(s).limits.end() ? normal->second : chosen->second;
  });
}

cudaError_t cudaDeviceGetCacheConfig(cudaFuncCache* config) {
  return call([&](State&) {
    require(config);
    *config = cudaFuncCachePreferNone;
  });
}

cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache) {
  return call([](State& s) { device(s); });
}

// Devices sit on buses 1, 2, ….

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int number) {
  return call([&](State& s) {
    require(text && length > 0);
    const std::string id = fmt::format("0000:{:02x}:00.0", device_of(s, number).number + 1);
    require(id.size() < static_cast<size_t>(length));
    std::memcpy(text, id.c_str(), id.size() + 1);
  });
}

cudaError_t cudaDeviceGetByPCIBusId(int* number, const char* text) {
  return call([&](State& s) {
    require(number && text);
    unsigned domain = 0, bus = 0;
    require(std::sscanf(text, "%x:%x", &domain, &bus) == 2);
    *number = device_of(s, static_cast<int>(bus) - 1).number;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  return call(Calls::always, [&](State&) {
    require(version);
    *version = CUDART_VERSION;
  });
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

// There is no driver: libraries that look for its functions are told so.

cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  return call(Calls::always, [&](State&) {
    require(function);
    *function = nullptr;
    if (status)
      *status = cudaDriverEntryPointSymbolNotFound;
    else
      refuse(cudaErrorSymbolNotFound);
  });
}

cudaError_t cudaGetDriverEntryPoint(const char* name, void** function, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult* status) {
  return cudaGetDriverEntryPointByVersion(name, function, CUDART_VERSION, flags, status);
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }
}
