#include "gpusim/runtime/ranges.h"

namespace gpusim {

Place place_of(State& s, const void* address) {
  for (Device& device : s.devices)
    if (device.memory.contains(address)) return {Place::Kind::device, &device.memory, device.number};
  if (s.pinned.contains(address)) return {Place::Kind::pinned, &s.pinned};
  const auto number = reinterpret_cast<uint64_t>(address);
  auto behind = s.registered.upper_bound(number);
  if (behind != s.registered.begin() && number < std::prev(behind)->first + std::prev(behind)->second)
    return {Place::Kind::registered};
  return {};
}

void check_range(const Place& place, const void* address, uint64_t bytes, std::string_view call) {
  if (!place.memory || bytes == 0) return;
  const auto start = reinterpret_cast<uint64_t>(address);
  const auto allocation = place.memory->find(address);
  if (!allocation)
    refuse(cudaErrorInvalidValue, Finding::What::out_of_bounds,
           fmt::format("{}: {} bytes at {:#x}, where nothing was ever allocated", call, bytes, start), address);
  const uint64_t offset = start - allocation->address;
  if (allocation->freed_by)
    refuse(cudaErrorInvalidValue, Finding::What::use_after_free,
           fmt::format("{}: {} bytes at {:#x}, {} bytes into an allocation ({}, {} bytes) that {} freed", call, bytes,
                       start, offset, allocation->name, allocation->bytes, name_of_operation(allocation->freed_by)),
           address);
  if (offset > allocation->bytes || bytes > allocation->bytes - offset)
    refuse(cudaErrorInvalidValue, Finding::What::out_of_bounds,
           fmt::format("{}: {} bytes at {:#x}, {} bytes into an allocation ({}) of {} bytes", call, bytes, start,
                       offset, allocation->name, allocation->bytes),
           address);
}

}  // namespace gpusim
