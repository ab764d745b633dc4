#include <atomic>
#include <memory>
#include <set>
#include <thread>

#include "gpusim/tests/runtime_support.h"

using gpusim::Finding;

TEST_CASE("Nothing runs before something waits for it, then in the order of the stream") {
  for (const uint64_t seed : {0, 1, 2, 3, 4}) {
    Quiet quiet(seed);
    Stream stream;
    Log log;
    for (int i = 0; i < 10; ++i) log.add(stream, i);
    CHECK(log.numbers.empty());
    ok(cudaStreamSynchronize(stream));
    CHECK(log.numbers == std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  }
}

TEST_CASE("Streams that nothing orders run in every order") {
  std::set<std::vector<int>> seen;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Quiet quiet(seed);
    Stream a, b;
    Log log;
    log.add(a, 0);
    log.add(a, 1);
    log.add(b, 2);
    ok(cudaDeviceSynchronize());
    CHECK(log.in_order(0, 1));
    seen.insert(log.numbers);
  }
  CHECK(seen.size() == 3);
}

TEST_CASE("Waiting for a stream need not run what stands elsewhere") {
  bool late = false, early = false;
  for (uint64_t seed = 1; seed < 40; ++seed) {
    Quiet quiet(seed);
    Stream a, b;
    Log log;
    log.add(b, 1);
    log.add(a, 0);
    ok(cudaStreamSynchronize(a));
    (log.numbers.size() == 1 ? late : early) = true;
    ok(cudaDeviceSynchronize());
  }
  CHECK(late);
  CHECK(early);
}

TEST_CASE("Events order streams") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Quiet quiet(seed);
    Stream a, b;
    Event event;
    Log log;
    ok(cudaStreamWaitEvent(b, event, 0));  // never recorded: nothing to wait for
    log.add(a, 0);
    ok(cudaEventRecord(event, a));
    log.add(a, 1);
    ok(cudaStreamWaitEvent(b, event, 0));
    log.add(b, 2);
    ok(cudaStreamSynchronize(b));
    CHECK(log.in_order(0, 2));
  }
}

TEST_CASE("The legacy stream and blocking streams wait for each other; others do not") {
  bool overtaken = false;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Quiet quiet(seed);
    Stream blocking(cudaStreamDefault), second(cudaStreamDefault), free;
    Log log;
    log.add(blocking, 0);
    log.add(second, 1);
    log.add(free, 2);
    log.add(cudaStreamLegacy, 3);
    log.add(cudaStreamPerThread, 4);
    log.add(blocking, 5);
    log.add(nullptr, 6);
    ok(cudaDeviceSynchronize());
    for (const auto& [before, after] : {std::pair{0, 3}, {1, 3}, {3, 4}, {3, 5}, {4, 6}, {5, 6}})
      CHECK(log.in_order(before, after));
    overtaken |= log.in_order(3, 2);
  }
  CHECK(overtaken);
}

TEST_CASE("Works of a destroyed stream still run, and the legacy stream still waits for them") {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Quiet quiet(seed);
    Log log;
    cudaStream_t stream;
    ok(cudaStreamCreate(&stream));
    log.add(stream, 0);
    ok(cudaStreamDestroy(stream));
    log.add(nullptr, 1);
    ok(cudaStreamSynchronize(nullptr));
    CHECK(log.numbers == std::vector{0, 1});
    CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
    CHECK(taken(Finding::What::misuse) == 1);
    cudaGetLastError();
  }
}

TEST_CASE("Queries come to an end") {
  Quiet quiet;
  Stream stream;
  Event event;
  Log log;
  for (int i = 0; i < 5; ++i) log.add(stream, i);
  ok(cudaEventRecord(event, stream));
  CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
  CHECK(cudaEventQuery(event) == cudaErrorNotReady);
  int polls = 0;
  while (cudaEventQuery(event) == cudaErrorNotReady) ++polls;
  CHECK(polls > 0);
  CHECK(log.numbers.size() == 5);
  CHECK(cudaGetLastError() == cudaErrorNotReady);
}

TEST_CASE("Host functions may not call the runtime, and may wait for threads that do") {
  Quiet quiet;
  Stream stream;
  struct Seen {
    cudaError_t error = cudaSuccess;
    bool other = false;
  } seen;
  ok(cudaLaunchHostFunc(
      stream,
      [](void* data) {
        auto* of = static_cast<Seen*>(data);
        of->error = cudaDeviceSynchronize();
        std::thread([of] {
          void* memory = nullptr;
          of->other = cudaMalloc(&memory, 16) == cudaSuccess && cudaFreeAsync(memory, nullptr) == cudaSuccess;
        }).join();
      },
      &seen));
  ok(cudaStreamSynchronize(stream));
  CHECK(seen.error == cudaErrorNotPermitted);
  CHECK(seen.other);
  CHECK(cudaGetLastError() == cudaErrorNotPermitted);
}

TEST_CASE("Threads may use streams of their own at once") {
  Quiet quiet;
  std::atomic<int> run = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        cudaLaunchHostFunc(
            cudaStreamPerThread, [](void* data) { ++*static_cast<std::atomic<int>*>(data); }, &run);
        if (i % 10 == 9) cudaStreamSynchronize(cudaStreamPerThread);
      }
    });
  for (std::thread& thread : threads) thread.join();
  ok(cudaDeviceSynchronize());
  CHECK(run == 200);
}

TEST_CASE("Copies in two streams that nothing orders are found; an event, or the host's waiting, orders them") {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Quiet quiet(seed);
    Stream a, b;
    Event event;
    int* device = on_device<int>(16);
    int* host = pinned<int>(16);
    ok(cudaMemsetAsync(device, 0, 64, a));
    ok(cudaMemcpyAsync(host, device, 64, cudaMemcpyDeviceToHost, b));
    ok(cudaDeviceSynchronize());
    CHECK(!gpusim::take_findings().empty());

    ok(cudaMemsetAsync(device, 0, 64, a));
    ok(cudaEventRecord(event, a));
    ok(cudaStreamWaitEvent(b, event, 0));
    ok(cudaMemcpyAsync(host, device, 64, cudaMemcpyDeviceToHost, b));
    ok(cudaStreamSynchronize(b));
    ok(cudaMemsetAsync(device, 1, 64, a));
    ok(cudaDeviceSynchronize());
    CHECK(gpusim::take_findings().empty());
    ok(cudaFree(device));
    ok(cudaFreeHost(host));
  }
}

TEST_CASE("A number of a destroyed stream's queue orders nothing that was not ordered") {
  Quiet quiet;
  int* device = on_device<int>(4);
  std::vector<std::unique_ptr<Stream>> others;  // they take the numbers of earlier tests
  for (int i = 0; i < 200; ++i) others.push_back(std::make_unique<Stream>());
  cudaStream_t stream;
  ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  ok(cudaMemsetAsync(device, 0, 16, stream));
  ok(cudaStreamDestroy(stream));
  Stream next;  // nobody has waited for the first one
  ok(cudaMemsetAsync(device, 1, 16, next));
  ok(cudaDeviceSynchronize());
  CHECK(taken(Finding::What::unordered) == 1);
  Stream last;
  ok(cudaMemsetAsync(device, 2, 16, last));
  ok(cudaFree(device));
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Pageable memory: sources are taken at the call, targets are there when it returns") {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    Quiet quiet(seed);
    Stream stream;
    int* device = on_device<int>(1);
    int value = 1;
    ok(cudaMemcpyAsync(device, &value, 4, cudaMemcpyHostToDevice, stream));
    value = 2;
    ok(cudaMemcpyAsync(&value, device, 4, cudaMemcpyDeviceToHost, stream));
    CHECK(value == 1);
    ok(cudaFree(device));
  }
}

TEST_CASE("A host that touches pinned memory of a pending copy is found") {
  Quiet quiet;
  Stream stream;
  int* device = on_device<int>(1024);
  int* host = pinned<int>(1024);
  host[5] = 1;
  ok(cudaMemcpyAsync(device, host, 4096, cudaMemcpyHostToDevice, stream));
  CHECK(gpusim::take_findings().empty());
  host[5] = 2;
  CHECK(taken(Finding::What::host_access) == 1);
  ok(cudaStreamSynchronize(stream));
  host[5] = 3;
  CHECK(gpusim::take_findings().empty());
  ok(cudaFree(device));
  ok(cudaFreeHost(host));
}

TEST_CASE("A host that touches pinned memory beside that of a pending copy is not") {
  Quiet quiet;
  Stream stream;
  int* device = on_device<int>(4);
  int* host = pinned<int>(8);  // all in one page
  ok(cudaMemcpyAsync(host, device, 0, cudaMemcpyDeviceToHost, stream));
  ok(cudaMemsetAsync(device, 0, 16, stream));
  ok(cudaMemcpyAsync(host, device, 16, cudaMemcpyDeviceToHost, stream));
  host[4] = 1;
  ok(cudaStreamSynchronize(stream));
  CHECK(host[0] == 0);
  CHECK(gpusim::take_findings().empty());
  ok(cudaFree(device));
  ok(cudaFreeHost(host));
}

TEST_CASE("Elapsed time counts operations") {
  Quiet quiet;
  Stream stream;
  Event start, end;
  float milliseconds = 0;
  int* device = on_device<int>(1);
  ok(cudaEventRecord(start, stream));
  for (int i = 0; i < 7; ++i) ok(cudaMemsetAsync(device, i, 4, stream));
  ok(cudaEventRecord(end, stream));
  CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaErrorNotReady);
  ok(cudaEventSynchronize(end));
  ok(cudaEventElapsedTime(&milliseconds, start, end));
  CHECK(milliseconds == doctest::Approx(0.007));
  ok(cudaFree(device));
  cudaGetLastError();
}
