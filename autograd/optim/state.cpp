#include "autograd/optim/state.h"

#include <cmath>

namespace lightcone {

template <class T>
static T take(std::map<std::string, T>& entries, std::string_view where, const std::string& name) {
  auto node = entries.extract(name);
  if (node.empty()) fail(where, "the saved state has no {}; it belongs to another network or configuration", name);
  return std::move(node.mapped());
}

Tensor State::take_tensor(std::string_view where, const std::string& name) { return take(tensors, where, name); }
double State::take_number(std::string_view where, const std::string& name) { return take(numbers, where, name); }

int64_t State::take_count(std::string_view where, const std::string& name, int64_t most) {
  const double x = take_number(where, name);
  if (!(x >= 0 && x <= static_cast<double>(most) && x == std::floor(x)))
    fail(where, "{} is {} in the saved state, expected a count from 0 to {}", name, x, most);
  return static_cast<int64_t>(x);
}

void State::finish(std::string_view where) const {
  const std::string name = !tensors.empty()   ? tensors.begin()->first
                           : !numbers.empty() ? numbers.begin()->first
                                              : std::string();
  if (!name.empty()) fail(where, "the saved state has {}, which is unknown here; was it saved by another one?", name);
}

}  // namespace lightcone
