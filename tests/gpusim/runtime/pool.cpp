#include "gpusim/machine/findings.h"
#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/ranges.h"

using namespace gpusim;

// Allocation in stream order. Addresses are known at once; what the stream orders is when the memory may be used and
// when it is gone.

namespace {

CUmemPoolHandle_st& pool_at(State& s, cudaMemPool_t handle) {
  require(s.pools.contains(handle), cudaErrorInvalidResourceHandle);
  return *handle;
}

void malloc_async(State& s, void** pointer, size_t bytes, CUmemPoolHandle_st& pool, CUstream_st& stream) {
  require(pointer);
  Memory& memory = device_of(s, pool.device).memory;
  void* address = memory.allocate(bytes, "cudaMallocAsync");
  if (!address && !stream.capture) {
    wait_for_device(pool.device);
    address = memory.allocate(bytes, "cudaMallocAsync");
  }
  require(address, cudaErrorMemoryAllocation);
  // In a graph the same memory serves every replay, and each begins with nothing written.
  Task task{.kind = Task::Kind::allocate, .name = "cudaMallocAsync"};
  if (stream.capture) task.run = [&memory, address, bytes](const Operation&) { memory.forget(address, bytes); };
  submit(stream, std::move(task));
  pool.used += bytes;
  pool.used_high = std::max(pool.used_high, pool.used);
  s.pool_of[address] = &pool;
  *pointer = address;
}

void free_async(State& s, void* pointer, CUstream_st& stream) {
  if (!pointer) return;
  const Place place = place_of(s, pointer);
  if (!place.is_device())
    refuse(cudaErrorInvalidValue, Finding::What::misuse, fmt::format("cudaFreeAsync: {} is no device memory", pointer),
           pointer);
  check_range(place, pointer, 1, "cudaFreeAsync");
  const uint64_t bytes = place.memory->find(pointer)->bytes;
  Memory& memory = *place.memory;
  Task task{.kind = Task::Kind::free, .name = "cudaFreeAsync"};
  if (stream.capture)
    task.run = [&memory, pointer, bytes](const Operation&) { memory.forget(pointer, bytes); };
  else
    task.run = [&memory, pointer](const Operation& now) {
      if (memory.free(pointer, now)) return;
      Finding finding;
      finding.what = Finding::What::misuse;
      finding.text = fmt::format("cudaFreeAsync: {} is not the start of a live allocation", pointer);
      finding.address = reinterpret_cast<uint64_t>(pointer);
      report(std::move(finding));
    };
  submit(stream, std::move(task));
  if (const auto found = s.pool_of.find(pointer); found != s.pool_of.end()) {
    found->second->used -= std::min(found->second->used, bytes);
    s.pool_of.erase(found);
  }
}

}  // namespace

extern "C" {

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return call([&](State& s) {
    CUstream_st& in = stream_of(s, stream);
    malloc_async(s, pointer, bytes, *device_of(s, in.device).pool, in);
  });
}

cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  return call([&](State& s) { malloc_async(s, pointer, bytes, pool_at(s, pool), stream_of(s, stream)); });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return call([&](State& s) { free_async(s, pointer, stream_of(s, stream)); });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int number) {
  return call([&](State& s) {
    require(pool);
    *pool = &device_of(s, number).default_pool;
  });
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int number) {
  return call([&](State& s) {
    require(pool);
    *pool = device_of(s, number).pool;
  });
}

cudaError_t cudaDeviceSetMemPool(int number, cudaMemPool_t pool) {
  return call([&](State& s) { device_of(s, number).pool = &pool_at(s, pool); });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return call([&](State& s) {
    require(pool && properties && properties->allocType == cudaMemAllocationTypePinned &&
            properties->location.type == cudaMemLocationTypeDevice);
    *pool = new CUmemPoolHandle_st{.device = device_of(s, properties->location.id).number};
    s.pools.insert(*pool);
  });
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return call([&](State& s) {
    CUmemPoolHandle_st& gone = pool_at(s, pool);
    Device& owner = device_of(s, gone.device);
    require(&gone != &owner.default_pool);
    if (owner.pool == &gone) owner.pool = &owner.default_pool;
    std::erase_if(s.pool_of, [&](const auto& entry) { return entry.second == &gone; });
    s.pools.erase(pool);
    delete pool;
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t) {
  return call([&](State& s) { pool_at(s, pool); });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call([&](State& s) {
    CUmemPoolHandle_st& of = pool_at(s, pool);
    require(value);
    switch (attribute) {
      case cudaMemPoolReuseFollowEventDependencies:
      case cudaMemPoolReuseAllowOpportunistic:
      case cudaMemPoolReuseAllowInternalDependencies:
        of.reuse_flags[attribute - cudaMemPoolReuseFollowEventDependencies] = *static_cast<int*>(value);
        break;
      case cudaMemPoolAttrReleaseThreshold:
        of.release_threshold = *static_cast<uint64_t*>(value);
        break;
      case cudaMemPoolAttrReservedMemHigh:
      case cudaMemPoolAttrUsedMemHigh:
        require(*static_cast<uint64_t*>(value) == 0);
        of.used_high = of.used;
        break;
      default:
        refuse(cudaErrorInvalidValue);
    }
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call([&](State& s) {
    const CUmemPoolHandle_st& of = pool_at(s, pool);
    require(value);
    switch (attribute) {
      case cudaMemPoolReuseFollowEventDependencies:
      case cudaMemPoolReuseAllowOpportunistic:
      case cudaMemPoolReuseAllowInternalDependencies:
        *static_cast<int*>(value) = of.reuse_flags[attribute - cudaMemPoolReuseFollowEventDependencies];
        break;
      case cudaMemPoolAttrReleaseThreshold:
        *static_cast<uint64_t*>(value) = of.release_threshold;
        break;
      case cudaMemPoolAttrReservedMemCurrent:
      case cudaMemPoolAttrUsedMemCurrent:
        *static_cast<uint64_t*>(value) = of.used;
        break;
      case cudaMemPoolAttrReservedMemHigh:
      case cudaMemPoolAttrUsedMemHigh:
        *static_cast<uint64_t*>(value) = of.used_high;
        break;
      default:
        refuse(cudaErrorInvalidValue);
    }
  });
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const cudaMemAccessDesc* accesses, size_t count) {
  return call([&](State& s) {
    const CUmemPoolHandle_st& of = pool_at(s, pool);
    for (size_t i = 0; i < count; ++i)
      if (accesses[i].location.id != of.device)
        not_supported("cudaMemPoolSetAccess: pools are seen by their own device and by peers that enabled access");
  });
}
}
