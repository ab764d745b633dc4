#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace gpusim {

/// For each queue (0 is the host, then one per stream) the number of its operations that are known to be done.
using Clock = std::vector<uint32_t>;
void join(Clock& clock, const Clock& other);

/// Something that reads or writes memory: a launch, a copy, a set, or the host's own access.
struct Operation {
  uint32_t id = 0;     ///< 0: nothing
  uint32_t queue = 0;  ///< where it stands
  uint32_t index = 0;  ///< its number in that queue, from 1
  Clock seen;          ///< everything ordered before it, itself included
};

// Operations are numbered for the whole process, so that memory can remember who touched it last.

/// The next operation of a queue; `seen` is what its stream and its launcher have waited for. `name` is for messages.
Operation next_operation(uint32_t queue, const Clock& seen, std::string name);
/// True if operation `id` is ordered before `now` (or is `now`).
bool ordered(uint32_t id, const Operation& now);
std::string name_of_operation(uint32_t id);

}  // namespace gpusim
