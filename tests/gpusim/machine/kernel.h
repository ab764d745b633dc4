#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gpusim/machine/instruction.h"
#include "gpusim/machine/instructions/wmma_layout.h"
#include "gpusim/machine/machine.h"

namespace gpusim {

// A kernel ready to run: functions that it calls are inlined, registers have slots, symbols have addresses.

/// What the interpreter does with a step, beyond arithmetic on registers.
enum class Action : uint8_t {
  arithmetic,
  branch,
  nothing,  // nanosleep, prefetch …
  trap,
  fence,
  clock,
  load,
  store,
  atomic,
  to_generic,  // cvta, cvta.to: adds or subtracts the window of a space
  is_space,
  copy_async,
  copy_commit,
  copy_wait,
  print,
  assertion,
  regroups,  // from here on the lanes may part, wait or end
  branch_indexed,
  exit,
  barrier,       // bar.sync, barrier.sync, bar.red, bar.arrive
  warp_barrier,  // bar.warp.sync
  collective,    // arithmetic that needs the lanes of its member mask: shfl, vote, match, redux, mma …
  load_matrix,
  store_matrix,
};

/// The generic addresses of shared, local and parameter space. No machine has memory of the host up there.
inline constexpr uint64_t window_bytes = uint64_t{1} << 32;
inline constexpr uint64_t shared_window = uint64_t{1} << 60;
inline constexpr uint64_t local_window = uint64_t{2} << 60;
inline constexpr uint64_t param_window = uint64_t{3} << 60;

enum class AtomicOp : uint8_t { add, min, max, and_, or_, xor_, exch, cas, inc, dec };
enum class BarrierOp : uint8_t { sync, arrive, popc, and_, or_ };

struct Step {
  Op op;
  Action action = Action::arithmetic;
  Kind kind = Kind::integer;
  uint8_t operands = 0;  ///< of op.operands
  uint8_t results = 0;   ///< the first ones of them, or of op.x
  Slot guard = no_slot;
  bool guard_negated = false;
  uint32_t site = 0;           ///< index into Kernel::sites
  uint32_t target = 0;         ///< branch: a step
  uint32_t multiply_adds = 0;  ///< of mma, by a warp
  Slot members = no_slot;

  // Memory.
  ptx::Space space = ptx::Space::generic;
  Slot base = no_slot;  ///< the address register, or none
  uint8_t base_bytes = 8;
  int64_t offset = 0;
  uint8_t bytes = 4;           ///< of one element
  uint8_t count = 1;           ///< elements of a vector
  uint8_t register_bytes = 4;  ///< of the registers that an element goes to or comes from
  bool is_signed = false, is_float = false;
  bool strong = false;  ///< volatile, relaxed, acquire, release, atomics
  bool acquires = false, releases = false;
  AtomicOp atomic = AtomicOp::add;
  BarrierOp barrier = BarrierOp::sync;
  bool aligned = true;         ///< barrier: all lanes of a warp together
  bool transposed = false;     ///< ldmatrix, stmatrix
  bool waits_all = false;      ///< cp.async.wait_all
  Slot source_base = no_slot;  ///< cp.async: where from
  uint8_t source_base_bytes = 8;
  int64_t source_offset = 0;
  std::optional<Fragment> fragment;  ///< wmma.load, wmma.store
  bool column_major = false;
  std::string type;               ///< atomic: "f32"
  std::vector<uint32_t> targets;  ///< branch_indexed; a library call: its arguments in local memory
};

/// Where a step comes from.
struct Site {
  std::string file;
  uint32_t line = 0;
  std::string text;  ///< the PTX instruction
};

struct Kernel {
  KernelInfo info;
  const Program* program = nullptr;
  std::vector<Step> steps;
  std::vector<Site> sites;
  std::vector<std::unique_ptr<Slot[]>> lists;  // what Op::operands point to

  uint32_t register_bytes = 0;  ///< of a warp
  struct Constant {
    Slot slot;
    uint8_t bytes;
    uint64_t value;
  };
  std::vector<Constant> constants;
  struct Special {
    Slot slot;
    uint8_t bytes;
    std::string name;  ///< "tid.x"
  };
  std::vector<Special> specials;

  uint64_t local_storage = 0;  ///< bytes of a thread: its variables, and the parameters of inlined calls

  /// Shared variables with the addresses that they have; between them lies nothing.
  struct Range {
    uint32_t begin = 0, end = 0;
    std::string name;
  };
  std::vector<Range> shared;
  uint32_t dynamic_shared_at = 0;  ///< where dynamic shared memory begins
  uint8_t shared_granule = 4;      ///< bytes of the narrowest access to shared memory
  bool hands_over = false;         ///< blocks may hand over data to one another
};

/// Decodes an entry. Throws Error that names the instruction and its line.
std::unique_ptr<Kernel> decode(const Program& program, const ptx::Function& entry);

}  // namespace gpusim
