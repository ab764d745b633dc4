// What blocks of one launch know of one another. A fence and then a strong write hand over everything that is ordered
// before them; a strong read and then a fence (or a barrier) take it over. A strong write alone hands over what was
// read before it: a block that waits for its value and then overwrites what the other one read does so too late to
// change it, since the value depends on what was read (in-place algorithms with a look-back rest on this).
#include <algorithm>

#include "gpusim/machine/block.h"

namespace gpusim {

void Block::fence(Warp& w, const Step& s) {
  if (!s.releases && !s.acquires) return;
  take_seen(w);
  // What comes after it has a later clock and is not handed over.
  ++w.clock[w.index];
  w.released = acquired_;
  w.released.of[linear_] = w.clock;
  w.has_released = true;
}

// What comes from another warp of this very block is for the warp alone that took it over: the others have not seen it.
void Block::acquire(Warp& w, const Acquired& what) {
  acquired_.join(what);
  const auto own = what.of.find(linear_);
  if (own == what.of.end()) return;
  for (uint32_t v = 0; v < w.clock.size(); ++v)
    if (v != w.index) w.clock[v] = std::max(w.clock[v], own->second[v]);
}

void Block::take_seen(Warp& w) {
  if (!w.has_seen) return;
  acquire(w, w.seen);
  w.has_seen = false;
}

// Before the bytes change, so that whoever sees them finds this, and after the write was noted. What was handed over earlier by the same address stays:
// a reader may still be about to use it.
void Block::hand_over(Warp& w, uint64_t address) {
  Acquired reads = acquired_reads_;
  WarpClock& mine = reads.of[linear_] = w.clock;
  ++mine[w.index];
  std::lock_guard lock(running_.handed_mutex);
  Running::Handed& handed = running_.handed[address];
  handed.reads.join(reads);
  if (!w.has_released) return;
  // The write itself goes along: whoever sees it comes after it. What follows has a later clock.
  w.released.of[linear_][w.index] = ++w.clock[w.index];
  handed.all.join(w.released);
}

// After the read itself. The caller holds handed_mutex.
void Block::take_over(Warp& w, uint64_t address, bool now) {
  const auto it = running_.handed.find(address);
  if (it == running_.handed.end()) return;
  acquired_reads_.join(it->second.reads);
  if (now) {
    acquire(w, it->second.all);
  } else {
    if (!w.has_seen) w.seen.of.clear();
    w.seen.join(it->second.all);
    w.has_seen = true;
  }
}

}  // namespace gpusim
