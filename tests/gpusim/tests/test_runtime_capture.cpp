#include <thread>

#include "gpusim/tests/runtime_support.h"

using gpusim::Finding;

namespace {

struct Graph {
  ~Graph() {
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
  }
  void end(cudaStream_t stream) {
    ok(cudaStreamEndCapture(stream, &graph));
    ok(cudaGraphInstantiate(&exec, graph, 0));
  }
  size_t nodes() const {
    size_t count = 0;
    ok(cudaGraphGetNodes(graph, nullptr, &count));
    return count;
  }
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
};

void begin(cudaStream_t stream, cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal) {
  ok(cudaStreamBeginCapture(stream, mode));
}

/// What the end of a capture answers; no graph comes of a failed one.
cudaError_t end(cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(stream, &graph);
  CHECK((graph == nullptr) == (error != cudaSuccess));
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
  return error;
}

}  // namespace

TEST_CASE("A capture runs nothing; each replay runs all of it") {
  for (const uint64_t seed : {0, 1, 2}) {
    Quiet quiet(seed);
    Stream stream;
    Log log;
    Graph graph;
    begin(stream);
    log.add(stream, 0);
    log.add(stream, 1);
    graph.end(stream);
    ok(cudaStreamSynchronize(stream));
    CHECK(log.numbers.empty());
    CHECK(graph.nodes() == 2);
    ok(cudaGraphLaunch(graph.exec, stream));
    log.add(stream, 2);
    ok(cudaGraphLaunch(graph.exec, stream));
    ok(cudaStreamSynchronize(stream));
    CHECK(log.numbers == std::vector{0, 1, 2, 0, 1});
  }
}

TEST_CASE("Forks and joins order the nodes, and nothing else does") {
  bool swapped = false, kept = false;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Quiet quiet(seed);
    Stream a, b;
    Event fork, join;
    Log log;
    Graph graph;
    begin(a);
    log.add(a, 0);
    ok(cudaEventRecord(fork, a));
    ok(cudaStreamWaitEvent(b, fork, 0));
    log.add(a, 1);
    log.add(b, 2);
    ok(cudaEventRecord(join, b));
    ok(cudaStreamWaitEvent(a, join, 0));
    log.add(a, 3);
    graph.end(a);
    cudaStreamCaptureStatus status;
    ok(cudaStreamIsCapturing(b, &status));
    CHECK(status == cudaStreamCaptureStatusNone);
    ok(cudaGraphLaunch(graph.exec, a));
    ok(cudaDeviceSynchronize());
    REQUIRE(log.numbers.size() == 4);
    CHECK(log.numbers[0] == 0);
    CHECK(log.numbers[3] == 3);
    (log.in_order(1, 2) ? kept : swapped) = true;
    size_t edges = 0;
    ok(cudaGraphGetEdges(graph.graph, nullptr, nullptr, nullptr, &edges));
    CHECK(edges == 4);
  }
  CHECK(swapped);
  CHECK(kept);
}

TEST_CASE("Branches of a graph that touch the same memory are found, at every replay the same way") {
  for (const uint64_t seed : {0, 1, 2}) {
    Quiet quiet(seed);
    Stream a, b;
    Event fork, join;
    int* device = on_device<int>(16);
    for (const bool apart : {true, false}) {
      Graph graph;
      begin(a);
      ok(cudaEventRecord(fork, a));
      ok(cudaStreamWaitEvent(b, fork, 0));
      ok(cudaMemsetAsync(device, 1, 32, a));
      ok(cudaMemsetAsync(apart ? device + 8 : device, 2, 32, b));
      ok(cudaEventRecord(join, b));
      ok(cudaStreamWaitEvent(a, join, 0));
      graph.end(a);
      for (int replay = 0; replay < 2; ++replay) {
        ok(cudaGraphLaunch(graph.exec, a));
        ok(cudaStreamSynchronize(a));
        CHECK((taken(Finding::What::unordered) == 0) == apart);
      }
      // Replays in two streams stand after one another.
      ok(cudaGraphLaunch(graph.exec, a));
      ok(cudaGraphLaunch(graph.exec, b));
      ok(cudaDeviceSynchronize());
      CHECK((taken(Finding::What::unordered) == 0) == apart);
    }
    ok(cudaFree(device));
  }
}

TEST_CASE("Replays of one graph stand after one another, whatever their streams") {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Quiet quiet(seed);
    Stream a, b;
    Log log;
    Graph graph;
    begin(a);
    log.add(a, 0);
    log.add(a, 1);
    graph.end(a);
    ok(cudaGraphLaunch(graph.exec, a));
    ok(cudaGraphLaunch(graph.exec, b));
    ok(cudaDeviceSynchronize());
    CHECK(log.numbers == std::vector{0, 1, 0, 1});
  }
}

TEST_CASE("A fork that does not come back ends the capture in an error") {
  Quiet quiet;
  Stream a, b;
  Event fork;
  begin(a);
  ok(cudaEventRecord(fork, a));
  ok(cudaStreamWaitEvent(b, fork, 0));
  CHECK(cudaStreamBeginCapture(b, cudaStreamCaptureModeGlobal) == cudaErrorIllegalState);
  ok(cudaLaunchHostFunc(
      b, [](void*) {}, nullptr));
  CHECK(end(a) == cudaErrorStreamCaptureUnjoined);
  ok(cudaStreamSynchronize(b));  // takes part in nothing any more
  begin(a);
  CHECK(end(b) == cudaErrorIllegalState);
  ok(cudaEventRecord(fork, a));
  ok(cudaStreamWaitEvent(b, fork, 0));
  CHECK(end(b) == cudaErrorStreamCaptureUnmatched);
  CHECK(end(a) == cudaErrorStreamCaptureInvalidated);
}

TEST_CASE("What waits for a capturing stream, or depends on it from outside, invalidates the capture") {
  Quiet quiet;
  Stream stream, other;
  Event event, outside;
  const auto broken_by = [&](auto&& action) {
    begin(stream);
    const cudaError_t error = action();
    CHECK(end(stream) == cudaErrorStreamCaptureInvalidated);
    return error;
  };
  CHECK(broken_by([&] { return cudaStreamSynchronize(stream); }) == cudaErrorStreamCaptureUnsupported);
  CHECK(broken_by([&] { return cudaStreamQuery(stream); }) == cudaErrorStreamCaptureUnsupported);
  CHECK(broken_by([&] { return cudaDeviceSynchronize(); }) == cudaErrorStreamCaptureUnsupported);
  void* memory = nullptr;
  CHECK(broken_by([&] { return cudaMalloc(&memory, 4); }) == cudaErrorStreamCaptureUnsupported);
  CHECK(broken_by([&] {
          ok(cudaEventRecord(event, stream));
          return cudaEventSynchronize(event);
        }) == cudaErrorCapturedEvent);
  ok(cudaEventRecord(outside, other));
  CHECK(broken_by([&] { return cudaStreamWaitEvent(stream, outside, 0); }) == cudaErrorStreamCaptureIsolation);
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) == cudaErrorStreamCaptureUnsupported);
  begin(stream);
  begin(other);
  ok(cudaEventRecord(event, other));
  CHECK(cudaStreamWaitEvent(stream, event, 0) == cudaErrorStreamCaptureMerge);
  CHECK(end(stream) == cudaErrorStreamCaptureInvalidated);
  CHECK(end(other) == cudaErrorStreamCaptureInvalidated);
}

TEST_CASE("The legacy stream is not to be used while a blocking stream is captured") {
  Quiet quiet;
  Stream blocking(cudaStreamDefault), free;
  int* device = on_device<int>(1);
  begin(blocking, cudaStreamCaptureModeRelaxed);
  CHECK(cudaMemsetAsync(device, 0, 4, nullptr) == cudaErrorStreamCaptureImplicit);
  CHECK(end(blocking) == cudaErrorStreamCaptureInvalidated);
  begin(free, cudaStreamCaptureModeRelaxed);
  ok(cudaMemsetAsync(device, 0, 4, nullptr));
  CHECK(end(free) == cudaSuccess);
  ok(cudaFree(device));
}

TEST_CASE("Modes say which threads may allocate during a capture") {
  Quiet quiet;
  Stream stream;
  const auto allocates = [] {
    void* memory = nullptr;
    return cudaMalloc(&memory, 4) == cudaSuccess;
  };
  const auto in_thread = [&](auto&& action) {
    bool result = false;
    std::thread([&] { result = action(); }).join();
    return result;
  };
  begin(stream, cudaStreamCaptureModeThreadLocal);
  CHECK(in_thread(allocates));
  CHECK(in_thread([&] {
    cudaGraph_t graph = nullptr;
    return cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureWrongThread;
  }));
  CHECK(end(stream) == cudaErrorStreamCaptureInvalidated);
  begin(stream, cudaStreamCaptureModeThreadLocal);
  CHECK(!allocates());
  end(stream);
  begin(stream, cudaStreamCaptureModeGlobal);
  CHECK(!in_thread(allocates));
  end(stream);
  begin(stream, cudaStreamCaptureModeRelaxed);
  CHECK(allocates());
  CHECK(in_thread([&] { return end(stream) == cudaSuccess; }));
  begin(stream, cudaStreamCaptureModeGlobal);
  auto mode = cudaStreamCaptureModeRelaxed;
  ok(cudaThreadExchangeStreamCaptureMode(&mode));
  CHECK(mode == cudaStreamCaptureModeGlobal);
  CHECK(allocates());
  ok(cudaThreadExchangeStreamCaptureMode(&mode));
  CHECK(end(stream) == cudaSuccess);
}

TEST_CASE("Copies of a graph read their source when it runs, and new ones take their place") {
  Quiet quiet;
  Stream stream;
  int* device = on_device<int>(1);
  int* host = pinned<int>(2);
  int result = 0;
  Graph first, second;
  begin(stream);
  ok(cudaMemcpyAsync(device, host, 4, cudaMemcpyHostToDevice, stream));
  first.end(stream);
  host[0] = 5;
  ok(cudaGraphLaunch(first.exec, stream));
  ok(cudaMemcpyAsync(&result, device, 4, cudaMemcpyDeviceToHost, stream));
  CHECK(result == 5);
  begin(stream);
  ok(cudaMemcpyAsync(device, host + 1, 4, cudaMemcpyHostToDevice, stream));
  second.end(stream);
  host[1] = 6;
  cudaGraphExecUpdateResultInfo info;
  ok(cudaGraphExecUpdate(first.exec, second.graph, &info));
  ok(cudaGraphLaunch(first.exec, stream));
  ok(cudaMemcpyAsync(&result, device, 4, cudaMemcpyDeviceToHost, stream));
  CHECK(result == 6);
  Graph other;
  begin(stream);
  ok(cudaMemsetAsync(device, 0, 4, stream));
  other.end(stream);
  CHECK(cudaGraphExecUpdate(first.exec, other.graph, &info) == cudaErrorGraphExecUpdateFailure);
  CHECK(info.result == cudaGraphExecUpdateErrorNodeTypeChanged);
  ok(cudaFree(device));
  ok(cudaFreeHost(host));
  cudaGetLastError();
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Graphs built by hand, with memory sets, host functions and cycles") {
  Quiet quiet(7);
  Stream stream;
  Graph graph;
  int* device = on_device<int>(4);
  std::vector<int> host(4);
  ok(cudaGraphCreate(&graph.graph, 0));
  cudaGraphNode_t set, copy, function;
  cudaMemsetParams parameters = {};
  parameters.dst = device;
  parameters.value = 0x01020304;
  parameters.elementSize = 4;
  parameters.width = 4;
  parameters.height = 1;
  ok(cudaGraphAddMemsetNode(&set, graph.graph, nullptr, 0, &parameters));
  ok(cudaGraphAddMemcpyNode1D(&copy, graph.graph, &set, 1, host.data(), device, 16, cudaMemcpyDeviceToHost));
  const cudaHostNodeParams add{[](void* data) { static_cast<int*>(data)[3] += 1; }, host.data()};
  ok(cudaGraphAddHostNode(&function, graph.graph, nullptr, 0, &add));
  ok(cudaGraphAddDependencies(graph.graph, &copy, &function, nullptr, 1));
  ok(cudaGraphInstantiate(&graph.exec, graph.graph, 0));
  ok(cudaGraphLaunch(graph.exec, stream));
  ok(cudaStreamSynchronize(stream));
  CHECK(host == std::vector{0x01020304, 0x01020304, 0x01020304, 0x01020305});
  cudaGraphNodeType type;
  ok(cudaGraphNodeGetType(copy, &type));
  CHECK(type == cudaGraphNodeTypeMemcpy);
  ok(cudaGraphAddDependencies(graph.graph, &function, &set, nullptr, 1));
  cudaGraphExec_t exec = nullptr;
  CHECK(cudaGraphInstantiate(&exec, graph.graph, 0) == cudaErrorInvalidValue);
  ok(cudaFree(device));
  cudaGetLastError();
}

TEST_CASE("A replay within a capture becomes a part of the new graph") {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Quiet quiet(seed);
    Stream stream;
    Log log;
    Graph inner, outer;
    begin(stream);
    log.add(stream, 1);
    log.add(stream, 2);
    inner.end(stream);
    begin(stream);
    log.add(stream, 0);
    ok(cudaGraphLaunch(inner.exec, stream));
    log.add(stream, 3);
    outer.end(stream);
    CHECK(outer.nodes() == 4);
    ok(cudaGraphLaunch(outer.exec, stream));
    ok(cudaStreamSynchronize(stream));
    CHECK(log.numbers == std::vector{0, 1, 2, 3});
  }
}

TEST_CASE("Allocation in stream order within a graph: the memory is the same, and empty, at each replay") {
  Quiet quiet;
  Stream stream;
  Graph graph;
  int* host = pinned<int>(1);
  void* memory = nullptr;
  begin(stream);
  ok(cudaMallocAsync(&memory, 8, stream));
  ok(cudaMemsetAsync(memory, 1, 4, stream));
  ok(cudaMemcpyAsync(host, memory, 4, cudaMemcpyDeviceToHost, stream));
  ok(cudaFreeAsync(memory, stream));
  graph.end(stream);
  for (int replay = 0; replay < 2; ++replay) {
    ok(cudaGraphLaunch(graph.exec, stream));
    ok(cudaStreamSynchronize(stream));
    CHECK(*host == 0x01010101);
  }
  CHECK(gpusim::take_findings().empty());
  ok(cudaFreeHost(host));
}
