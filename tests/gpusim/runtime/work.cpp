#include "gpusim/runtime/work.h"

#include <algorithm>

#include "gpusim/machine/findings.h"
#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/state.h"
#include "gpusim/runtime/streams.h"

namespace gpusim {

namespace {

/// As with a GPU, whose queues are finite: the host waits a bit when so many works are queued.
constexpr size_t most_pending = 1024;

bool is_done(const std::shared_ptr<Work>& work) { return work->state == Work::State::done; }

bool is_ready(const Work& work) {
  return work.state == Work::State::waiting && std::all_of(work.after.begin(), work.after.end(), is_done);
}

void protect(State& s, const Work& work, bool on) {
  for (const auto& [address, bytes] : work.task.pinned) s.pinned.protect(address, bytes, on);
}

void run_task(Work& work, const Operation& now) {
  try {
    work.task.run(now);
  } catch (const Error& error) {
    Finding finding;
    finding.text = fmt::format("gpusim cannot do this: {}", error.what());
    finding.kernel = work.task.kind == Task::Kind::kernel ? work.task.name : "";
    report(std::move(finding));
    lose_context(work.device, cudaErrorNotSupported);
  }
}

void run(State& s, std::shared_ptr<Work> work) {
  work->state = Work::State::running;
  for (const auto& before : work->after) join(work->seen, before->seen);
  Device& device = device_of(s, work->device);
  if (work->task.run && device.lost == cudaSuccess) {
    const Operation now = next_operation(work->queue, work->seen, work->task.name);
    work->seen = now.seen;
    run_task(*work, now);
  }
  protect(s, *work, false);
  work->state = Work::State::done;
  work->after.clear();
  work->task.run = nullptr;
  join(device.done, work->seen);
  s.pending.erase(std::find(s.pending.begin(), s.pending.end(), work));
  s.changed.notify_all();
}

uint64_t random_number(State& s) {
  if (s.seed != options().seed) s.random.seed(s.seed = options().seed);
  return s.random();
}

/// All works that the targets stand after, themselves included.
std::set<const Work*> ancestors(const WorkList& targets) {
  std::set<const Work*> found;
  std::vector<const Work*> open;
  for (const auto& target : targets) open.push_back(target.get());
  while (!open.empty()) {
    const Work* work = open.back();
    open.pop_back();
    if (work->state == Work::State::done || !found.insert(work).second) continue;
    for (const auto& before : work->after) open.push_back(before.get());
  }
  return found;
}

/// The next work to run: the oldest, or with a seed any that may run now. Null if there is none.
std::shared_ptr<Work> choose(State& s, const std::set<const Work*>* only) {
  WorkList ready;
  for (const auto& work : s.pending) {
    if (!is_ready(*work) || (only && !only->contains(work.get()))) continue;
    if (options().seed == 0) return work;
    ready.push_back(work);
  }
  return ready.empty() ? nullptr : ready[random_number(s) % ready.size()];
}

}  // namespace

WorkList predecessors(const CUstream_st& stream) {
  State& s = state();
  Device& device = device_of(s, stream.device);
  WorkList works;
  const auto add = [&](const std::shared_ptr<Work>& work) {
    if (work) works.push_back(work);
  };
  add(stream.last);
  // The legacy stream and the blocking ones wait for each other.
  if (stream.kind == CUstream_st::Kind::legacy) {
    for (const CUstream_st* other : s.streams)
      if (other->device == stream.device && other->kind != CUstream_st::Kind::non_blocking) add(other->last);
    for (const auto& work : device.orphans) add(work);
  } else if (stream.kind != CUstream_st::Kind::non_blocking) {
    add(device.legacy.last);
  }
  return works;
}

std::shared_ptr<Work> submit(CUstream_st& stream, Task task, const WorkList& also) {
  State& s = state();
  if (stream.capture) {
    capture(stream, std::move(task));
    return nullptr;
  }
  check_legacy_use(s, stream);
  WorkList after = predecessors(stream);
  after.insert(after.end(), also.begin(), also.end());
  if (stream.kind == CUstream_st::Kind::legacy) device_of(s, stream.device).orphans.clear();
  return stream.last = submit(stream.device, stream.queue, std::move(task), std::move(after));
}

std::shared_ptr<Work> submit(int device, uint32_t queue, Task task, WorkList after) {
  State& s = state();
  while (s.pending.size() >= most_pending) {
    const size_t before = s.pending.size();
    step();
    if (s.pending.size() == before) break;  // another thread's host function is the next
  }
  auto work = std::make_shared<Work>(
      Work{.task = std::move(task), .device = device, .queue = queue, .after = std::move(after), .seen = s.host});
  protect(s, *work, true);
  s.pending.push_back(work);
  return work;
}

void wait_for(const WorkList& works) {
  State& s = state();
  // Sometimes only what has to run does, so that what nobody waited for comes late.
  const bool lazy = options().seed != 0 && random_number(s) % 2;
  const std::set<const Work*> needed = lazy ? ancestors(works) : std::set<const Work*>{};
  while (!std::all_of(works.begin(), works.end(), is_done)) {
    if (auto next = choose(s, lazy ? &needed : nullptr))
      run(s, std::move(next));
    else
      s.changed.wait(s.mutex);
  }
  for (const auto& work : works) join(s.host, work->seen);
}

void wait_for_device(int device) {
  State& s = state();
  WorkList works;
  for (const auto& work : s.pending)
    if (work->device == device) works.push_back(work);
  wait_for(works);
  join(s.host, device_of(s, device).done);
}

void step() {
  State& s = state();
  if (auto next = choose(s, nullptr)) run(s, std::move(next));
}

void drain() {
  State& s = state();
  for (const auto& work : s.pending)
    if (work->task.kind == Task::Kind::host) work->task.run = nullptr;
  while (auto next = choose(s, nullptr)) run(s, std::move(next));
}

uint32_t new_queue() {
  State& s = state();
  for (auto retired = s.retired_queues.begin(); retired != s.retired_queues.end(); ++retired) {
    const auto& [queue, last] = *retired;
    const auto reached = [queue = queue](const Clock& clock) { return queue < clock.size() ? clock[queue] : 0; };
    if (last && (!is_done(last) || reached(last->seen) > reached(s.host))) continue;
    const uint32_t again = queue;
    s.retired_queues.erase(retired);
    return again;
  }
  return s.queues++;
}

void retire_queue(uint32_t queue, std::shared_ptr<Work> last) {
  state().retired_queues.emplace_back(queue, std::move(last));
}

cudaError_t enqueue(cudaStream_t stream, std::string name, std::function<void(const Operation&)> work) {
  return call([&](State& s) {
    submit(stream_of(s, stream), {.kind = Task::Kind::kernel, .name = std::move(name), .run = std::move(work)});
  });
}

}  // namespace gpusim
