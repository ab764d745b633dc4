// Loads and stores: where the bytes are, and whether a lane may touch them.
#include <algorithm>
#include <bit>
#include <cstring>

#include "gpusim/machine/access.h"
#include "gpusim/machine/block.h"
#include "gpusim/machine/memory.h"

namespace gpusim {

using ptx::Space;

namespace {

// R is the register's type: a narrower M is extended as its signedness says.
template <class M, class R>
void load_lanes(uint32_t lanes, std::byte* const* at, uint32_t offset, R* to) {
  for_lanes(lanes, [&](int l) {
    M value;
    std::memcpy(&value, at[l] + offset, sizeof value);
    to[l] = static_cast<R>(value);
  });
}
template <class R>
void store_lanes(uint32_t lanes, std::byte* const* at, uint32_t offset, uint32_t bytes, const R* from) {
  for_lanes(lanes, [&](int l) { std::memcpy(at[l] + offset, &from[l], bytes); });
}

struct Bytes16 {
  uint64_t low, high;
};

void load_element(const Step& s, Lanes& w, uint32_t lanes, std::byte* const* at, uint32_t offset, Slot to) {
  auto into = [&](auto zero) {
    using R = decltype(zero);
    R* out = w.of<R>(to);
    switch (s.bytes) {
      case 1:
        return s.is_signed ? load_lanes<int8_t>(lanes, at, offset, out) : load_lanes<uint8_t>(lanes, at, offset, out);
      case 2:
        return s.is_signed ? load_lanes<int16_t>(lanes, at, offset, out) : load_lanes<uint16_t>(lanes, at, offset, out);
      case 4:
        return s.is_signed ? load_lanes<int32_t>(lanes, at, offset, out) : load_lanes<uint32_t>(lanes, at, offset, out);
      default:
        return load_lanes<uint64_t>(lanes, at, offset, out);
    }
  };
  switch (s.register_bytes) {
    case 1:
      return into(uint8_t{});
    case 2:
      return into(uint16_t{});
    case 4:
      return into(uint32_t{});
    case 8:
      return into(uint64_t{});
    default:
      return load_lanes<Bytes16>(lanes, at, offset, w.of<Bytes16>(to));
  }
}

void store_element(const Step& s, Lanes& w, uint32_t lanes, std::byte* const* at, uint32_t offset, Slot from) {
  switch (s.register_bytes) {
    case 1:
      return store_lanes(lanes, at, offset, s.bytes, w.of<uint8_t>(from));
    case 2:
      return store_lanes(lanes, at, offset, s.bytes, w.of<uint16_t>(from));
    case 4:
      return store_lanes(lanes, at, offset, s.bytes, w.of<uint32_t>(from));
    case 8:
      return store_lanes(lanes, at, offset, s.bytes, w.of<uint64_t>(from));
    default:
      return store_lanes(lanes, at, offset, s.bytes, w.of<Bytes16>(from));
  }
}

}  // namespace

void Block::addresses(const Warp& w, Slot base, uint8_t base_bytes, int64_t offset, uint64_t* to) const {
  if (base == no_slot)
    for (int l = 0; l < warp_size; ++l) to[l] = static_cast<uint64_t>(offset);
  else if (base_bytes == 8)
    for (int l = 0; l < warp_size; ++l) to[l] = w.lanes.of<uint64_t>(base)[l] + static_cast<uint64_t>(offset);
  else
    for (int l = 0; l < warp_size; ++l)
      to[l] = static_cast<uint32_t>(w.lanes.of<uint32_t>(base)[l] + static_cast<uint32_t>(offset));
}

void Block::load(Warp& w, const Step& s, uint32_t lanes) {
  uint64_t address[warp_size];
  std::byte* at[warp_size];
  addresses(w, s.base, s.base_bytes, s.offset, address);
  if (!locate(w, s, lanes, s.space, address, s.bytes * s.count, Touch::read, nullptr, at)) return;
  for (uint32_t e = 0; e < s.count; ++e)
    if (s.op.operands[e] != no_slot) load_element(s, w.lanes, lanes, at, e * s.bytes, s.op.operands[e]);
  if (s.strong && s.space != Space::shared) ++polls_;
  if (kernel_.hands_over && s.strong && s.space != Space::shared) {
    std::lock_guard lock(running_.handed_mutex);
    for_lanes(lanes, [&](int l) { take_over(w, address[l], s.acquires); });
  }
}

void Block::store(Warp& w, const Step& s, uint32_t lanes) {
  uint64_t address[warp_size];
  std::byte* at[warp_size];
  addresses(w, s.base, s.base_bytes, s.offset, address);
  // The bytes as they will be, for two lanes that write the same ones to one place.
  alignas(16) std::byte values[warp_size * 32];
  std::byte* to[warp_size];
  const uint32_t bytes = s.bytes * s.count;
  for (int l = 0; l < warp_size; ++l) to[l] = values + l * bytes;
  for (uint32_t e = 0; e < s.count; ++e) store_element(s, w.lanes, lanes, to, e * s.bytes, s.op.operands[e]);
  const bool hands = kernel_.hands_over && s.strong && s.space != Space::shared;
  if (hands && s.releases) fence(w, s);
  if (!locate(w, s, lanes, s.space, address, bytes, Touch::write, values, at)) return;
  if (hands) for_lanes(lanes, [&](int l) { hand_over(w, address[l]); });
  for_lanes(lanes, [&](int l) { std::memcpy(at[l], values + l * bytes, bytes); });
}

bool Block::locate(Warp& w, const Step& s, uint32_t lanes, Space space, const uint64_t* address, uint32_t bytes,
                   Touch touch, const std::byte* values, std::byte** at) {
  uint32_t crooked = 0;
  for (int l = 0; l < warp_size; ++l) crooked |= uint32_t{(address[l] & (bytes - 1)) != 0} << l;  // a power of two
  if (crooked &= lanes; crooked) {
    const int l = std::countr_zero(crooked);
    find(Finding::What::misaligned, w, s, l,
         fmt::format("{} {} bytes at {:#x}, which is no multiple of {}", verb(touch), bytes, address[l], bytes), true,
         nullptr, address[l]);
    return false;
  }
  switch (space) {
    case Space::shared:
      return locate_shared(w, s, lanes, address, bytes, touch, values, at);
    case Space::local:
      return locate_local(w, s, lanes, address, bytes, touch, at);
    case Space::param:
      return locate_param(w, s, lanes, address, bytes, touch, at);
    case Space::global:
    case Space::constant:
      return locate_global(w, s, lanes, address, bytes, touch, values, at);
    case Space::generic:
      break;
  }
  // A generic address tells its space by its window, lane by lane.
  constexpr Space of_window[] = {Space::global, Space::shared, Space::local, Space::param};
  for (uint32_t rest = lanes; rest;) {
    const uint64_t window = address[std::countr_zero(rest)] >> 60;
    uint32_t same = 0;
    for (int l = 0; l < warp_size; ++l) same |= uint32_t{address[l] >> 60 == window} << l;
    same &= rest;
    rest &= ~same;
    uint64_t inside[warp_size];
    // Above the windows there is nothing: what points there keeps its address, for the message.
    for (int l = 0; l < warp_size; ++l) inside[l] = window < 4 ? address[l] - (window << 60) : address[l];
    if (!locate(w, s, same, window < 4 ? of_window[window] : Space::global, inside, bytes, touch, values, at))
      return false;
  }
  return true;
}

void Block::report_clash(Clash clash, Warp& w, const Step& s, uint32_t lane, uint64_t address, Touch touch,
                         const Other& other, const std::string& place) {
  // The same pair of places again and again: once is enough.
  if (!known_.insert({static_cast<uint8_t>(clash), s.site, clash == Clash::race ? other.site : other.operation}).second)
    return;
  if (clash == Clash::uninitialised)
    return find(Finding::What::uninitialised_read, w, s, lane,
                fmt::format("{} {}, which nothing wrote", verb(touch), place), false, nullptr, address);
  if (clash == Clash::unordered)
    return find(Finding::What::unordered, w, s, lane,
                fmt::format("{} {}, which {} {}, and nothing orders the two: an event or a synchronisation is missing",
                            verb(touch), place, name_of_operation(other.operation), other.writes ? "wrote" : "read"),
                false, nullptr, address);
  const Site& site = kernel_.sites[other.site];
  const auto& grid = launch_.grid;
  std::string who = "other blocks";
  if (other.block != many_blocks) {
    const bool several = other.lane == many_lanes;
    const auto t = thread_of(warps_[other.warp], several ? 0 : other.lane);
    const std::string thread =
        fmt::format("{}({}, {}, {})", several ? "threads of the warp from " : "thread ", t[0], t[1], t[2]);
    who = other.block == linear_ ? thread
                                 : fmt::format("{} of block ({}, {}, {})", thread, other.block % grid[0],
                                               other.block / grid[0] % grid[1], other.block / grid[0] / grid[1]);
  }
  find(Finding::What::race, w, s, lane,
       fmt::format("{} {}, which {} {} at {}:{} ({}), and nothing orders the two", verb(touch), place, who,
                   other.writes ? "wrote" : "read", site.file, site.line, site.text),
       false, &site, address);
}

// Whether a clash is a finding: the check is on, and something changes. It does not where the bytes are there already,
// or where another lane of this very store brings them.
bool Block::matters(Clash clash, const Warp& w, uint64_t address, uint32_t n, uint32_t lane, const Other& other,
                    const std::byte* values, uint32_t bytes, const uint64_t* all) const {
  if (clash == Clash::uninitialised) return running_.check_initialised;
  if (!running_.check_races) return false;
  if (clash != Clash::race || !other.writes || !values) return true;
  const std::byte* value = values + lane * bytes + (address - all[lane]);
  if (other.block == linear_ && other.warp == w.index && other.lane != lane) {
    const uint64_t offset = address - all[other.lane];
    if (offset < bytes && std::memcmp(values + other.lane * bytes + offset, value, n) == 0) return false;
  }
  const std::byte* there =
      address < shared_.size()
          ? shared_.data() + address
          : memory_of(reinterpret_cast<void*>(address))->storage(reinterpret_cast<const std::byte*>(address));
  return std::memcmp(there, value, n) != 0;
}

bool Block::locate_local(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                         std::byte** at) {
  uint32_t wrong = 0;
  for_lanes(lanes, [&](int l) { wrong |= uint32_t{address[l] + bytes > kernel_.local_storage} << l; });
  if (wrong) {
    const int l = std::countr_zero(wrong);
    find(Finding::What::out_of_bounds, w, s, l,
         fmt::format("{} {} of local memory at {:#x}, of which a thread has {}", verb(touch), bytes_text(bytes),
                     address[l], kernel_.local_storage),
         true, nullptr, address[l]);
    return false;
  }
  counters.local_requests += s.kind == Kind::memory;
  for_lanes(lanes, [&](int l) {
    const size_t place = l * kernel_.local_storage + address[l];
    at[l] = w.local.data() + place;
    uint8_t* written = w.local_written.data() + place;
    if (touch == Touch::read && running_.check_initialised && std::find(written, written + bytes, 0) != written + bytes)
      report_clash(Clash::uninitialised, w, s, l, address[l], touch, {},
                   fmt::format("local memory at {:#x}", address[l]));
    if (touch != Touch::read) std::fill(written, written + bytes, 1);
  });
  return true;
}

bool Block::locate_param(Warp& w, const Step& s, uint32_t lanes, const uint64_t* address, uint32_t bytes, Touch touch,
                         std::byte** at) {
  uint32_t wrong = 0;
  for_lanes(lanes, [&](int l) { wrong |= uint32_t{address[l] + bytes > launch_.parameters.size()} << l; });
  if (wrong || touch != Touch::read) {
    const int l = std::countr_zero(wrong ? wrong : lanes);
    find(Finding::What::out_of_bounds, w, s, l,
         fmt::format("{} {} at {:#x} of the parameters, which have {}", verb(touch), bytes_text(bytes), address[l],
                     bytes_text(static_cast<uint32_t>(launch_.parameters.size()))),
         true);
    return false;
  }
  for_lanes(lanes, [&](int l) { at[l] = const_cast<std::byte*>(launch_.parameters.data()) + address[l]; });
  return true;
}

}  // namespace gpusim
