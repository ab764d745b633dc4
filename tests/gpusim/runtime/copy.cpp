#include "gpusim/runtime/copy.h"

#include <cstring>

#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/tasks.h"

namespace gpusim {

namespace {

struct Ends {
  Place to, from;
};

std::string_view name_of(const Place& place) {
  switch (place.kind) {
    case Place::Kind::device:
      return "device memory";
    case Place::Kind::pinned:
      return "pinned host memory";
    default:
      return "host memory";
  }
}

/// Pinned memory is seen by devices too, so it may stand for either.
void check_direction(const Copy& copy, const Ends& ends) {
  const bool to_host = copy.kind == cudaMemcpyHostToHost || copy.kind == cudaMemcpyDeviceToHost;
  const bool from_host = copy.kind == cudaMemcpyHostToHost || copy.kind == cudaMemcpyHostToDevice;
  const auto fits = [](const Place& place, bool host) {
    return place.kind == Place::Kind::pinned || place.is_host() == host;
  };
  require(copy.kind >= cudaMemcpyHostToHost && copy.kind <= cudaMemcpyDefault, cudaErrorInvalidMemcpyDirection);
  if (copy.kind == cudaMemcpyDefault) return;
  constexpr const char* kinds[] = {"cudaMemcpyHostToHost", "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost",
                                   "cudaMemcpyDeviceToDevice"};
  if (!fits(ends.to, to_host) || !fits(ends.from, from_host))
    refuse(cudaErrorInvalidValue, Finding::What::misuse,
           fmt::format("{}: {} from {} to {}", copy.call, kinds[copy.kind], name_of(ends.from), name_of(ends.to)),
           fits(ends.to, to_host) ? copy.from : copy.to);
}

/// From the first byte of the first row to the last of the last.
uint64_t extent(size_t pitch, size_t width, size_t height) { return (height - 1) * pitch + width; }

Ends check(State& s, const Copy& copy) {
  require(copy.to && copy.from);
  if (copy.height > 1)
    require(copy.to_pitch >= copy.width && copy.from_pitch >= copy.width, cudaErrorInvalidPitchValue);
  const Ends ends{place_of(s, copy.to), place_of(s, copy.from)};
  check_direction(copy, ends);
  check_range(ends.to, copy.to, extent(copy.to_pitch, copy.width, copy.height), copy.call);
  check_range(ends.from, copy.from, extent(copy.from_pitch, copy.width, copy.height), copy.call);
  return ends;
}

/// One row: checked as a kernel's access is, and moved.
void move_row(const Ends& ends, void* to, const void* from, size_t bytes, const Operation& now) {
  if (ends.to.memory && ends.from.memory && ends.to.is_device() && ends.from.is_device()) {
    if (!ends.to.memory->note_copy(to, *ends.from.memory, from, bytes, now)) return;
  } else {
    if (ends.from.memory && !ends.from.memory->note_read(from, bytes, now)) return;
    if (ends.to.memory && !ends.to.memory->note_write(to, bytes, now)) return;
  }
  void* target = ends.to.memory ? ends.to.memory->storage(static_cast<std::byte*>(to)) : to;
  const void* source = ends.from.memory ? ends.from.memory->storage(static_cast<const std::byte*>(from)) : from;
  std::memmove(target, source, bytes);
}

void move(const Copy& copy, const Ends& ends, const Operation& now) {
  for (size_t row = 0; row < copy.height; ++row)
    move_row(ends, static_cast<std::byte*>(copy.to) + row * copy.to_pitch,
             static_cast<const std::byte*>(copy.from) + row * copy.from_pitch, copy.width, now);
}

/// The bytes of a pageable source, row after row, as they are now.
std::vector<std::byte> staged(const Copy& copy) {
  std::vector<std::byte> bytes(copy.width * copy.height);
  for (size_t row = 0; row < copy.height; ++row)
    std::memcpy(bytes.data() + row * copy.width, static_cast<const std::byte*>(copy.from) + row * copy.from_pitch,
                copy.width);
  return bytes;
}

Task task_of(const Copy& copy, const Ends& ends, bool stage) {
  Task task{.kind = Task::Kind::copy, .name = copy.call};
  if (ends.to.kind == Place::Kind::pinned)
    task.pinned.emplace_back(copy.to, extent(copy.to_pitch, copy.width, copy.height));
  if (ends.from.kind == Place::Kind::pinned)
    task.pinned.emplace_back(copy.from, extent(copy.from_pitch, copy.width, copy.height));
  if (stage) {
    task.run = [staged_copy = copy, ends, bytes = staged(copy)](const Operation& now) mutable {
      staged_copy.from = bytes.data();
      staged_copy.from_pitch = staged_copy.width;
      move(staged_copy, ends, now);
    };
  } else {
    task.run = [copy, ends](const Operation& now) { move(copy, ends, now); };
  }
  return task;
}

}  // namespace

Task copy_task(State& s, const Copy& copy, bool stage) { return task_of(copy, check(s, copy), stage); }

namespace {

bool is_pageable(const Place& place) { return place.kind == Place::Kind::pageable; }

}  // namespace

void copy_async(State& s, const Copy& copy, CUstream_st& stream, const WorkList& also) {
  if (copy.width == 0 || copy.height == 0) return;
  const Ends ends = check(s, copy);
  const bool host_to_host = ends.to.is_host() && ends.from.is_host();
  // A captured copy reads its source when the graph runs.
  const bool stage = is_pageable(ends.from) && !host_to_host && !stream.capture;
  auto work = submit(stream, task_of(copy, ends, stage), also);
  if (work && (is_pageable(ends.to) || host_to_host)) wait_for({work});
}

void copy_blocking(State& s, const Copy& copy, CUstream_st& stream, const WorkList& also) {
  check_unsafe_call(s);
  if (copy.width == 0 || copy.height == 0) return;
  const Ends ends = check(s, copy);
  const bool stage = is_pageable(ends.from) && ends.to.is_device();
  if (stage) {
    check_legacy_use(s, stream);
    wait_for(predecessors(stream));
  }
  auto work = submit(stream, task_of(copy, ends, stage), also);
  if (work && !stage && (ends.to.is_host() || ends.from.is_host())) wait_for({work});
}

}  // namespace gpusim
