#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/ranges.h"

using namespace gpusim;

namespace {

constexpr size_t pitch_unit = 512;

void* allocate(Memory& memory, size_t bytes, const char* call) {
  if (bytes == 0) return nullptr;
  void* address = memory.allocate(bytes, call);
  if (!address) {  // what was freed in stream order may still have to run
    wait_for_device(current_device());
    address = memory.allocate(bytes, call);
  }
  require(address, cudaErrorMemoryAllocation);
  return address;
}

/// Both kinds of freeing wait for the device: CUDA does, and programs rely on it.
void free(State& s, Memory& memory, int device, void* pointer, const char* call) {
  wait_for_device(device);
  if (memory.free(pointer, host_operation(s, call))) return;
  const auto allocation = memory.find(pointer);
  if (allocation && allocation->freed_by)
    refuse(cudaErrorInvalidValue, Finding::What::use_after_free,
           fmt::format("{}: {} was freed before, by {}", call, pointer, name_of_operation(allocation->freed_by)),
           pointer);
  refuse(cudaErrorInvalidValue, Finding::What::misuse,
         fmt::format("{}: {} is not the start of an allocation", call, pointer), pointer);
}

/// Page-locked memory is allocated the same whatever the flags say: it is mapped and seen by all devices.
void allocate_host(State& s, void** pointer, size_t bytes, const char* call) {
  require(pointer);
  check_unsafe_call(s);
  *pointer = allocate(s.pinned, bytes, call);
  // Nobody sees what the host writes there: all of it counts as written now.
  if (*pointer) s.pinned.note_write(*pointer, bytes, host_operation(s, call));
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return call([&](State& s) {
    require(pointer);
    check_unsafe_call(s);
    *pointer = allocate(device(s).memory, bytes, "cudaMalloc");
  });
}

cudaError_t cudaMallocPitch(void** pointer, size_t* pitch, size_t width, size_t height) {
  return call([&](State& s) {
    require(pointer && pitch);
    check_unsafe_call(s);
    *pitch = (width + pitch_unit - 1) / pitch_unit * pitch_unit;
    *pointer = allocate(device(s).memory, *pitch * height, "cudaMallocPitch");
  });
}

cudaError_t cudaFree(void* pointer) {
  return call([&](State& s) {
    check_unsafe_call(s);
    if (!pointer) return;  // programs do this to make the context
    const Place place = place_of(s, pointer);
    if (!place.is_device())
      refuse(cudaErrorInvalidValue, Finding::What::misuse, fmt::format("cudaFree: {} is no device memory", pointer),
             pointer);
    free(s, *place.memory, place.device, pointer, "cudaFree");
    if (const auto found = s.pool_of.find(pointer); found != s.pool_of.end()) s.pool_of.erase(found);
  });
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return call([&](State& s) { allocate_host(s, pointer, bytes, "cudaMallocHost"); });
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  return call([&](State& s) { allocate_host(s, pointer, bytes, "cudaHostAlloc"); });
}

cudaError_t cudaFreeHost(void* pointer) {
  return call([&](State& s) {
    check_unsafe_call(s);
    if (!pointer) return;
    if (place_of(s, pointer).kind != Place::Kind::pinned)
      refuse(cudaErrorInvalidValue, Finding::What::misuse,
             fmt::format("cudaFreeHost: {} is no memory of cudaMallocHost", pointer), pointer);
    for (const Device& each : s.devices) wait_for_device(each.number);
    free(s, s.pinned, current_device(), pointer, "cudaFreeHost");
  });
}

// Registered memory is copied from and to as pinned memory is, but the host is not kept from touching it meanwhile.

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned) {
  return call([&](State& s) {
    check_unsafe_call(s);
    require(pointer && bytes > 0);
    const auto start = reinterpret_cast<uint64_t>(pointer);
    const auto behind = s.registered.lower_bound(start + bytes);
    if (behind != s.registered.begin() && std::prev(behind)->first + std::prev(behind)->second > start)
      refuse(cudaErrorHostMemoryAlreadyRegistered);
    s.registered[start] = bytes;
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return call([&](State& s) {
    check_unsafe_call(s);
    require(s.registered.erase(reinterpret_cast<uint64_t>(pointer)) == 1, cudaErrorHostMemoryNotRegistered);
  });
}

cudaError_t cudaHostGetDevicePointer(void** of_device, void* of_host, unsigned) {
  return call([&](State& s) {
    require(of_device && of_host);
    const Place place = place_of(s, of_host);
    if (place.kind == Place::Kind::registered) not_supported("kernels do not see memory of cudaHostRegister here");
    require(place.kind == Place::Kind::pinned);
    *of_device = of_host;
  });
}

cudaError_t cudaHostGetFlags(unsigned* flags, void* pointer) {
  return call([&](State& s) {
    require(flags && place_of(s, pointer).kind == Place::Kind::pinned);
    *flags = cudaHostAllocMapped | cudaHostAllocPortable;
  });
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  return call([&](State& s) {
    require(free_bytes && total);
    *total = device(s).memory.capacity();
    *free_bytes = *total - device(s).memory.in_use();
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return call([&](State& s) {
    require(attributes);
    *attributes = {};
    const Place place = place_of(s, pointer);
    auto* address = const_cast<void*>(pointer);
    attributes->device = place.is_device()                     ? place.device
                         : place.kind == Place::Kind::pageable ? cudaInvalidDeviceId
                                                               : current_device();
    if (place.is_device()) {
      attributes->type = cudaMemoryTypeDevice;
      attributes->devicePointer = address;
    } else if (place.kind == Place::Kind::pageable) {
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->hostPointer = address;
    } else {
      attributes->type = cudaMemoryTypeHost;
      attributes->hostPointer = address;
      attributes->devicePointer = place.kind == Place::Kind::pinned ? address : nullptr;
    }
  });
}
}
