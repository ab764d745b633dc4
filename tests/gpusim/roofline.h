#pragma once
#include <span>
#include <string>

#include "gpusim/report.h"

namespace gpusim {

// From counts to bounds. No launch can be faster than its bound on a machine of these data; how much slower it is,
// counts do not tell. A bound is no time and is never to be printed as one.

/// A machine as its data sheet has it (dense rates, boost clock).
struct Gpu {
  std::string name;
  int multiprocessors = 0;
  double clock_ghz = 0;
  double dram_gb_per_s = 0;
  int registers_per_multiprocessor = 65536, threads_per_multiprocessor = 2048, blocks_per_multiprocessor = 32;
  int shared_per_multiprocessor = 0;  ///< bytes, all blocks together; each takes 1 KiB more than it asks for
  // Per multiprocessor and clock: warp instructions issued, and lanes of each kind.
  int issue = 4, f32_lanes = 128, integer_lanes = 64, f64_lanes = 0, special_lanes = 16;
  double tensor_gflops_f16 = 0;  ///< multiply and add count as two
};
/// A100 (SXM 80 GB), H100 (SXM), H200.
std::span<const Gpu> gpus();
/// Throws Error that names those there are.
const Gpu& gpu_named(const std::string& name);

struct Occupancy {
  int blocks = 0;     ///< resident on one multiprocessor
  double share = 0;   ///< their threads of the most there can be
  std::string limit;  ///< "registers", "shared memory", "threads" or "blocks"
};
/// `registers` of a thread, as ptxas reports them (LaunchReport does not know).
Occupancy occupancy(const LaunchReport& launch, int registers, const Gpu& gpu);

struct Bound {
  double microseconds = 0;
  std::string by;  ///< "DRAM", "issue", "f32", "integer", "f64", "shared memory", "tensor cores"
};
/// The largest of what DRAM (each sector once, for data that no cache holds yet), instruction issue, each kind of
/// arithmetic, shared-memory passes and tensor operations need at least, with all multiprocessors busy all the time.
Bound least_time(const LaunchReport& launch, const Gpu& gpu);

}  // namespace gpusim
