#include "gpusim/runtime/occupancy.h"

#include <algorithm>

#include "gpusim/machine/lanes.h"
#include "gpusim/runtime/registration.h"

namespace gpusim {

namespace {

constexpr int register_unit = 256;  // registers are handed out to warps in these
constexpr int shared_unit = 128;

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

/// Blocks that everything but shared memory allows.
int blocks_without_shared(const KernelInfo& kernel, int threads) {
  const int warps = (threads + warp_size - 1) / warp_size;
  const int by_warps = max_threads_per_multiprocessor / warp_size / warps;
  const auto warp_registers =
      static_cast<int>(round_up(uint64_t{std::max(kernel.registers, 1u)} * warp_size, register_unit));
  const int by_registers = registers_per_multiprocessor / warp_registers / warps;
  return std::min({by_warps, by_registers, max_blocks_per_multiprocessor});
}

}  // namespace

uint64_t dynamic_limit(const CUkern_st& handle, const KernelInfo& kernel, int device) {
  const auto raised = handle.dynamic_shared_limit.find(device);
  const uint64_t standard = shared_per_block - std::min<uint32_t>(kernel.static_shared, shared_per_block);
  return raised == handle.dynamic_shared_limit.end() ? standard
                                                     : std::max(standard, static_cast<uint64_t>(raised->second));
}

int blocks_per_multiprocessor(const KernelInfo& kernel, const DeviceFacts& device, int threads,
                              uint64_t dynamic_shared) {
  if (threads <= 0 || threads > max_threads_per_block || static_cast<uint32_t>(threads) > kernel.max_threads) return 0;
  const uint64_t shared = kernel.static_shared + dynamic_shared;
  if (shared > static_cast<uint64_t>(device.shared_optin)) return 0;
  const uint64_t of_block = round_up(shared, shared_unit) + shared_reserved;
  const uint64_t by_shared = static_cast<uint64_t>(device.shared_per_multiprocessor) / of_block;
  return static_cast<int>(std::min<uint64_t>(by_shared, static_cast<uint64_t>(blocks_without_shared(kernel, threads))));
}

}  // namespace gpusim

extern "C" {

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function, int threads,
                                                                   size_t dynamic_shared, unsigned) {
  using namespace gpusim;
  return call([&](State& s) {
    require(blocks && threads > 0);
    CUkern_st& handle = kernel_of(function);
    Device& device = gpusim::device(s);
    const KernelInfo& kernel = info(kernel_on(handle, device));
    *blocks = dynamic_shared > dynamic_limit(handle, kernel, device.number)
                  ? 0
                  : blocks_per_multiprocessor(kernel, device.facts, threads, dynamic_shared);
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t dynamic_shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, dynamic_shared, 0);
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, const void* function, int blocks, int threads) {
  using namespace gpusim;
  return call([&](State& s) {
    require(bytes && blocks > 0 && threads > 0);
    Device& device = gpusim::device(s);
    CUkern_st& handle = kernel_of(function);
    const KernelInfo& kernel = info(kernel_on(handle, device));
    require(blocks <= blocks_without_shared(kernel, threads));
    const uint64_t of_block =
        static_cast<uint64_t>(device.facts.shared_per_multiprocessor / blocks) / shared_unit * shared_unit;
    const uint64_t taken = shared_reserved + kernel.static_shared;
    *bytes = of_block < taken
                 ? 0
                 : std::min(of_block - taken, static_cast<uint64_t>(device.facts.shared_optin) - kernel.static_shared);
  });
}

cudaError_t cudaOccupancyMaxPotentialClusterSize(int* size, const void*, const cudaLaunchConfig_t*) {
  return gpusim::call([&](gpusim::State&) {
    gpusim::require(size);
    *size = 1;
  });
}

cudaError_t cudaOccupancyMaxActiveClusters(int*, const void*, const cudaLaunchConfig_t*) {
  return gpusim::call([&](gpusim::State&) { gpusim::not_supported("clusters of blocks"); });
}
}
