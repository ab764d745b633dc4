#include "gpusim/runtime/capture.h"

#include <algorithm>

namespace gpusim {

namespace {

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

std::shared_ptr<Capture> shared(State& s, Capture& capture) {
  for (const auto& each : s.captures)
    if (each.get() == &capture) return each;
  return nullptr;
}

void check_valid(const Capture& capture) { require(!capture.invalid, cudaErrorStreamCaptureInvalidated); }

/// The stream stands after the event's nodes, too.
void add_tips(CUstream_st& stream, const std::vector<CUgraphNode_st*>& tips) {
  for (CUgraphNode_st* tip : tips)
    if (std::find(stream.tips.begin(), stream.tips.end(), tip) == stream.tips.end()) stream.tips.push_back(tip);
}

/// The nodes that these stand after, themselves included.
std::set<const CUgraphNode_st*> reached(const std::vector<CUgraphNode_st*>& tips) {
  std::set<const CUgraphNode_st*> found;
  std::vector<const CUgraphNode_st*> open(tips.begin(), tips.end());
  while (!open.empty()) {
    const CUgraphNode_st* node = open.back();
    open.pop_back();
    if (found.insert(node).second) open.insert(open.end(), node->after.begin(), node->after.end());
  }
  return found;
}

bool all_joined(const Capture& capture) {
  const auto joined = reached(capture.origin->tips);
  for (const CUstream_st* stream : capture.streams)
    for (const CUgraphNode_st* tip : stream->tips)
      if (!joined.contains(tip)) return false;
  return true;
}

void begin(State& s, cudaStream_t handle, cudaStreamCaptureMode mode, CUgraph_st* graph,
           std::vector<CUgraphNode_st*> tips) {
  require(mode <= cudaStreamCaptureModeRelaxed);
  require(handle != nullptr && handle != cudaStreamLegacy, cudaErrorStreamCaptureUnsupported);
  CUstream_st& stream = stream_of(s, handle);
  require(!stream.capture, cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->id = s.next_id++;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = &stream;
  capture->owns_graph = graph == nullptr;
  capture->graph = graph ? graph : new CUgraph_st;
  capture->streams.insert(&stream);
  stream.capture = capture;
  stream.tips = std::move(tips);
  s.captures.push_back(std::move(capture));
}

CUgraph_st* end(CUstream_st& stream) {
  require(stream.capture != nullptr, cudaErrorIllegalState);
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture->origin != &stream) invalidate(*capture, cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id())
    invalidate(*capture, cudaErrorStreamCaptureWrongThread);
  const bool joined = all_joined(*capture);
  const bool valid = !capture->invalid && joined;
  CUgraph_st* graph = capture->graph;
  if (!valid && capture->owns_graph) delete graph;
  abandon(*capture);
  require(joined, cudaErrorStreamCaptureUnjoined);
  require(valid, cudaErrorStreamCaptureInvalidated);
  return graph;
}

}  // namespace

void invalidate(Capture& capture, cudaError_t error) {
  capture.invalid = true;
  refuse(error);
}

void abandon(Capture& capture) {
  State& s = state();
  const std::shared_ptr<Capture> keep = shared(s, capture);
  for (CUstream_st* stream : capture.streams) {
    stream->capture = nullptr;
    stream->tips.clear();
  }
  capture.streams.clear();
  std::erase(s.captures, keep);
}

void capture(CUstream_st& stream, Task task) {
  check_valid(*stream.capture);
  CUgraph_st& graph = *stream.capture->graph;
  auto node = std::make_unique<CUgraphNode_st>(
      CUgraphNode_st{.graph = &graph, .task = std::move(task), .device = stream.device, .after = stream.tips});
  stream.tips = {node.get()};
  graph.nodes.push_back(std::move(node));
}

void wait_in_capture(State& s, CUstream_st& stream, CUevent_st& event) {
  const bool alive = event.capture && shared(s, *event.capture);
  if (!event.capture || !alive) {
    // Work from before the capture, or an event of one that has ended.
    if (stream.capture) invalidate(*stream.capture, cudaErrorStreamCaptureIsolation);
    refuse(cudaErrorCapturedEvent);
  }
  check_valid(*event.capture);
  if (stream.capture && stream.capture != event.capture) {
    event.capture->invalid = true;
    invalidate(*stream.capture, cudaErrorStreamCaptureMerge);
  }
  if (!stream.capture) {
    if (stream.kind == CUstream_st::Kind::legacy) invalidate(*event.capture, cudaErrorStreamCaptureImplicit);
    stream.capture = event.capture;
    stream.capture->streams.insert(&stream);
    stream.tips.clear();
  }
  add_tips(stream, event.tips);
}

void check_unsafe_call(State& s) {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return;
  for (const auto& capture : s.captures) {
    const bool own = capture->thread == std::this_thread::get_id() && capture->mode != cudaStreamCaptureModeRelaxed;
    const bool global = capture->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
    if (own || global) invalidate(*capture, cudaErrorStreamCaptureUnsupported);
  }
}

void check_legacy_use(State& s, const CUstream_st& stream) {
  if (stream.kind != CUstream_st::Kind::legacy) return;
  bool refused = false;
  for (const CUstream_st* other : s.streams)
    if (other->capture && other->device == stream.device && other->kind != CUstream_st::Kind::non_blocking)
      refused = other->capture->invalid = true;
  require(!refused, cudaErrorStreamCaptureImplicit);
}

void check_not_capturing(const CUstream_st& stream) {
  if (stream.capture) invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported);
}

void check_no_capture(State& s, int device) {
  bool refused = false;
  for (const auto& capture : s.captures)
    for (const CUstream_st* stream : capture->streams)
      if (stream->device == device) refused = capture->invalid = true;
  require(!refused, cudaErrorStreamCaptureUnsupported);
}

}  // namespace gpusim

using namespace gpusim;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call([&](State& s) { begin(s, stream, mode, nullptr, {}); });
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t* after,
                                          const cudaGraphEdgeData*, size_t count, cudaStreamCaptureMode mode) {
  return call([&](State& s) {
    require(graph && (after || count == 0));
    begin(s, stream, mode, graph, {after, after + count});
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call([&](State& s) {
    require(graph);
    *graph = nullptr;
    *graph = end(stream_of(s, stream));
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call([&](State& s) {
    require(status);
    const CUstream_st& of = stream_of(s, stream);
    check_legacy_use(s, of);
    *status = !of.capture           ? cudaStreamCaptureStatusNone
              : of.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
  });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** after, const cudaGraphEdgeData** edges,
                                     size_t* count) {
  return call([&](State& s) {
    require(status);
    const CUstream_st& of = stream_of(s, stream);
    check_legacy_use(s, of);
    *status = !of.capture           ? cudaStreamCaptureStatusNone
              : of.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
    if (*status != cudaStreamCaptureStatusActive) return;
    if (id) *id = of.capture->id;
    if (graph) *graph = of.capture->graph;
    if (after) *after = of.tips.data();
    if (edges) *edges = nullptr;
    if (count) *count = of.tips.size();
  });
}

cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t* after, const cudaGraphEdgeData*,
                                                size_t count, unsigned flags) {
  return call([&](State& s) {
    CUstream_st& of = stream_of(s, stream);
    require(of.capture != nullptr, cudaErrorIllegalState);
    check_valid(*of.capture);
    require(after || count == 0);
    if (flags == cudaStreamSetCaptureDependencies) of.tips.clear();
    add_tips(of, {after, after + count});
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return call([&](State&) {
    require(mode && *mode <= cudaStreamCaptureModeRelaxed);
    std::swap(thread_mode, *mode);
  });
}
}
