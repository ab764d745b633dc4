#include "gpusim/machine/timeline.h"

#include <algorithm>
#include <deque>
#include <mutex>

namespace gpusim {

namespace {
struct Place {
  uint32_t queue = 0, index = 0;
  std::string name;
};
struct Table {
  std::mutex mutex;
  std::deque<Place> places{Place{}};  // by id; 0 is nothing
  std::vector<uint32_t> lengths;      // of each queue
};
Table& table() {
  static Table* t = new Table;  // outlives the destructors of a program's own statics, which may free memory
  return *t;
}
}  // namespace

void join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (size_t q = 0; q < other.size(); ++q) clock[q] = std::max(clock[q], other[q]);
}

Operation next_operation(uint32_t queue, const Clock& seen, std::string name) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  if (t.lengths.size() <= queue) t.lengths.resize(queue + 1);
  Operation now{static_cast<uint32_t>(t.places.size()), queue, ++t.lengths[queue], seen};
  if (now.seen.size() <= queue) now.seen.resize(queue + 1);
  now.seen[queue] = now.index;
  t.places.push_back({queue, now.index, std::move(name)});
  return now;
}

bool ordered(uint32_t id, const Operation& now) {
  if (id == 0 || id == now.id) return true;
  Table& t = table();
  std::lock_guard lock(t.mutex);
  const Place& before = t.places[id];
  return before.queue < now.seen.size() && now.seen[before.queue] >= before.index;
}

std::string name_of_operation(uint32_t id) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  return t.places[id].name;
}

}  // namespace gpusim
