// Shared memory: variables, who touched them, and banks.
#include <algorithm>
#include <bit>

#include "gpusim/machine/access.h"

namespace gpusim {

// An address of shared memory in words. One that is negative as 32 bits lies before the first variable.
std::string Block::describe_shared(uint64_t address) const {
  const std::string at = fmt::format("shared memory at {:#x}", address);
  if (shared_ranges_.empty()) return at + ", where the block has none";
  auto name = [&](const Kernel::Range& r) {
    const std::string full = demangled(r.name), scope = kernel_.info.name + "::";
    return full.starts_with(scope) ? full.substr(scope.size()) : full;
  };
  const int64_t place = address >> 32 ? static_cast<int64_t>(address) : static_cast<int32_t>(address);
  const Kernel::Range* range = &shared_ranges_[0];
  for (const Kernel::Range& r : shared_ranges_)
    if (r.begin <= place) range = &r;
  if (place < range->begin)
    return fmt::format("{}, {} bytes before the start of {}", at, range->begin - place, name(*range));
  if (place < range->end) return fmt::format("{} (byte {} of {})", at, place - range->begin, name(*range));
  const std::string behind =
      place == range->end ? "just at" : fmt::format("{} bytes behind", place - static_cast<int64_t>(range->end));
  return fmt::format("{}, {} the end of {}, which has {} bytes", at, behind, name(*range), range->end - range->begin);
}

bool Block::locate_shared(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                          const std::byte* values, std::byte** at) {
  const Kernel::Range* range = nullptr;
  uint32_t wrong = 0;
  for_lanes(lanes, [&](int l) {
    if (range && address[l] >= range->begin && address[l] + bytes <= range->end) return;
    for (const Kernel::Range& r : shared_ranges_)
      if (address[l] >= r.begin && address[l] + bytes <= r.end) {
        range = &r;
        return;
      }
    wrong |= 1u << l;
  });
  if (wrong) {
    const int l = std::countr_zero(wrong);
    find(Finding::What::out_of_bounds, w, s, l,
         fmt::format("{} {} of {}", verb(touch), bytes_text(bytes), describe_shared(address[l])), true, nullptr,
         address[l]);
    return false;
  }
  count_banks(lanes, address, bytes);
  if (running_.check_races || running_.check_initialised) {
    const Toucher t{
        .id = shared_id_, .block = linear_, .warp = w.index, .site = s.site, .strong = s.strong, .clock = &w.clock};
    const uint32_t shift = shared_shift_;
    touch_cells(
        lanes, address, bytes, 1u << shift, touch, t, [&](uint64_t a) -> Cell& { return shared_cells_[a >> shift]; },
        [&](Clash clash, int l, uint64_t a, const Other& other) {
          if (clash == Clash::uninitialised && touch == Touch::read &&
              padding(shared_cells_.data(), shift, address[l], a - address[l], s.bytes, shared_id_))
            return;
          if (matters(clash, w, a, 1u << shift, l, other, values, bytes, address))
            report_clash(clash, w, s, l, a, touch, other, describe_shared(a));
        });
  }
  for_lanes(lanes, [&](int l) { at[l] = shared_.data() + address[l]; });
  return true;
}

// Shared memory has 32 banks of 4 bytes. A request of 8 bytes a lane goes in halves of a warp, one of 16 in quarters;
// each part takes as many passes as the bank with the most different words.
void Block::count_banks(uint32_t lanes, const uint64_t* address, uint32_t bytes) {
  const uint32_t parts = bytes <= 4 ? 1 : bytes / 4, lanes_of_part = warp_size / parts;
  ++counters.shared_requests;
  for (uint32_t p = 0; p < parts; ++p) {
    uint32_t part = lanes_of_part == 32 ? lanes : lanes >> (p * lanes_of_part) & ((1u << lanes_of_part) - 1);
    if (!part) continue;
    // The different words of each bank, in a list through `before`.
    uint64_t words[warp_size];
    int8_t last[32], before[warp_size];
    uint8_t of_bank[32] = {};
    std::fill(last, last + 32, int8_t{-1});
    uint32_t passes = 1, n = 0;
    for_lanes(part, [&](int l) {
      const uint64_t first = address[p * lanes_of_part + l] / 4;
      for (uint64_t word = first; word < first + std::max(1u, bytes / 4); ++word) {
        const uint32_t bank = word % 32;
        int8_t k = last[bank];
        while (k >= 0 && words[k] != word) k = before[k];
        if (k >= 0 || n == warp_size) continue;
        words[n] = word;
        before[n] = last[bank];
        last[bank] = static_cast<int8_t>(n++);
        passes = std::max<uint32_t>(passes, ++of_bank[bank]);
      }
    });
    counters.shared_wavefronts += passes;
    counters.bank_conflicts += passes - 1;
  }
}

}  // namespace gpusim
