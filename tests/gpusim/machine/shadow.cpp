#include "gpusim/machine/shadow.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

namespace gpusim {

namespace {
Cell* allocate_cells(size_t n) {
  void* cells = std::calloc(n, sizeof(Cell));
  if (!cells) throw std::bad_alloc();
  return static_cast<Cell*>(cells);
}
}  // namespace

Cell* Page::at_least(uint32_t width) {
  const uint8_t wanted = width < 4 ? 0 : 2;
  if (!cells) {
    shift = wanted;
    cells = allocate_cells(page_bytes >> shift);
    if (written_by || read_by)
      for (uint32_t c = 0; c < page_bytes >> shift; ++c) {
        cells[c].writer.operation = written_by;
        cells[c].reader.operation = read_by;
        cells[c].writer.block = cells[c].reader.block = no_block;
      }
  } else if (shift > wanted) {
    Cell* finer = allocate_cells(page_bytes);
    for (uint32_t b = 0; b < page_bytes; ++b) finer[b] = cells[b >> shift];
    std::free(cells);
    cells = finer;
    shift = 0;
  }
  return cells;
}

void Page::drop_cells() {
  std::free(cells);
  cells = nullptr;
  shift = 2;
}

void Acquired::join(const Acquired& other) {
  for (const auto& [block, clock] : other.of) {
    WarpClock& mine = of[block];
    for (int w = 0; w < 32; ++w) mine[w] = std::max(mine[w], clock[w]);
  }
}

namespace {

// Whether an earlier access of this launch (or block) by (block, warp, lane) at `clock` is ordered before t.
bool ordered_within(const Toucher& t, const Acquired* acquired, uint32_t block, uint32_t warp, uint32_t lane,
                    uint32_t clock) {
  if (block == t.block) {
    if (warp == t.warp && lane == t.lane) return true;
    return (*t.clock)[warp] > clock;
  }
  return acquired && acquired->ordered(block, warp, clock);
}

Clash clash_with_writer(const Cell::Writer& w, const Toucher& t, Other& other) {
  Clash clash = Clash::none;
  if (w.operation == t.id) {
    if (w.block == no_block || (w.strong && t.strong) ||
        ordered_within(t, t.acquired, w.block, w.warp, w.lane, w.clock))
      return Clash::none;
    clash = Clash::race;
  } else {
    if (!t.operation || ordered(w.operation, *t.operation)) return Clash::none;
    clash = Clash::unordered;
  }
  other = {w.operation, w.block, w.site, w.warp, w.lane, true};
  return clash;
}

Clash clash_with_readers(const Cell::Reader& r, const Toucher& t, Other& other) {
  if (r.operation == 0) return Clash::none;
  Clash clash = Clash::none;
  uint32_t warp = std::countr_zero(r.warps | 1u << 31), lane = r.lane;
  if (r.operation == t.id) {
    if (r.block == no_block || (r.strong && t.strong)) return Clash::none;
    if (r.block == many_blocks) {
      // Which ones is not kept: a block that synchronised with others gets the benefit of the doubt.
      if (t.acquired_reads && !t.acquired_reads->of.empty()) return Clash::none;
      clash = Clash::race;
    } else {
      for (uint32_t rest = r.warps; rest; rest &= rest - 1) {
        const uint32_t v = std::countr_zero(rest);
        const bool same_warp = r.block == t.block && v == t.warp;
        const uint32_t by = same_warp && r.lane == many_lanes ? t.lane + 1 : r.lane;
        // Several lanes of this very warp read it; the clock is the last one's, which may be another warp's.
        if (!ordered_within(t, t.acquired_reads, r.block, v, same_warp ? by : many_lanes, r.clock)) {
          clash = Clash::race;
          warp = v;
          break;
        }
      }
    }
  } else if (t.operation && !ordered(r.operation, *t.operation)) {
    clash = Clash::unordered;
  }
  if (clash != Clash::none) other = {r.operation, r.block, r.site, warp, lane, false};
  return clash;
}

}  // namespace

Clash note_first_read(Cell& cell, const Toucher& t, Other& other) {
  // Shared memory: what an earlier block left there was never written by this one.
  if (cell.writer.operation == 0 || (!t.operation && cell.writer.operation != t.id)) return Clash::uninitialised;
  const Clash clash = clash_with_writer(cell.writer, t, other);
  Cell::Reader& r = cell.reader;
  const uint32_t now = t.clock ? (*t.clock)[t.warp] : 0, bit = 1u << t.warp;
  bool all_before = r.operation != t.id;
  if (!all_before && r.block == t.block && r.clock < now) {
    all_before = true;
    for (uint32_t rest = r.warps; rest && all_before; rest &= rest - 1)
      all_before = (*t.clock)[std::countr_zero(rest)] > r.clock;
  }
  if (all_before) {
    r = {t.id, t.block, now, bit, static_cast<uint16_t>(t.site), static_cast<uint8_t>(t.lane), t.strong};
  } else {
    if (r.block != t.block)
      r.block = many_blocks;
    else if (r.warps != bit || r.lane != t.lane)
      r.lane = many_lanes;
    r.warps |= bit;
    r.clock = std::max(r.clock, now);
    r.strong &= t.strong;
  }
  return clash;
}

Clash note_write(Cell& cell, const Toucher& t, bool same_value, Other& other) {
  Clash clash = Clash::none;
  if (t.operation || cell.writer.operation == t.id) {
    clash = clash_with_readers(cell.reader, t, other);
    if (clash == Clash::none && cell.writer.operation != 0) {
      clash = clash_with_writer(cell.writer, t, other);
      if (clash == Clash::race && same_value) clash = Clash::none;
    }
  }
  const uint32_t now = t.clock ? (*t.clock)[t.warp] : 0;
  cell.writer = {t.id,
                 t.block,
                 now,
                 static_cast<uint16_t>(t.site),
                 static_cast<uint8_t>(t.warp),
                 static_cast<uint8_t>(t.lane & 127),
                 t.strong};
  cell.reader.operation = 0;
  return clash;
}

}  // namespace gpusim
