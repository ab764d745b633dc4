#pragma once
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "gpusim/report.h"

/// What a test of the runtime sets for its time: findings are not printed, and streams run in the order of a seed.
class Quiet {
 public:
  explicit Quiet(uint64_t seed = 0) : before_(gpusim::options()) {
    gpusim::options().print = false;
    gpusim::options().seed = seed;
  }
  ~Quiet() {
    cudaDeviceSynchronize();
    gpusim::options() = before_;
  }

 private:
  gpusim::Options before_;
};

inline void ok(cudaError_t error) {
  INFO(cudaGetErrorName(error));
  REQUIRE(error == cudaSuccess);
}

/// How many findings of a kind there are, and forgets them all.
inline size_t taken(gpusim::Finding::What what) {
  const auto findings = gpusim::take_findings();
  return static_cast<size_t>(
      std::count_if(findings.begin(), findings.end(), [&](const auto& finding) { return finding.what == what; }));
}

template <class T>
T* on_device(size_t count) {
  void* address = nullptr;
  ok(cudaMalloc(&address, count * sizeof(T)));
  return static_cast<T*>(address);
}

template <class T>
T* pinned(size_t count) {
  void* address = nullptr;
  ok(cudaMallocHost(&address, count * sizeof(T)));
  return static_cast<T*>(address);
}

/// Host functions write down their numbers as they run.
struct Log {
  std::vector<int> numbers;
  struct Entry {
    Log* log;
    int number;
  };
  std::vector<Entry> entries = std::vector<Entry>(100);

  ~Log() { cudaDeviceSynchronize(); }
  void add(cudaStream_t stream, int number) {
    Entry& entry = entries[static_cast<size_t>(number)] = {this, number};
    ok(cudaLaunchHostFunc(
        stream,
        [](void* data) {
          const auto* of = static_cast<Entry*>(data);
          of->log->numbers.push_back(of->number);
        },
        &entry));
  }
  bool in_order(int before, int after) const {
    return std::find(numbers.begin(), numbers.end(), before) < std::find(numbers.begin(), numbers.end(), after);
  }
};

struct Stream {
  explicit Stream(unsigned flags = cudaStreamNonBlocking) { ok(cudaStreamCreateWithFlags(&handle, flags)); }
  ~Stream() { cudaStreamDestroy(handle); }
  operator cudaStream_t() const { return handle; }
  cudaStream_t handle = nullptr;
};

struct Event {
  Event() { ok(cudaEventCreate(&handle)); }
  ~Event() { cudaEventDestroy(handle); }
  operator cudaEvent_t() const { return handle; }
  cudaEvent_t handle = nullptr;
};
