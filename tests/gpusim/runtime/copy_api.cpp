#include "gpusim/runtime/copy.h"
#include "gpusim/runtime/registration.h"

using namespace gpusim;

namespace {

Copy row(const char* call, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return {.call = call, .to = to, .from = from, .width = bytes, .kind = kind};
}

/// The part of a variable that a copy means.
void* part_of_symbol(State& s, const void* symbol, size_t bytes, size_t offset) {
  uint64_t size = 0;
  void* address = symbol_on(symbol, device(s), &size);
  require(offset <= size && bytes <= size - offset);
  return static_cast<std::byte*>(address) + offset;
}

/// Between devices a copy stands after and before what the legacy streams of both stand after and before.
void copy_peer(State& s, Copy copy, int to_device, int from_device, CUstream_st* stream) {
  Device& to = device_of(s, to_device);
  Device& from = device_of(s, from_device);
  if (copy.width == 0) return;
  require(to.memory.contains(copy.to) && from.memory.contains(copy.from));
  if (stream) return copy_async(s, copy, *stream);
  copy_async(s, copy, from.legacy, predecessors(to.legacy));
  if (&to != &from) submit(to.legacy, {.name = copy.call}, {from.legacy.last});
}

}  // namespace

extern "C" {

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call([&](State& s) { copy_blocking(s, row("cudaMemcpy", to, from, bytes, kind), stream_of(s, nullptr)); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return call([&](State& s) { copy_async(s, row("cudaMemcpyAsync", to, from, bytes, kind), stream_of(s, stream)); });
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  return call([&](State& s) {
    copy_blocking(s, {"cudaMemcpy2D", to, to_pitch, from, from_pitch, width, height, kind}, stream_of(s, nullptr));
  });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return call([&](State& s) {
    copy_async(s, {"cudaMemcpy2DAsync", to, to_pitch, from, from_pitch, width, height, kind}, stream_of(s, stream));
  });
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return call([&](State& s) {
    void* to = part_of_symbol(s, symbol, bytes, offset);
    copy_blocking(s, row("cudaMemcpyToSymbol", to, from, bytes, kind), stream_of(s, nullptr));
  });
}

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t bytes, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream) {
  return call([&](State& s) {
    void* to = part_of_symbol(s, symbol, bytes, offset);
    copy_async(s, row("cudaMemcpyToSymbolAsync", to, from, bytes, kind), stream_of(s, stream));
  });
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return call([&](State& s) {
    const void* from = part_of_symbol(s, symbol, bytes, offset);
    copy_blocking(s, row("cudaMemcpyFromSymbol", to, from, bytes, kind), stream_of(s, nullptr));
  });
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t bytes, size_t offset, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  return call([&](State& s) {
    const void* from = part_of_symbol(s, symbol, bytes, offset);
    copy_async(s, row("cudaMemcpyFromSymbolAsync", to, from, bytes, kind), stream_of(s, stream));
  });
}

cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t bytes) {
  return call([&](State& s) {
    copy_peer(s, row("cudaMemcpyPeer", to, from, bytes, cudaMemcpyDeviceToDevice), to_device, from_device, nullptr);
  });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  return call([&](State& s) {
    copy_peer(s, row("cudaMemcpyPeerAsync", to, from, bytes, cudaMemcpyDeviceToDevice), to_device, from_device,
              &stream_of(s, stream));
  });
}

cudaError_t cudaGetSymbolAddress(void** address, const void* symbol) {
  return call([&](State& s) {
    require(address);
    *address = symbol_on(symbol, device(s), nullptr);
  });
}

cudaError_t cudaGetSymbolSize(size_t* bytes, const void* symbol) {
  return call([&](State& s) {
    require(bytes);
    uint64_t size = 0;
    symbol_on(symbol, device(s), &size);
    *bytes = size;
  });
}
}
