#include <algorithm>
#include <numeric>

#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/state.h"

using namespace gpusim;

namespace {

constexpr float milliseconds_per_operation = 0.001f;

void create(State& s, cudaEvent_t* event, unsigned flags) {
  require(event && (flags & ~unsigned{cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess}) == 0);
  *event = new CUevent_st{.device = device(s).number, .flags = flags};
  s.events.insert(*event);
}

void record(CUevent_st& event, CUstream_st& stream) {
  require(event.device == stream.device, cudaErrorInvalidResourceHandle);
  event.recorded = nullptr;
  event.capture = stream.capture;
  event.tips = stream.tips;
  if (!stream.capture)
    event.recorded = submit(stream, {.name = "cudaEventRecord"});
  else if (stream.capture->invalid)
    refuse(cudaErrorStreamCaptureInvalidated);
}

void check_not_captured(State& s, CUevent_st& event) {
  if (!event.capture) return;
  if (std::find(s.captures.begin(), s.captures.end(), event.capture) != s.captures.end())
    invalidate(*event.capture, cudaErrorCapturedEvent);
  refuse(cudaErrorCapturedEvent);
}

/// Nothing here is a time: what elapsed is the number of operations that stand before the end but not before the start,
/// so that programs which print or divide by times get some number, the same in every run.
uint64_t operations_before(const CUevent_st& event) {
  const Clock& seen = event.recorded->seen;
  return std::accumulate(seen.begin(), seen.end(), uint64_t{0});
}

}  // namespace

extern "C" {

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return call([&](State& s) { create(s, event, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&](State& s) { create(s, event, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call([&](State& s) {
    event_of(s, event);
    s.events.erase(event);
    delete event;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call([&](State& s) { record(event_of(s, event), stream_of(s, stream)); });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  return call([&](State& s) {
    if (flags != cudaEventRecordDefault) not_supported("cudaEventRecordWithFlags: events outside of the graph");
    record(event_of(s, event), stream_of(s, stream));
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return call([&](State& s) {
    if (flags != cudaEventWaitDefault) not_supported("cudaStreamWaitEvent: events outside of the graph");
    CUevent_st& by = event_of(s, event);
    CUstream_st& waiting = stream_of(s, stream);
    if (waiting.capture || by.capture)
      wait_in_capture(s, waiting, by);
    else if (by.recorded)
      submit(waiting, {.name = "cudaStreamWaitEvent"}, {by.recorded});
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call([&](State& s) {
    CUevent_st& of = event_of(s, event);
    check_not_captured(s, of);
    check_unsafe_call(s);
    if (!of.recorded) return;
    step();
    require(of.recorded->state == Work::State::done, cudaErrorNotReady);
    wait_for({of.recorded});
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call([&](State& s) {
    CUevent_st& of = event_of(s, event);
    check_not_captured(s, of);
    check_unsafe_call(s);
    if (of.recorded) wait_for({of.recorded});
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call([&](State& s) {
    require(milliseconds);
    const CUevent_st& from = event_of(s, start);
    const CUevent_st& to = event_of(s, end);
    require(from.device == to.device && from.recorded && to.recorded, cudaErrorInvalidResourceHandle);
    require(!((from.flags | to.flags) & cudaEventDisableTiming), cudaErrorInvalidResourceHandle);
    for (const CUevent_st* event : {&from, &to})
      require(event->recorded->state == Work::State::done, cudaErrorNotReady);
    const auto operations = static_cast<int64_t>(operations_before(to) - operations_before(from));
    *milliseconds = milliseconds_per_operation * static_cast<float>(std::max<int64_t>(operations, 1));
  });
}
}
