// CUB's reductions, scans and selections, which look back from block to block.
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_run_length_encode.cuh>
#include <cub/device/device_scan.cuh>
#include <cub/device/device_select.cuh>
#include <limits>
#include <numeric>

#include "gpusim/tests/library_support.h"

namespace {

struct Even {
  __host__ __device__ bool operator()(int x) const { return x % 2 == 0; }
};

}  // namespace

TEST_CASE("cub: DeviceReduce") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> x = numbers<int>(n, random, -1000, 1000);
    const OnDevice<int> in(x), sum(1);
    with_workspace([&](void* w, size_t& b) { return cub::DeviceReduce::Sum(w, b, in.data(), sum.data(), n); });
    CHECK(sum.first() == std::accumulate(x.begin(), x.end(), 0));

    const std::vector<float> y = numbers<float>(n, random, -1'000'000, 1'000'000);
    const OnDevice<float> values(y), extreme(1);
    with_workspace([&](void* w, size_t& b) { return cub::DeviceReduce::Min(w, b, values.data(), extreme.data(), n); });
    CHECK(extreme.first() == (n ? *std::min_element(y.begin(), y.end()) : std::numeric_limits<float>::max()));
    if (n == 0) return;
    const OnDevice<int64_t> index(1);
    with_workspace([&](void* w, size_t& b) {
      return cub::DeviceReduce::ArgMax(w, b, values.data(), extreme.data(), index.data(), static_cast<int64_t>(n));
    });
    const auto max = std::max_element(y.begin(), y.end());
    CHECK(extreme.first() == *max);
    CHECK(index.first() == max - y.begin());
  });
}

TEST_CASE("cub: DeviceScan") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> x = numbers<int>(n, random, -1000, 1000);
    std::vector<int> wanted(n);
    std::inclusive_scan(x.begin(), x.end(), wanted.begin());
    const OnDevice<int> in(x), out(n);
    with_workspace([&](void* w, size_t& b) { return cub::DeviceScan::InclusiveSum(w, b, in.data(), out.data(), n); });
    same(out.read(), wanted);

    // In place, and wider than a word: the value and its state are handed over in one access of 16 bytes.
    const std::vector<int64_t> y = numbers<int64_t>(n, random, -1'000'000'000'000, 1'000'000'000'000);
    std::vector<int64_t> before(n);
    std::exclusive_scan(y.begin(), y.end(), before.begin(), int64_t{0});
    const OnDevice<int64_t> wide(y);
    with_workspace(
        [&](void* w, size_t& b) { return cub::DeviceScan::ExclusiveSum(w, b, wide.data(), wide.data(), n); });
    same(wide.read(), before);
  });
}

TEST_CASE("cub: DeviceSelect") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> x = runs(n, random);
    const std::vector<char> f = numbers<char>(n, random, 0, 1);
    const OnDevice<int> in(x), out(n), count(1);
    const OnDevice<char> flags(f);
    auto check = [&](const std::vector<int>& wanted) {
      REQUIRE(count.first() == static_cast<int>(wanted.size()));
      same(out.read(wanted.size()), wanted);
    };
    with_workspace([&](void* w, size_t& b) {
      return cub::DeviceSelect::Flagged(w, b, in.data(), flags.data(), out.data(), count.data(), n);
    });
    std::vector<int> wanted;
    for (size_t i = 0; i < n; ++i)
      if (f[i]) wanted.push_back(x[i]);
    check(wanted);
    with_workspace([&](void* w, size_t& b) {
      return cub::DeviceSelect::If(w, b, in.data(), out.data(), count.data(), n, Even{});
    });
    wanted.clear();
    std::copy_if(x.begin(), x.end(), std::back_inserter(wanted), Even{});
    check(wanted);
    with_workspace(
        [&](void* w, size_t& b) { return cub::DeviceSelect::Unique(w, b, in.data(), out.data(), count.data(), n); });
    wanted.clear();
    std::unique_copy(x.begin(), x.end(), std::back_inserter(wanted));
    check(wanted);
  });
}

TEST_CASE("cub: DeviceRunLengthEncode") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> x = runs(n, random);
    std::vector<int> values, lengths;
    for (int v : x) {
      if (values.empty() || values.back() != v) values.push_back(v), lengths.push_back(0);
      ++lengths.back();
    }
    const OnDevice<int> in(x), out(n), counts(n), number(1);
    with_workspace([&](void* w, size_t& b) {
      return cub::DeviceRunLengthEncode::Encode(w, b, in.data(), out.data(), counts.data(), number.data(), n);
    });
    REQUIRE(number.first() == static_cast<int>(values.size()));
    same(out.read(values.size()), values);
    same(counts.read(values.size()), lengths);
  });
}
