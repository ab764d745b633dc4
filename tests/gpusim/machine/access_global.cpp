// Global and constant memory: allocations, who touched them, and the sectors of a request.
#include <bit>

#include "gpusim/machine/access.h"
#include "gpusim/machine/memory.h"

namespace gpusim {

using ptx::Space;

bool Block::locate_global(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                          const std::byte* values, std::byte** at) {
  uint32_t sectors = 0;
  const Toucher t{.operation = launch_.operation,
                  .id = launch_.operation->id,
                  .block = linear_,
                  .warp = w.index,
                  .site = s.site,
                  .strong = s.strong,
                  .clock = &w.clock,
                  .acquired = kernel_.hands_over ? &acquired_ : nullptr,
                  .acquired_reads = kernel_.hands_over ? &acquired_reads_ : nullptr};
  for (uint32_t rest = lanes; rest;) {
    const int first = std::countr_zero(rest);
    const uint64_t page_number = address[first] / page_bytes;
    uint32_t same = 0;
    for (int l = 0; l < warp_size; ++l) same |= uint32_t{address[l] / page_bytes == page_number} << l;
    same &= rest;
    rest &= ~same;
    Memory* const memory = memory_of(reinterpret_cast<void*>(address[first]));
    if (!memory) {
      find(Finding::What::out_of_bounds, w, s, first,
           fmt::format("{} {} at {:#x}, which is {}", verb(touch), bytes_text(bytes), address[first],
                       address[first] < page_bytes ? "the null pointer, or next to it"
                                                   : "no address of a device (of the host?)"),
           true, nullptr, address[first]);
      return false;
    }
    if (!memory->seen_by(kernel_.program->device())) {
      find(Finding::What::out_of_bounds, w, s, first,
           fmt::format("{} {} bytes at {} on another device, without cudaDeviceEnablePeerAccess", verb(touch), bytes,
                       memory->describe(address[first])),
           true, nullptr, address[first]);
      return false;
    }
    Page& page = memory->page(address[first]);
    page.lock();
    uint32_t wrong = 0;
    for (int l = 0; l < warp_size; ++l) wrong |= uint32_t{address[l] % page_bytes + bytes > page.bytes} << l;
    wrong &= same;
    if (page.state != Page::State::live) wrong = same;
    if (wrong) {
      const int l = std::countr_zero(wrong);
      const bool starts_inside = address[l] % page_bytes < page.bytes;
      const bool inside = address[l] % page_bytes + bytes <= page.bytes;
      const bool freed = page.state == Page::State::freed && inside;
      page.unlock();
      find(freed ? Finding::What::use_after_free : Finding::What::out_of_bounds, w, s, l,
           fmt::format("{} {} at {}{}", verb(touch), bytes_text(bytes), memory->describe(address[l]),
                       starts_inside && !inside ? ", which ends before that" : ""),
           true, nullptr, address[l]);
      return false;
    }
    // Constant memory is cached apart, and nobody writes it.
    const bool counts = s.space != Space::constant;
    if (running_.check_races || running_.check_initialised) {
      Cell* const cells = page.at_least(bytes);
      const uint32_t shift = page.shift;
      touch_cells(
          same, address, bytes, 1u << shift, touch, t,
          [&](uint64_t a) -> Cell& { return cells[a % page_bytes >> shift]; },
          [&](Clash clash, int l, uint64_t a, const Other& other) {
            if (clash == Clash::uninitialised && touch == Touch::read &&
                padding(cells, shift, address[l] % page_bytes, a - address[l], s.bytes, 0))
              return;
            page.unlock();
            if (matters(clash, w, a, 1u << shift, l, other, values, bytes, address))
              report_clash(clash, w, s, l, a, touch, other, memory->describe(a));
            page.lock();
          });
    }
    page.unlock();
    if (counts) {
      uint64_t touched[2] = {};
      for_lanes(same, [&](int l) {
        const uint32_t sector = static_cast<uint32_t>(address[l] % page_bytes / 32),
                       last = static_cast<uint32_t>((address[l] % page_bytes + bytes - 1) / 32);
        for (uint32_t k = sector; k <= last; ++k) touched[k / 64] |= uint64_t{1} << k % 64;
      });
      sectors += std::popcount(touched[0]) + std::popcount(touched[1]);
      SectorSet::Bits& bits = block_sectors_.at(page_number);
      for (int h = 0; h < 2; ++h) {
        if (touch != Touch::write) bits.read[h] |= touched[h];
        if (touch != Touch::read) bits.write[h] |= touched[h];
      }
    }
    for_lanes(same, [&](int l) { at[l] = memory->storage(reinterpret_cast<std::byte*>(address[l])); });
  }
  if (touch == Touch::read) {
    counters.global_load_requests += sectors != 0;
    counters.global_load_sectors += sectors;
  } else if (touch == Touch::write) {
    ++counters.global_store_requests;
    counters.global_store_sectors += sectors;
  } else {
    counters.atomics += std::popcount(lanes);
  }
  return true;
}

}  // namespace gpusim
