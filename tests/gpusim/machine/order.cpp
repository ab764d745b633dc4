// What blocks of one launch know of one another: a fence and a strong write hand over what is ordered before them; a strong
// read and a fence (or barrier) take it over. Kept per warp until then, per block after.
#include "gpusim/machine/block.h"

namespace gpusim {

void Block::fence(Warp& w, const Step& s) {
  if (!s.releases && !s.acquires) return;
  if (w.has_seen) {
    acquired_.join(w.seen);
    w.has_seen = false;
  }
  // What comes after it has a later clock and is not handed over.
  ++w.clock[w.index];
  w.released = acquired_;
  w.released.of[linear_] = w.clock;
  w.has_released = true;
}

// Before the write itself, so that whoever sees it finds this. What was handed over earlier by the same address stays: a
// reader may still be about to use it.
void Block::hand_over(Warp& w, uint64_t address) {
  if (!w.has_released) return;
  std::lock_guard lock(running_.handed_mutex);
  running_.handed[address].join(w.released);
}

// After the read itself.
void Block::take_over(Warp& w, uint64_t address, bool now) {
  std::lock_guard lock(running_.handed_mutex);
  const auto it = running_.handed.find(address);
  if (it == running_.handed.end()) return;
  if (now) {
    acquired_.join(it->second);
  } else {
    if (!w.has_seen) w.seen.of.clear();
    w.seen.join(it->second);
    w.has_seen = true;
  }
}

}  // namespace gpusim
