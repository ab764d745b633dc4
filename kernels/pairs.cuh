#pragma once
#include "kernels/all_pairs.h"
#include "kernels/device.cuh"

// Pairs of jets on a GPU. The work is cut by constituents, whose pairs are as many as their jet has constituents: a
// long jet brings more of them.
namespace lightcone::kernels::cuda {

/// One constituent among those of its jet.
struct Constituent {
  int64_t jet, first, pairs;  ///< the jet, its first constituent, the pairs (all_pairs.h) in front of its own
  int N, i;
  __device__ int64_t pair(int64_t a, int64_t b) const { return pairs + a * N + b; }
  /// The row where pairs of one with itself are left out (message_passing.h).
  __device__ int64_t edge(int64_t a, int64_t b) const { return pairs - first + a * (N - 1) + b - (b > a); }
};

struct Jets {
  const int32_t* ptr;
  const int64_t* before;  ///< all pairs in front of each jet
  int64_t count;

  __device__ Constituent constituent(int64_t t) const {
    int64_t jet = 0, end = count;  // ptr[jet] <= t < ptr[end]
    while (end - jet > 1) {
      const int64_t middle = (jet + end) / 2;
      (ptr[middle] <= t ? jet : end) = middle;
    }
    return {jet, ptr[jet], before[jet], ptr[jet + 1] - ptr[jet], static_cast<int>(t - ptr[jet])};
  }
};

// before[b] for all b <= jets. One block; a thread adds up neighbouring jets, then sums of threads meet in doubling
// steps.
template <int threads>
__global__ void pairs_before_kernel(int64_t jets, const int32_t* ptr, int64_t* before) {
  __shared__ int64_t sums[threads];
  const int64_t share = (jets + threads - 1) / threads, begin = std::min(jets, threadIdx.x * share),
                end = std::min(jets, begin + share);
  auto pairs = [&](int64_t b) {
    const int64_t N = ptr[b + 1] - ptr[b];
    return N * N;
  };
  int64_t own = 0;
  for (int64_t b = begin; b < end; ++b) own += pairs(b);
  int64_t sum = own;  // of this thread and those before it
  for (int step = 1; step < threads; step *= 2) {
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x >= step) sum += sums[threadIdx.x - step];
    __syncthreads();
  }
  sum -= own;
  for (int64_t b = begin; b < end; ++b) {
    before[b] = sum;
    sum += pairs(b);
  }
  if (threadIdx.x == threads - 1) before[jets] = sum;
}

/// The pairs of `ptr`, for kernels that are launched while it lives.
class PairsOf {
 public:
  PairsOf(Context& ctx, const Tensor& ptr)
      : before_(ctx, ptr.numel()), jets_{ptr.data<int32_t>(), before_.data(), ptr.numel() - 1} {
    launch(ctx, "pairs_before", pairs_before_kernel<block_threads>, {jets_.count > 0, block_threads}, jets_.count,
           jets_.ptr, before_.data());
  }
  operator Jets() const { return jets_; }

 private:
  Context::Scratch<int64_t> before_;
  Jets jets_;
};

/// Blocks for n warps, and this thread's warp among them.
inline int64_t blocks_of_warps(int64_t n) { return (n + block_threads / 32 - 1) / (block_threads / 32); }
__device__ inline int64_t warp_index() { return first_item() / 32; }
__device__ inline int lane_index() { return threadIdx.x % 32; }

/// Over the lanes of a warp, in pairs 16, 8, … apart; every lane gets it.
template <class S>
__device__ S warp_sum(S value) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(~0u, value, apart);
  return value;
}

/// done(c, sum over r < rows of f(r, c)) for each of `cols` columns, by a block that comes as a whole. A thread owns
/// one column of every (256 / cols)th row, whose sums then meet in halves; several tiles of columns, of which a thread
/// owns all rows, where there are more than 256. The order depends on rows and cols alone. Every f and done, a type of
/// its own, has its own shared memory: a kernel that calls this in a loop has a barrier after each time.
template <class S, class F, class Done>
__device__ void column_sums(int64_t rows, int64_t cols, F f, Done done) {
  __shared__ S sums[block_threads];
  const int width = static_cast<int>(std::min<int64_t>(cols, block_threads)), lanes = block_threads / width;
  const int lane = static_cast<int>(threadIdx.x) / width;
  for (int64_t c = threadIdx.x % width; c - threadIdx.x % width < cols; c += width) {
    S sum = 0;
    if (lane < lanes && c < cols)
      for (int64_t r = lane; r < rows; r += lanes) sum += f(r, c);
    sums[threadIdx.x] = sum;
    for (int left = lanes; left > 1;) {
      const int half = (left + 1) / 2;
      __syncthreads();
      if (lane < left - half) sums[threadIdx.x] += sums[threadIdx.x + half * width];
      left = half;
    }
    if (lane == 0 && c < cols) done(c, sums[threadIdx.x]);
  }
}

}  // namespace lightcone::kernels::cuda
