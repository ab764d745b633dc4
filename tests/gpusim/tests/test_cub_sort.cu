// CUB's radix sorts, histograms and reductions of segments.
#include <cub/device/device_histogram.cuh>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_segmented_reduce.cuh>
#include <numeric>

#include "gpusim/tests/library_support.h"

TEST_CASE("cub: DeviceRadixSort of keys") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    std::vector<float> x = numbers<float>(n, random, -1'000'000, 1'000'000);
    const OnDevice<float> in(x), out(n);
    with_workspace([&](void* w, size_t& b) { return cub::DeviceRadixSort::SortKeys(w, b, in.data(), out.data(), n); });
    same(in.read(), x);
    std::sort(x.begin(), x.end());
    same(out.read(), x);
  });
}

TEST_CASE("cub: DeviceRadixSort of pairs") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    // Keys that come again: equal ones must keep their order. The low 24 bits are not looked at.
    const std::vector<uint64_t> keys = numbers<uint64_t>(n, random, 0, int64_t{1} << 36);
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    const OnDevice<uint64_t> in(keys), out(n);
    const OnDevice<int> values(order), sorted(n);
    with_workspace([&](void* w, size_t& b) {
      return cub::DeviceRadixSort::SortPairs(w, b, in.data(), out.data(), values.data(), sorted.data(), n, 24, 64);
    });
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return keys[a] >> 24 < keys[b] >> 24; });
    same(sorted.read(), order);
    std::vector<uint64_t> wanted(n);
    for (size_t i = 0; i < n; ++i) wanted[i] = keys[order[i]];
    same(out.read(), wanted);
  });
}

TEST_CASE("cub: DeviceHistogram") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<float> x = numbers<float>(n, random, -20, 120);
    constexpr int bins = 25;
    std::vector<int> wanted(bins);
    for (float v : x)
      if (v >= 0 && v < 100) ++wanted[static_cast<size_t>(v / 4)];
    const OnDevice<float> in(x);
    const OnDevice<int> counts(bins);
    with_workspace([&](void* w, size_t& b) {
      return cub::DeviceHistogram::HistogramEven(w, b, in.data(), counts.data(), bins + 1, 0.f, 100.f,
                                                 static_cast<int>(n));
    });
    same(counts.read(), wanted);
  });
}

TEST_CASE("cub: DeviceSegmentedReduce") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> x = numbers<int>(n, random, -1000, 1000);
    constexpr int segments = 17;
    std::vector<int> ends = numbers<int>(segments + 1, random, 0, static_cast<int64_t>(n));
    std::sort(ends.begin(), ends.end());
    std::vector<int> wanted(segments);
    for (int s = 0; s < segments; ++s) wanted[s] = std::accumulate(x.begin() + ends[s], x.begin() + ends[s + 1], 0);
    const OnDevice<int> in(x), offsets(ends), sums(segments);
    with_workspace([&](void* w, size_t& b) {
      return cub::DeviceSegmentedReduce::Sum(w, b, in.data(), sums.data(), segments, offsets.data(),
                                             offsets.data() + 1);
    });
    same(sums.read(), wanted);
  });
}
