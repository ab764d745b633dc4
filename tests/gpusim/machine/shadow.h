#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>

#include "gpusim/machine/lanes.h"
#include "gpusim/machine/timeline.h"

namespace gpusim {

// Who touched memory last, for each word (or each byte, where something narrower than a word touched it), so that an
// access can be told to be ordered with the ones before it or not.

inline constexpr uint32_t no_block = ~0u;     // the host, a copy
inline constexpr uint32_t many_blocks = ~1u;  // readers of several blocks
inline constexpr uint8_t many_lanes = 255;

/// All zeros: never written, never read.
struct Cell {
  struct Writer {
    uint32_t operation = 0;  // 0: never written
    uint32_t block = 0, clock = 0;
    uint16_t site = 0;
    uint8_t warp = 0;
    uint8_t lane : 7 = 0;
    bool strong : 1 = false;
  } writer;
  struct Reader {
    uint32_t operation = 0;  // 0: not read since it was written
    uint32_t block = 0, clock = 0;
    uint32_t warps = 0;  // bit per warp of the block
    uint16_t site = 0;
    uint8_t lane = 0;     // or many_lanes
    bool strong = false;  // all of them
  } reader;
};

inline constexpr uint64_t page_bytes = 4096;

struct Page {
  enum class State : uint8_t { nobody, live, freed };
  Cell* cells = nullptr;    // null: what follows holds for the whole page
  uint32_t written_by = 0;  // an operation, 0: never written
  uint32_t read_by = 0;
  uint16_t bytes = 0;  // of this page that belong to its allocation
  uint8_t shift = 2;   // a cell per 1 << shift bytes
  State state = State::nobody;
  std::atomic<uint8_t> locked = 0;

  void lock() {
    while (locked.exchange(1, std::memory_order_acquire))
      while (locked.load(std::memory_order_relaxed)) __builtin_ia32_pause();
  }
  void unlock() { locked.store(0, std::memory_order_release); }

  /// The cells, one per at most `bytes` bytes.
  Cell* at_least(uint32_t bytes);
  void drop_cells();
};

/// For each warp of a block, how much of what it did is ordered before now. Clocks advance at barriers, so that an
/// access at clock c of warp v is ordered if of[v] > c.
using WarpClock = std::array<uint32_t, 32>;

/// What a block knows of others through release and acquire: their warps' clocks.
struct Acquired {
  std::map<uint32_t, WarpClock> of;
  void join(const Acquired& other);
  bool ordered(uint32_t block, uint32_t warp, uint32_t clock) const {
    const auto it = of.find(block);
    return it != of.end() && it->second[warp] > clock;
  }
};

/// One access of a lane, as its cells see it.
struct Toucher {
  const Operation* operation = nullptr;  // null: shared memory, whose cells carry a number of the block's
  uint32_t id = 0;                       // operation->id or that number
  uint32_t block = 0, warp = 0, lane = 0, site = 0;
  bool strong = false;  // volatile, relaxed, atomic …: does not race with its like
  const WarpClock* clock = nullptr;
  const Acquired* acquired = nullptr;
  const Acquired* acquired_reads = nullptr;  // for what others only read
};

enum class Clash : uint8_t { none, uninitialised, race, unordered };

/// Notes a read or write. `with_site` and `with` tell of the other access if there is a clash.
struct Other {
  uint32_t operation = 0, block = no_block, site = 0;
  uint32_t warp = 0, lane = 0;  // lane: or many_lanes
  bool writes = false;
};
Clash note_first_read(Cell& cell, const Toucher& t, Other& other);

inline Clash note_read(Cell& cell, const Toucher& t, Other& other) {
  // Most often another lane of the warp has just read it.
  Cell::Reader& r = cell.reader;
  if (r.operation == t.id && r.block == t.block && t.clock && r.clock == (*t.clock)[t.warp] && !r.strong &&
      r.warps >> t.warp & 1 &&
      (cell.writer.operation != t.id || cell.writer.warp != t.warp || cell.writer.block != t.block)) {
    // What let another lane of this warp read it lets this one, unless a lane of the warp wrote it.
    if (r.lane != t.lane) r.lane = many_lanes;
    return Clash::none;
  }
  return note_first_read(cell, t, other);
}
/// `same_value`: the bytes do not change; two such writes are no race.
Clash note_write(Cell& cell, const Toucher& t, bool same_value, Other& other);

}  // namespace gpusim
