#include "engine/rng.h"

#include <memory>

#include "engine/error.h"

namespace lightcone {

namespace {
// FNV-1a over the name, then mixed with the seed (splitmix64), so that neighbouring seeds have unrelated keys.
uint64_t stream_key(uint64_t seed, std::string_view name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (unsigned char c : name) h = (h ^ c) * 0x100000001b3ull;
  uint64_t z = h + seed * 0x9E3779B97F4A7C15ull + 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}
}  // namespace

Draw Rng::draw(std::string_view name, int64_t count) {
  auto it = streams_.find(name);
  if (it == streams_.end()) it = streams_.emplace(std::string(name), Stream{}).first;
  Stream& s = it->second;
  Draw draw{stream_key(seed_, name), s.position++, nullptr};
  if (s.recorded) {
    if (s.used + count > s.recorded->size())
      fail("rng", "stream '{}' was replaced by {} recorded numbers, {} are used and {} more are asked for", name,
           s.recorded->size(), s.used, count);
    draw.recorded =
        std::make_shared<std::vector<double>>(s.recorded->begin() + s.used, s.recorded->begin() + s.used + count);
    s.used += count;
  }
  return draw;
}

void Rng::replace(std::string_view name, std::vector<double> numbers) {
  Stream& s = streams_[std::string(name)];
  s.recorded = std::move(numbers);
  s.used = 0;
}

void Rng::restore(std::string_view name) {
  auto it = streams_.find(name);
  if (it != streams_.end()) it->second.recorded.reset();
}

std::map<std::string, uint64_t> Rng::positions() const {
  std::map<std::string, uint64_t> out;
  for (const auto& [name, s] : streams_) out[name] = s.position;
  return out;
}

void Rng::set_positions(const std::map<std::string, uint64_t>& positions) {
  for (const auto& [name, position] : positions) streams_[name].position = position;
}

}  // namespace lightcone
