#pragma once
#include <fmt/format.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "gpusim/machine/kernel.h"
#include "gpusim/machine/sectors.h"
#include "gpusim/machine/shadow.h"
#include "gpusim/report.h"

namespace gpusim {

/// What the blocks of one launch share.
struct Running {
  const Kernel* kernel = nullptr;
  const Launch* launch = nullptr;
  uint64_t blocks = 0;
  bool check_races = true, check_initialised = true;
  uint64_t seed = 0;
  std::atomic<bool> stop = false;                 ///< a fault ended the launch
  Finding::What fault = Finding::What::deadlock;  ///< the first one that did
  std::vector<std::atomic<uint64_t>> waited;      ///< of each worker: steps since a block finished
  std::atomic<uint64_t> progress = 0;             ///< blocks that finished

  // What blocks hand over to one another: for an address of a strong write, the writer's knowledge.
  std::mutex handed_mutex;
  struct Handed {
    Acquired all, reads;
  };
  std::map<uint64_t, Handed> handed;
};

/// Lanes of a warp that stand at the same step.
struct Group {
  enum class Wait : uint8_t { runs, members, whole_warp, barrier };
  uint32_t pc = 0, mask = 0;
  Wait wait = Wait::runs;
  uint32_t members = 0;  ///< Wait::members
  uint32_t barrier = 0;  ///< Wait::barrier: its number
};

struct Warp {
  Lanes lanes;
  uint32_t index = 0;
  uint32_t alive = 0;  ///< lanes that have not ended
  std::vector<Group> groups;
  uint32_t polls = 0;      ///< strong reads of the last steps
  uint32_t ran = 0;        ///< steps since lanes that stand elsewhere had their turn
  bool fair = false;       ///< the last group has such a turn, and goes on with it
  uint32_t fair_next = 0;  ///< and to which step, at most
  uint32_t turn = 0;       ///< whose turn it was
  WarpClock clock{};
  std::vector<std::byte> local;        ///< of each lane in turn
  std::vector<uint8_t> local_written;  ///< a byte for each byte
  Acquired released;                   ///< what a fence made ready to be handed over
  bool has_released = false;
  Acquired seen;  ///< read from others, known after the next fence or barrier
  bool has_seen = false;

  struct AsyncCopy {
    const Step* step;
    uint32_t mask;
    std::array<uint64_t, warp_size> to;
    std::vector<std::byte> bytes;  ///< what is to be there
    uint32_t group;
  };
  std::vector<AsyncCopy> copies;
  uint32_t copy_group = 0;
};

/// How lanes touch memory.
enum class Touch : uint8_t { read, write, atomic };

/// A block that runs, and the counters of all blocks that ran in this place before.
class Block {
 public:
  Block(Running& running);
  /// Begins block number `linear` of the grid.
  void start(uint32_t linear);
  /// Goes on for about so many steps, or until it only waits for other blocks. True when the block has ended (or a
  /// fault stopped the launch).
  bool run(uint64_t steps);

  /// Reports that the launch does not come to its end, and stops it.
  void hang();

  uint32_t linear() const { return linear_; }
  uint64_t steps() const { return clock_; }
  /// Its last run looked at memory in a way that may be waiting for another block.
  bool may_wait() const { return polls_ > 0; }
  LaunchReport counters;
  SectorSet launch_sectors;

 private:
  // warp.cpp
  uint64_t run_warp(Warp& w, uint64_t steps);
  bool take_group(Warp& w, Group& g, uint32_t& next_pc, bool fair);
  uint32_t members_of(const Warp& w, const Step& s, uint32_t lanes) const;
  void wait(Warp& w, uint32_t pc, uint32_t mask, Group::Wait why, uint32_t members);
  void release_waiting(Warp& w);
  void run_simple(Warp& w, const Step& s, uint32_t lanes);
  void run_together(Warp& w, const Step& s, uint32_t lanes);
  void regroup(Warp& w, const Step& s, uint32_t pc, uint32_t mask, uint32_t lanes);
  // barrier.cpp
  struct Barrier {
    uint32_t arrived = 0, expected = 0;  ///< threads; expected 0: all of the block
    uint32_t votes = 0;                  ///< threads whose predicate is true
    uint32_t warps = 0;
    uint32_t site = 0;  ///< who came first
  };
  void arrive(Warp& w, uint32_t pc, uint32_t lanes, const Step& s);
  bool complete(uint32_t number);
  void complete_all();
  void stuck();
  // access.cpp
  void load(Warp& w, const Step& s, uint32_t lanes);
  void store(Warp& w, const Step& s, uint32_t lanes);
  void addresses(const Warp& w, Slot base, uint8_t base_bytes, int64_t offset, uint64_t* to) const;
  /// Checks an access of `bytes` a lane and tells where the bytes are. False if a fault stopped the launch. `values`:
  /// what a store writes, per lane.
  bool locate(Warp& w, const Step& s, uint32_t lanes, ptx::Space space, const uint64_t* address, uint32_t bytes,
              Touch touch, const std::byte* values, std::byte** at);
  bool locate_global(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                     const std::byte* values, std::byte** at);
  bool locate_shared(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                     const std::byte* values, std::byte** at);
  bool locate_local(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                    std::byte** at);
  bool locate_param(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                    std::byte** at);
  std::string describe_shared(uint64_t address) const;
  void count_banks(uint32_t lanes, const uint64_t* address, uint32_t bytes);
  void report_clash(Clash clash, Warp& w, const Step& s, uint32_t lane, uint64_t address, Touch touch,
                    const Other& other, const std::string& place);
  bool matters(Clash clash, const Warp& w, uint64_t address, uint32_t n, uint32_t lane, const Other& other,
               const std::byte* values, uint32_t bytes, const uint64_t* all) const;
  void atomic(Warp& w, const Step& s, uint32_t lanes);       // atomic.cpp
  void load_matrix(Warp& w, const Step& s, uint32_t lanes);  // matrix.cpp
  void store_matrix(Warp& w, const Step& s, uint32_t lanes);
  void move_fragment(Warp& w, const Step& s, uint32_t lanes);
  void copy_async(Warp& w, const Step& s, uint32_t lanes);
  void copy_wait(Warp& w, uint32_t lanes, uint32_t pending);
  void print(Warp& w, const Step& s, uint32_t lanes);  // print.cpp
  void assertion(Warp& w, const Step& s, uint32_t lanes);
  std::byte* local_of(Warp& w, uint32_t lane, uint64_t at) {
    return w.local.data() + lane * kernel_.local_storage + at;
  }
  // order.cpp: what blocks know of one another
  void fence(Warp& w, const Step& s);
  void take_seen(Warp& w);
  void acquire(Warp& w, const Acquired& what);
  void hand_over(Warp& w, uint64_t address);
  void take_over(Warp& w, uint64_t address, bool now);

  void uncount(const Step& s, uint32_t lanes) {
    --by_kind_[static_cast<int>(s.kind)];
    thread_instructions_ -= std::popcount(lanes);
  }

  void set_specials();
  /// A finding at a step; ends the launch if `fatal`.
  void find(Finding::What what, const Warp& w, const Step& s, uint32_t lane, const std::string& text, bool fatal,
            const Site* other = nullptr, uint64_t address = 0);
  std::array<uint32_t, 3> thread_of(const Warp& w, uint32_t lane) const;
  uint32_t threads_alive() const;
  void count(const Step& s, uint32_t lanes) {
    ++by_kind_[static_cast<int>(s.kind)];
    thread_instructions_ += std::popcount(lanes);
  }

  Running& running_;
  const Kernel& kernel_;
  const Launch& launch_;
  uint32_t linear_ = 0, threads_ = 0;
  std::array<uint32_t, 3> index_{};
  std::vector<Warp> warps_;
  struct AlignedDelete {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte[], AlignedDelete> register_memory_;
  std::vector<std::byte> shared_;
  std::vector<Cell> shared_cells_;
  uint32_t shared_shift_ = 2, shared_id_ = 0;
  std::vector<Kernel::Range> shared_ranges_;
  Acquired acquired_;        // whose accesses are ordered before this block's
  Acquired acquired_reads_;  // whose reads are: a write of this block cannot change what they saw
  std::array<Barrier, 16> barriers_;
  std::mt19937_64 random_;
  std::vector<uint32_t> order_;
  SectorSet block_sectors_;
  uint64_t by_kind_[static_cast<int>(Kind::count)] = {};
  uint64_t thread_instructions_ = 0;
  uint64_t clock_ = 0;  // steps of this block, but for those of the slice that runs
  uint64_t now_ = 0;    // all of them: what %clock reads
  uint64_t polls_ = 0;  // strong reads of global memory in this run
  std::set<std::tuple<uint8_t, uint32_t, uint32_t>> known_;  // findings of this launch, so that texts are made once

  friend void finish(Block& block, LaunchReport& total, SectorSet& sectors);
};

/// Adds what a Block counted to a launch's report.
void finish(Block& block, LaunchReport& total, SectorSet& sectors);
void add(LaunchReport& to, const LaunchReport& counters);

}  // namespace gpusim
