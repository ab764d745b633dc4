#pragma once
#include "gpusim/runtime/state.h"

namespace gpusim {

/// Adds a node to the graph that captures the stream.
void capture(CUstream_st& stream, Task task);

// What is not allowed during a capture invalidates it and is refused.

/// For calls that CUDA calls potentially unsafe: allocating, freeing, queries of events.
void check_unsafe_call(State& s);
/// For work in the legacy stream while blocking streams are captured.
void check_legacy_use(State& s, const CUstream_st& stream);
/// For calls that wait for a stream.
void check_not_capturing(const CUstream_st& stream);
/// For calls that wait for a whole device.
void check_no_capture(State& s, int device);

/// cudaStreamWaitEvent where the stream or the event takes part in a capture: forks and joins.
void wait_in_capture(State& s, CUstream_st& stream, CUevent_st& event);
/// Ends a capture without a graph: its streams are as before.
void abandon(Capture& capture);

[[noreturn]] void invalidate(Capture& capture, cudaError_t error);

}  // namespace gpusim
