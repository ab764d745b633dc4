#pragma once
#include <fmt/format.h>

#include <bit>
#include <string>

#include "gpusim/machine/block.h"

namespace gpusim {

// What accesses to all spaces share.

/// f(lane) for the lanes in a mask.
template <class F>
inline void for_lanes(uint32_t mask, F&& f) {
  for (; mask; mask &= mask - 1) f(std::countr_zero(mask));
}

inline std::string bytes_text(uint32_t n) { return fmt::format("{} byte{}", n, n == 1 ? "" : "s"); }

/// Notes an access in the cells that it touches, lane by lane, `step` bytes a cell; on_clash(clash, lane, address,
/// other) for those that clash.
template <class CellAt, class OnClash>
void touch_cells(uint32_t lanes, const uint64_t* address, uint32_t bytes, uint32_t step, Touch touch, Toucher t,
                 CellAt&& cell_at, OnClash&& on_clash) {
  const Cell* previous = nullptr;
  for_lanes(lanes, [&](int l) {
    t.lane = l;
    for (uint32_t b = 0; b < bytes; b += step) {
      Cell& cell = cell_at(address[l] + b);
      if (touch == Touch::read && &cell == previous && cell.reader.operation == t.id &&
          !(cell.writer.operation == t.id && cell.writer.block == t.block && cell.writer.warp == t.warp)) {
        cell.reader.lane = many_lanes;  // what the lane before has just read
        continue;
      }
      previous = &cell;
      Other other;
      Clash clash = Clash::none;
      if (touch != Touch::write) clash = note_read(cell, t, other);
      if (touch != Touch::read) {
        const Clash written = note_write(cell, t, false, other);
        if (clash == Clash::none) clash = written;
      }
      if (clash != Clash::none) [[unlikely]]
        on_clash(clash, l, address[l] + b, other);
    }
  });
}

/// A struct copied through wider registers brings its padding along: true if what byte `at` of an access goes into was
/// written in part. `id`: that of the block whose shared memory it is.
inline bool padding(const Cell* cells, uint32_t shift, uint64_t begin, uint64_t at, uint32_t register_bytes,
                    uint32_t id) {
  const uint64_t first = begin + at / register_bytes * register_bytes;
  for (uint64_t b = first; b < first + register_bytes; b += uint64_t{1} << shift)
    if (const uint32_t by = cells[b >> shift].writer.operation; id ? by == id : by != 0) return true;
  return false;
}

inline const char* verb(Touch touch) {
  return touch == Touch::read ? "reads" : touch == Touch::write ? "writes" : "updates";
}

}  // namespace gpusim
