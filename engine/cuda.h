#pragma once
#include <cuda_runtime.h>

#include <limits>
#include <string_view>

#include "engine/context.h"
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#endif

// For CUDA sources alone (*.cu, *_cuda.cpp): the runtime's errors, and how kernels are launched.
namespace lightcone::cuda {

/// Throws Error unless a call of the runtime succeeded; `what` failed if not. A kernel that fails while it runs is
/// reported by a later call: CUDA_LAUNCH_BLOCKING=1 makes it that of its launch.
inline void check_cuda(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next launch is not blamed for it
  fail("cuda", "{}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

/// A range with this name in Nsight's timeline, until the end of the scope.
class Range {
 public:
#ifdef NVTX_VERSION
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
#else
  explicit Range(const char*) {}
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

#ifdef __CUDACC__
struct Grid {
  int64_t blocks;
  int threads;        ///< per block
  size_t shared = 0;  ///< bytes of dynamic shared memory
};

/// Launches a kernel on the Context's stream; no blocks, no launch.
///
///     launch(ctx, "layer_norm", layer_norm_kernel<float>, {rows, 256}, rows, cols, x, y);
template <class... Parameters>
void launch(Context& ctx, const char* name, void (*kernel)(Parameters...), Grid grid,
            std::type_identity_t<Parameters>... arguments) {
  if (grid.blocks == 0) return;
  if (grid.blocks > std::numeric_limits<int32_t>::max())
    fail(name, "{} blocks are more than a GPU takes; use a smaller batch", grid.blocks);
  const Range range(name);
  kernel<<<static_cast<unsigned>(grid.blocks), grid.threads, grid.shared, ctx.stream()>>>(arguments...);
  check_cuda(cudaGetLastError(), name);
}
#endif

}  // namespace lightcone::cuda
