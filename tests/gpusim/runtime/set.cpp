#include <cstring>

#include "gpusim/runtime/ranges.h"

using namespace gpusim;

namespace {

struct Set {
  const char* call = "";
  void* to = nullptr;
  size_t pitch = 0;
  int value = 0;
  size_t width = 0, height = 1;
};

/// Sets are asynchronous for the host, except for those of pinned memory by the functions without a stream.
void set(State& s, const Set& set, CUstream_st& stream, bool blocking) {
  if (set.width == 0 || set.height == 0) return;
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
                std::memset(place.memory->storage(to), set.value, set.width);
              }
            }};
  if (place.kind == Place::Kind::pinned) task.pinned.emplace_back(set.to, extent);
  const auto work = submit(stream, std::move(task));
  if (work && blocking && place.kind == Place::Kind::pinned) wait_for({work});
}

}  // namespace

extern "C" {

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return call([&](State& s) { set(s, {"cudaMemset", to, 0, value, bytes}, stream_of(s, nullptr), true); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return call([&](State& s) { set(s, {"cudaMemsetAsync", to, 0, value, bytes}, stream_of(s, stream), false); });
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return call([&](State& s) {
    set(s, {"cudaMemset2D", to, pitch, value, width, height}, stream_of(s, nullptr), true);
  });
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return call([&](State& s) {
    set(s, {"cudaMemset2DAsync", to, pitch, value, width, height}, stream_of(s, stream), false);
  });
}
}
