#include "gpusim/roofline.h"

#include <algorithm>
#include <array>

#include "gpusim/error.h"

namespace gpusim {

std::span<const Gpu> gpus() {
  static const std::array<Gpu, 3> all = {{
      {.name = "A100",
       .multiprocessors = 108,
       .clock_ghz = 1.41,
       .dram_gb_per_s = 2039,
       .shared_per_multiprocessor = 164 << 10,
       .f32_lanes = 64,
       .f64_lanes = 32,
       .tensor_gflops_f16 = 312e3},
      {.name = "H100",
       .multiprocessors = 132,
       .clock_ghz = 1.98,
       .dram_gb_per_s = 3352,
       .shared_per_multiprocessor = 228 << 10,
       .f64_lanes = 64,
       .tensor_gflops_f16 = 989e3},
      {.name = "H200",
       .multiprocessors = 132,
       .clock_ghz = 1.98,
       .dram_gb_per_s = 4800,
       .shared_per_multiprocessor = 228 << 10,
       .f64_lanes = 64,
       .tensor_gflops_f16 = 989e3},
  }};
  return all;
}

const Gpu& gpu_named(const std::string& name) {
  std::string names;
  for (const Gpu& gpu : gpus()) {
    if (gpu.name == name) return gpu;
    names += (names.empty() ? "" : ", ") + gpu.name;
  }
  fail("no GPU is named {}; there are {}", name, names);
}

Occupancy occupancy(const LaunchReport& launch, int registers, const Gpu& gpu) {
  const int threads = static_cast<int>(launch.block[0] * launch.block[1] * launch.block[2]),
            warps = (threads + 31) / 32;
  // Registers are handed out per warp in units of 256.
  const int per_block = warps * ((registers * 32 + 255) / 256 * 256);
  const int shared = static_cast<int>(launch.shared_bytes) + 1024;
  Occupancy best{gpu.blocks_per_multiprocessor, 0, "blocks"};
  auto limit = [&](int blocks, const char* by) {
    if (blocks < best.blocks) best = {blocks, 0, by};
  };
  limit(gpu.threads_per_multiprocessor / (warps * 32), "threads");
  if (per_block) limit(gpu.registers_per_multiprocessor / per_block, "registers");
  limit(gpu.shared_per_multiprocessor / shared, "shared memory");
  best.share = static_cast<double>(best.blocks) * warps * 32 / gpu.threads_per_multiprocessor;
  return best;
}

Bound least_time(const LaunchReport& launch, const Gpu& gpu) {
  Bound bound;
  auto at_least = [&](double microseconds, const char* by) {
    if (microseconds > bound.microseconds) bound = {microseconds, by};
  };
  const double clocks_per_us = gpu.clock_ghz * 1e3 * gpu.multiprocessors;
  const auto& kind = launch.warp_by_kind;
  at_least((launch.least_read_bytes + launch.least_write_bytes) / (gpu.dram_gb_per_s * 1e3), "DRAM");
  at_least(launch.warp_instructions / (clocks_per_us * gpu.issue), "issue");
  at_least(32. * kind.f32 / (clocks_per_us * gpu.f32_lanes), "f32");
  at_least(32. * kind.integer / (clocks_per_us * gpu.integer_lanes), "integer");
  at_least(32. * kind.f64 / (clocks_per_us * gpu.f64_lanes), "f64");
  at_least(launch.shared_wavefronts / clocks_per_us, "shared memory");
  at_least(2. * launch.tensor_operations / (gpu.tensor_gflops_f16 * 1e3), "tensor cores");
  return bound;
}

}  // namespace gpusim
