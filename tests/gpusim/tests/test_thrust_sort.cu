// Thrust's sorts: by radix where the keys are numbers, by merging where a comparator is given.
#include <thrust/copy.h>
#include <thrust/device_vector.h>
#include <thrust/sort.h>
#include <numeric>

#include "gpusim/tests/library_support.h"

namespace {

struct LastDigits {
  __host__ __device__ bool operator()(int a, int b) const { return a % 1000 != b % 1000 ? a % 1000 < b % 1000 : a < b; }
};

template <class T>
std::vector<T> read(const thrust::device_vector<T>& from) {
  std::vector<T> to(from.size());
  thrust::copy(from.begin(), from.end(), to.begin());
  return to;
}

}  // namespace

TEST_CASE("thrust: sort") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    std::vector<int> x = numbers<int>(n, random, -1'000'000, 1'000'000);
    thrust::device_vector<int> data(x.begin(), x.end());
    thrust::sort(data.begin(), data.end());
    std::sort(x.begin(), x.end());
    same(read(data), x);
    thrust::sort(data.begin(), data.end(), LastDigits{});
    std::sort(x.begin(), x.end(), LastDigits{});
    same(read(data), x);
  });
}

TEST_CASE("thrust: sort_by_key") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    std::vector<int> keys(n), order(n);  // no key twice: sort_by_key may change the order of equal ones
    std::iota(keys.begin(), keys.end(), -1000);
    std::shuffle(keys.begin(), keys.end(), random);
    std::iota(order.begin(), order.end(), 0);
    thrust::device_vector<int> sorted(keys.begin(), keys.end()), values(order.begin(), order.end());
    thrust::sort_by_key(sorted.begin(), sorted.end(), values.begin());
    std::sort(order.begin(), order.end(), [&](int a, int b) { return keys[a] < keys[b]; });
    same(read(values), order);
    std::sort(keys.begin(), keys.end());
    same(read(sorted), keys);
  });
}
