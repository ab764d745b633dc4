#include <cstring>

#include "gpusim/runtime/tasks.h"

using namespace gpusim;

namespace {

void fill(std::byte* at, const Set& set) {
  if (set.element == 1)
    std::memset(at, static_cast<int>(set.value), set.width);
  else
    for (size_t i = 0; i < set.width; i += set.element) std::memcpy(at + i, &set.value, set.element);
}

}  // namespace

namespace gpusim {

Task set_task(State& s, const Set& set) {
  require(set.to);
  if (set.height > 1) require(set.pitch >= set.width, cudaErrorInvalidPitchValue);
  const Place place = place_of(s, set.to);
  if (!place.memory)
    refuse(cudaErrorInvalidValue, Finding::What::misuse,
           fmt::format("{}: the address {} is of no device", set.call, set.to), set.to);
  const uint64_t extent = (set.height - 1) * set.pitch + set.width;
  check_range(place, set.to, extent, set.call);
  Task task{.kind = Task::Kind::set, .name = set.call, .run = [set, place](const Operation& now) {
              for (size_t row = 0; row < set.height; ++row) {
                std::byte* to = static_cast<std::byte*>(set.to) + row * set.pitch;
                if (!place.memory->note_write(to, set.width, now)) return;
                fill(place.memory->storage(to), set);
              }
            }};
  if (place.kind == Place::Kind::pinned) task.pinned.emplace_back(set.to, extent);
  return task;
}

}  // namespace gpusim

namespace {

unsigned byte(int value) { return static_cast<uint8_t>(value); }

/// Sets are asynchronous for the host, except for those of pinned memory by the functions without a stream.
void set(State& s, const Set& set, CUstream_st& stream, bool blocking) {
  if (set.width == 0 || set.height == 0) return;
  Task task = set_task(s, set);
  const bool of_host = !task.pinned.empty();
  const auto work = submit(stream, std::move(task));
  if (work && blocking && of_host) wait_for({work});
}

}  // namespace

extern "C" {

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return call([&](State& s) { set(s, {"cudaMemset", to, 0, byte(value), bytes}, stream_of(s, nullptr), true); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return call([&](State& s) { set(s, {"cudaMemsetAsync", to, 0, byte(value), bytes}, stream_of(s, stream), false); });
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return call([&](State& s) {
    set(s, {"cudaMemset2D", to, pitch, byte(value), width, height}, stream_of(s, nullptr), true);
  });
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return call([&](State& s) {
    set(s, {"cudaMemset2DAsync", to, pitch, byte(value), width, height}, stream_of(s, stream), false);
  });
}
}
