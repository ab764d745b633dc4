#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpusim/machine/timeline.h"

struct CUstream_st;

namespace gpusim {

/// Something to do on a device, in a stream or in a graph.
struct Task {
  enum class Kind : uint8_t { mark, kernel, copy, set, host, allocate, free };
  Kind kind = Kind::mark;  ///< a mark does nothing: it only stands after others
  std::string name;
  std::function<void(const Operation&)> run = {};
  /// Pinned memory that the host must not touch until this is done.
  std::vector<std::pair<const void*, uint64_t>> pinned = {};
};

/// A task that was queued, with what has to be done before it.
struct Work {
  enum class State : uint8_t { waiting, running, done };
  Task task;
  int device = 0;
  uint32_t queue = 0;
  State state = State::waiting;
  std::vector<std::shared_ptr<Work>> after;
  /// First what the host had waited for when it queued the work; when done, all that is ordered up to it.
  Clock seen;
};
using WorkList = std::vector<std::shared_ptr<Work>>;

// The lock of the runtime is held in all of these; it is given up while a host function runs.

/// What the next work of a stream has to wait for.
WorkList predecessors(const CUstream_st& stream);
/// Adds a task to a stream, or to the graph that captures it (then the answer is null). `also` has to be done before.
std::shared_ptr<Work> submit(CUstream_st& stream, Task task, const WorkList& also = {});
/// Adds a task that stands in no stream.
std::shared_ptr<Work> submit(int device, uint32_t queue, Task task, WorkList after);
/// Runs works, in an order of options().seed's choice, until all of these are done; the host has then waited for them.
void wait_for(const WorkList& works);
void wait_for_device(int device);
/// Lets a bit of time pass: one work is run, if there is any.
void step();
/// Runs all that is left, but no host functions: the program is about to end.
void drain();

/// Queue numbers of the timeline. A number is given again only if the host has waited for all that stood there, so that
/// its next user is ordered after that anyway.
uint32_t new_queue();
void retire_queue(uint32_t queue, std::shared_ptr<Work> last);

}  // namespace gpusim
