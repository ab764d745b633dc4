#pragma once
#include <cstdint>
#include <string>

namespace gpusim {

/// What programs ask about a device, with the values of the GPU it stands for. Clock rates and the like are given
/// because programs print them; nothing in gpusim is computed from them.
struct DeviceFacts {
  int capability = 0;  ///< 90 for 9.0
  const char* name = "";
  int multiprocessors = 0;
  uint64_t memory_bytes = 0;
  int shared_optin = 0;               ///< bytes of a block after cudaFuncSetAttribute
  int shared_per_multiprocessor = 0;  ///< bytes
  int l2_bytes = 0;
  int persisting_l2_bytes = 0;
  int clock_khz = 0, memory_clock_khz = 0, memory_bus_bits = 0;
  int copy_engines = 0;
  int double_ratio = 0;  ///< throughput of f32 to that of f64
};

// The same on all that gpusim knows.
inline constexpr int max_threads_per_block = 1024, max_threads_per_multiprocessor = 2048,
                     max_blocks_per_multiprocessor = 32, registers_per_multiprocessor = 65536,
                     shared_per_block = 48 * 1024, shared_reserved = 1024, constant_bytes = 65536;
inline constexpr int max_block[3] = {1024, 1024, 64}, max_grid[3] = {2147483647, 65535, 65535};

/// 80: A100 (SXM, 80 GB), 90: H100 (SXM, 80 GB). Throws Error for others.
const DeviceFacts& device_facts(int capability);

}  // namespace gpusim
