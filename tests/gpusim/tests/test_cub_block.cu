// CUB's algorithms of a block and of a warp.
#include <cub/block/block_load.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/block/block_store.cuh>
#include <cub/warp/warp_reduce.cuh>
#include <cub/warp/warp_scan.cuh>
#include <numeric>

#include "gpusim/tests/library_support.h"

namespace {

constexpr int threads = 128, items = 4, tile = threads * items;
constexpr int padding = 1 << 30;  // sorts behind everything

template <class F>
__device__ void for_tile(F&& f) {
  for (int i = 0; i < items; ++i) f(i);
}

// Each block's sum, by warps and by a tree in shared memory.
__global__ void reduce_tiles(const int* in, int n, int* sums) {
  using ByWarps = cub::BlockReduce<int, threads, cub::BLOCK_REDUCE_WARP_REDUCTIONS>;
  using ByRaking = cub::BlockReduce<int, threads, cub::BLOCK_REDUCE_RAKING>;
  __shared__ union {
    typename ByWarps::TempStorage warps;
    typename ByRaking::TempStorage raking;
  } shared;
  const int begin = blockIdx.x * threads, i = begin + threadIdx.x;
  const int a = ByWarps(shared.warps).Sum(i < n ? in[i] : 0, min(threads, n - begin));
  __syncthreads();
  const int b = ByRaking(shared.raking).Sum(i < n ? in[i] : 0);
  if (threadIdx.x == 0) sums[2 * blockIdx.x] = a, sums[2 * blockIdx.x + 1] = b;
}

template <cub::BlockLoadAlgorithm by_load, cub::BlockStoreAlgorithm by_store, cub::BlockScanAlgorithm by_scan>
__global__ void scan_tiles(const int* in, int n, int* out) {
  using Load = cub::BlockLoad<int, threads, items, by_load>;
  using Store = cub::BlockStore<int, threads, items, by_store>;
  using Scan = cub::BlockScan<int, threads, by_scan>;
  __shared__ union {
    typename Load::TempStorage load;
    typename Store::TempStorage store;
    typename Scan::TempStorage scan;
  } shared;
  int x[items];
  const int begin = blockIdx.x * tile, valid = min(tile, n - begin);
  Load(shared.load).Load(in + begin, x, valid, 0);
  __syncthreads();
  Scan(shared.scan).InclusiveSum(x, x);
  __syncthreads();
  Store(shared.store).Store(out + begin, x, valid);
}

__global__ void sort_tiles(const int* in, int n, int* out, int* places) {
  using Sort = cub::BlockRadixSort<int, threads, items, int>;
  __shared__ typename Sort::TempStorage shared;
  int x[items], place[items];
  const int begin = blockIdx.x * tile;
  for_tile([&](int i) {
    place[i] = begin + threadIdx.x * items + i;
    x[i] = place[i] < n ? in[place[i]] : padding;
  });
  Sort(shared).Sort(x, place);
  for_tile([&](int i) {
    const int to = begin + threadIdx.x * items + i;
    if (to < n) out[to] = x[i], places[to] = place[i];
  });
}

// Logical warps of 8 lanes, reduced and scanned.
__global__ void scan_eights(const int* in, int n, int* sums, int* maxima) {
  using Reduce = cub::WarpReduce<int, 8>;
  using Scan = cub::WarpScan<int, 8>;
  __shared__ union {
    typename Reduce::TempStorage reduce;
    typename Scan::TempStorage scan;
  } shared[threads / 8];
  const int i = blockIdx.x * threads + threadIdx.x, x = i < n ? in[i] : 0;
  const int max = Reduce(shared[threadIdx.x / 8].reduce).Reduce(x, cuda::maximum<>{});
  __syncwarp();
  int sum;
  Scan(shared[threadIdx.x / 8].scan).ExclusiveSum(x, sum);
  if (i < n) {
    sums[i] = sum;
    if (i % 8 == 0) maxima[i / 8] = max;
  }
}

int blocks(size_t n, int of) { return static_cast<int>((n + of - 1) / of); }

// f(begin, end) for parts of n.
template <class F>
void for_parts(size_t n, size_t part, F&& f) {
  for (size_t begin = 0; begin < n; begin += part) f(begin, std::min(n, begin + part));
}

}  // namespace

TEST_CASE("cub: BlockReduce") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    if (n == 0) return;
    const std::vector<int> x = numbers<int>(n, random, -1000, 1000);
    std::vector<int> wanted;
    for_parts(n, threads, [&](size_t b, size_t e) {
      wanted.insert(wanted.end(), 2, std::accumulate(x.begin() + b, x.begin() + e, 0));
    });
    const OnDevice<int> in(x), out(wanted.size());
    reduce_tiles<<<blocks(n, threads), threads>>>(in.data(), n, out.data());
    same(out.read(), wanted);
  });
}

TEST_CASE("cub: BlockLoad, BlockScan and BlockStore") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    if (n == 0) return;
    const std::vector<int> x = numbers<int>(n, random, -1000, 1000);
    std::vector<int> wanted(n);
    for_parts(n, tile,
              [&](size_t b, size_t e) { std::inclusive_scan(x.begin() + b, x.begin() + e, wanted.begin() + b); });
    const OnDevice<int> in(x), out(n);
    scan_tiles<cub::BLOCK_LOAD_TRANSPOSE, cub::BLOCK_STORE_WARP_TRANSPOSE, cub::BLOCK_SCAN_WARP_SCANS>
        <<<blocks(n, tile), threads>>>(in.data(), n, out.data());
    same(out.read(), wanted);
    ok(cudaMemset(out.data(), 0, n * sizeof(int)));
    scan_tiles<cub::BLOCK_LOAD_WARP_TRANSPOSE, cub::BLOCK_STORE_STRIPED, cub::BLOCK_SCAN_RAKING>
        <<<blocks(n, tile), threads>>>(in.data(), n, out.data());
    // Stored as if the tile were striped: item i of thread t goes to i * threads + t.
    std::vector<int> striped(n);
    for_parts(n, tile, [&](size_t b, size_t e) {
      std::vector<int> sums(tile);
      for (size_t k = 0; k < sums.size(); ++k) sums[k] = wanted[std::min(b + k, e - 1)];
      for (size_t k = b; k < e; ++k) striped[k] = sums[(k - b) % threads * items + (k - b) / threads];
    });
    same(out.read(), striped);
  });
}

TEST_CASE("cub: BlockRadixSort") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    if (n == 0) return;
    const std::vector<int> x = numbers<int>(n, random, -100, 100);
    std::vector<int> wanted(n);
    std::iota(wanted.begin(), wanted.end(), 0);
    for_parts(n, tile, [&](size_t b, size_t e) {
      std::stable_sort(wanted.begin() + b, wanted.begin() + e, [&](int i, int j) { return x[i] < x[j]; });
    });
    std::vector<int> sorted(n);
    for (size_t i = 0; i < n; ++i) sorted[i] = x[wanted[i]];
    const OnDevice<int> in(x), out(n), places(n);
    sort_tiles<<<blocks(n, tile), threads>>>(in.data(), n, out.data(), places.data());
    same(out.read(), sorted);
    same(places.read(), wanted);
  });
}

TEST_CASE("cub: WarpReduce and WarpScan") {
  for_sizes_and_seeds([](size_t n, std::mt19937_64& random) {
    if (n == 0) return;
    const std::vector<int> x = numbers<int>(n, random, 1, 1000);
    std::vector<int> sums(n), maxima;
    for_parts(n, 8, [&](size_t b, size_t e) {
      std::exclusive_scan(x.begin() + b, x.begin() + e, sums.begin() + b, 0);
      maxima.push_back(*std::max_element(x.begin() + b, x.begin() + e));
    });
    const OnDevice<int> in(x), out(n), greatest(maxima.size());
    scan_eights<<<blocks(n, threads), threads>>>(in.data(), n, out.data(), greatest.data());
    same(out.read(), sums);
    same(greatest.read(), maxima);
  });
}
