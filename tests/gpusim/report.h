#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace gpusim {

// What a test asks gpusim after it ran CUDA code. Call cudaDeviceSynchronize() first: streams run late. Safe to call
// from any thread.

/// Something a program did wrong. A program that ends with findings that nobody took (take_findings) prints them and
/// exits with status 86.
struct Finding {
  enum class What : uint8_t {
    out_of_bounds,
    use_after_free,
    uninitialised_read,
    misaligned,
    race,               ///< two threads, one location, one of them writes, nothing orders them
    unordered,          ///< the same between operations of two streams
    divergent_barrier,  ///< a barrier that not all threads can reach
    deadlock,
    wrong_members,  ///< a shuffle, vote or the like whose member mask does not fit the lanes
    trap,           ///< trap, assert, division of the address space by a wild pointer
    host_access,    ///< the host touched what a pending copy still reads or writes
    leak,
    misuse,  ///< a runtime call that CUDA leaves undefined
  };
  What what = What::misuse;
  std::string text;    ///< one sentence with everything below in it
  std::string kernel;  ///< demangled name; empty for what is no kernel
  std::string file;    ///< the source line of the instruction, as -lineinfo gives it
  uint32_t line = 0;
  std::string other_file;  ///< race: the other access, the earlier one in this run: which it is depends on the schedule
  uint32_t other_line = 0;
  uint64_t address = 0;
  std::array<uint32_t, 3> block{}, thread{};
};
const char* name_of(Finding::What what);

/// The findings since the last call, and forgets them. The same finding (what, kernel, lines) is kept once.
std::vector<Finding> take_findings();

/// What one launch did: counts, never times. The same from run to run and for any number of threads and any seed, as
/// long as the program's own control flow does not depend on the order of its blocks.
struct LaunchReport {
  std::string kernel;
  int device = 0;
  std::array<uint32_t, 3> grid{}, block{};
  uint32_t shared_bytes = 0;         ///< static and dynamic
  uint32_t local_bytes = 0;          ///< of a thread
  uint64_t warp_instructions = 0;    ///< executed by a warp with at least one lane
  uint64_t thread_instructions = 0;  ///< the sum of their executing lanes
  struct ByKind {
    uint64_t integer = 0, f32 = 0, f64 = 0, half = 0, convert = 0, move = 0, predicate = 0, control = 0, memory = 0,
             warp = 0, tensor = 0;
    bool operator==(const ByKind&) const = default;
  } warp_by_kind;
  uint64_t global_load_requests = 0, global_load_sectors = 0;  ///< sectors of 32 bytes, of each warp's request
  uint64_t global_store_requests = 0, global_store_sectors = 0;
  uint64_t atomics = 0;                                  ///< lanes
  uint64_t dram_read_bytes = 0, dram_write_bytes = 0;    ///< each sector once per block that touches it
  uint64_t least_read_bytes = 0, least_write_bytes = 0;  ///< each sector once per launch
  uint64_t shared_requests = 0;
  uint64_t shared_wavefronts = 0;  ///< passes that the banks need; conflicts = wavefronts - the least possible
  uint64_t bank_conflicts = 0;
  uint64_t local_requests = 0;
  uint64_t branches = 0, divergent_branches = 0;  ///< of warps
  uint64_t barriers = 0;                          ///< arrivals of warps
  uint64_t tensor_operations = 0;                 ///< multiply-adds in mma, of all lanes together
  bool operator==(const LaunchReport&) const = default;
};
/// The launches since the last call, in the order in which they ran, and forgets them.
std::vector<LaunchReport> take_launches();

struct Options {
  /// Order of blocks, warps and streams: 0 is the natural one, any other number a permutation.
  uint64_t seed = 0;
  /// Worker threads that run blocks; 0: the machine's cores.
  int threads = 0;
  /// Race and initialisation checks; bounds and alignment are always checked.
  bool check_races = true, check_initialised = true;
  /// Instructions of a block without progress elsewhere after which a launch counts as hanging.
  uint64_t hang_after = 2'000'000'000;
  /// Findings are also printed to stderr as they come.
  bool print = true;
};
/// Takes effect at the next launch. Starts from the environment: GPUSIM_SEED, GPUSIM_THREADS, GPUSIM_RACES=0,
/// GPUSIM_INITIALISED=0, GPUSIM_QUIET=1. GPUSIM_SUMMARY=1 prints the launches and their instructions when the program
/// ends.
/// The devices, too, are chosen there: GPUSIM_DEVICES (2 of them if not given) and GPUSIM_ARCH (90, or 80). With
/// GPUSIM_LEAKS=1 what cudaMalloc gave and nobody freed is a finding at the end.
Options& options();

}  // namespace gpusim
