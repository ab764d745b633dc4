#pragma once
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gpusim/tests/runtime_support.h"

// What the tests of CUB and Thrust share: data on the device, sizes and seeds.

template <class T>
class OnDevice {
 public:
  explicit OnDevice(size_t count) : count_(count), data_(on_device<T>(count)) {}
  explicit OnDevice(const std::vector<T>& from) : OnDevice(from.size()) {
    ok(cudaMemcpy(data_, from.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* data() const { return data_; }
  std::vector<T> read(size_t count) const {
    REQUIRE(count <= count_);
    std::vector<T> to(count);
    ok(cudaMemcpy(to.data(), data_, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
  std::vector<T> read() const { return read(count_); }
  T first() const { return read(1)[0]; }

 private:
  size_t count_;
  T* data_;
};

/// Calls a device algorithm of CUB for the bytes it works in, and then with them.
template <class F>
void with_workspace(F&& algorithm) {
  size_t bytes = 0;
  ok(algorithm(nullptr, bytes));
  OnDevice<std::byte> workspace(bytes);
  ok(algorithm(workspace.data(), bytes));
}

/// CUB's merge of two runs in shared memory reads one key behind the last one of a tile, in a place that is there for
/// this and that nothing wrote, and drops it: SerialMerge loads the next key before it asks whether its run has one.
inline bool passed_over(const gpusim::Finding& finding) {
  return finding.what == gpusim::Finding::What::uninitialised_read &&
         finding.text.find("(block_merge_sort.cuh:") != std::string::npos;
}

/// f(number of elements, random numbers) for the sizes, in several orders of blocks and warps; nothing may be found.
template <class F>
void for_sizes_and_seeds(F&& f) {
  for (uint64_t seed : {0, 1, 2}) {
    Quiet quiet(seed);
    gpusim::take_findings();
    for (size_t n : {0, 1, 31, 33, 1000, 100'003}) {
      CAPTURE(seed);
      CAPTURE(n);
      std::mt19937_64 random(n + seed);
      f(n, random);
      ok(cudaDeviceSynchronize());
      for (const gpusim::Finding& finding : gpusim::take_findings())
        if (!passed_over(finding)) FAIL_CHECK(finding.text);
    }
  }
}

/// Numbers from [low, high], whole ones, so that sums of them are exact in any order.
template <class T>
std::vector<T> numbers(size_t n, std::mt19937_64& random, int64_t low, int64_t high) {
  std::uniform_int_distribution<int64_t> distribution(low, high);
  std::vector<T> x(n);
  for (T& v : x) v = static_cast<T>(distribution(random));
  return x;
}

/// Runs of equal numbers.
inline std::vector<int> runs(size_t n, std::mt19937_64& random) {
  std::vector<int> x(n);
  int v = 0;
  for (int& to : x) to = v += random() % 8 == 0;
  return x;
}

/// CHECK on whole vectors would print them.
template <class T>
void same(const std::vector<T>& have, const std::vector<T>& wanted) {
  REQUIRE(have.size() == wanted.size());
  const auto at = std::mismatch(have.begin(), have.end(), wanted.begin());
  INFO("at element " << at.first - have.begin());
  CHECK((at.first == have.end()));
}
