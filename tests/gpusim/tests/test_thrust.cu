// Thrust's reductions, scans and transformations.
#include <thrust/copy.h>
#include <thrust/count.h>
#include <thrust/device_vector.h>
#include <thrust/extrema.h>
#include <thrust/host_vector.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/transform.h>
#include <thrust/unique.h>
#include <numeric>

#include "gpusim/tests/library_support.h"

namespace {

struct Twice {
  __host__ __device__ int operator()(int x) const { return 2 * x; }
};
struct Odd {
  __host__ __device__ bool operator()(int x) const { return x % 2 != 0; }
};

template <class T>
std::vector<T> read(const thrust::device_vector<T>& from, size_t n) {
  std::vector<T> to(n);
  thrust::copy(from.begin(), from.begin() + n, to.begin());
  return to;
}

}  // namespace

TEST_CASE("thrust: reduce, count and max_element") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> x = numbers<int>(n, random, -1000, 1000);
    const thrust::device_vector<int> in(x.begin(), x.end());
    CHECK(thrust::reduce(in.begin(), in.end()) == std::accumulate(x.begin(), x.end(), 0));
    CHECK(thrust::count(in.begin(), in.end(), 3) == std::count(x.begin(), x.end(), 3));
    CHECK(thrust::max_element(in.begin(), in.end()) - in.begin() == std::max_element(x.begin(), x.end()) - x.begin());
  });
}

TEST_CASE("thrust: transform and inclusive_scan") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> x = numbers<int>(n, random, -1000, 1000);
    thrust::device_vector<int> data(x.begin(), x.end());
    std::vector<int> wanted(n);
    thrust::transform(data.begin(), data.end(), data.begin(), Twice{});
    std::transform(x.begin(), x.end(), wanted.begin(), Twice{});
    same(read(data, n), wanted);
    thrust::inclusive_scan(data.begin(), data.end(), data.begin());
    std::inclusive_scan(wanted.begin(), wanted.end(), wanted.begin());
    same(read(data, n), wanted);
  });
}

TEST_CASE("thrust: copy_if, unique and reduce_by_key") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    const std::vector<int> keys = runs(n, random), x = numbers<int>(n, random, -1000, 1000);
    thrust::device_vector<int> in(keys.begin(), keys.end()), values(x.begin(), x.end()), out(n), sums(n);
    std::vector<int> wanted;
    std::copy_if(x.begin(), x.end(), std::back_inserter(wanted), Odd{});
    const auto copied = thrust::copy_if(values.begin(), values.end(), out.begin(), Odd{}) - out.begin();
    REQUIRE(copied == static_cast<std::ptrdiff_t>(wanted.size()));
    same(read(out, wanted.size()), wanted);

    std::vector<int> unique, by_key;
    for (size_t i = 0; i < n; ++i) {
      if (unique.empty() || unique.back() != keys[i]) unique.push_back(keys[i]), by_key.push_back(0);
      by_key.back() += x[i];
    }
    const auto ends = thrust::reduce_by_key(in.begin(), in.end(), values.begin(), out.begin(), sums.begin());
    REQUIRE(ends.first - out.begin() == static_cast<std::ptrdiff_t>(unique.size()));
    REQUIRE(ends.second - sums.begin() == static_cast<std::ptrdiff_t>(unique.size()));
    same(read(out, unique.size()), unique);
    same(read(sums, unique.size()), by_key);
    const auto kept = thrust::unique(in.begin(), in.end()) - in.begin();
    REQUIRE(kept == static_cast<std::ptrdiff_t>(unique.size()));
    same(read(in, unique.size()), unique);
  });
}
