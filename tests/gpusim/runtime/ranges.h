#pragma once
#include "gpusim/runtime/state.h"

namespace gpusim {

/// What an address is to a copy or a set.
struct Place {
  enum class Kind : uint8_t { pageable, registered, pinned, device };
  Kind kind = Kind::pageable;
  Memory* memory = nullptr;  ///< of pinned and device
  int device = -1;

  bool is_device() const { return kind == Kind::device; }
  bool is_host() const { return kind != Kind::device; }
};
Place place_of(State& s, const void* address);

/// Refuses, with a finding, if the range does not lie within one live allocation. Pageable memory is not looked at.
void check_range(const Place& place, const void* address, uint64_t bytes, std::string_view call);

}  // namespace gpusim
