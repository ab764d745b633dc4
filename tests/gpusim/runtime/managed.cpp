#include "gpusim/runtime/state.h"

using namespace gpusim;

// There is no managed memory: host accesses to it could not be checked, and device memory must mean nothing to the
// host.

namespace {
cudaError_t refused(std::string_view call) {
  return gpusim::call([&](State&) { not_supported(fmt::format("{}: there is no managed memory here", call)); });
}
}  // namespace

extern "C" {

cudaError_t cudaMallocManaged(void**, size_t, unsigned) { return refused("cudaMallocManaged"); }

cudaError_t cudaMemPrefetchAsync(const void*, size_t, cudaMemLocation, unsigned, cudaStream_t) {
  return refused("cudaMemPrefetchAsync");
}

cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, cudaMemLocation) { return refused("cudaMemAdvise"); }

cudaError_t cudaStreamAttachMemAsync(cudaStream_t, void*, size_t, unsigned) {
  return refused("cudaStreamAttachMemAsync");
}
}
