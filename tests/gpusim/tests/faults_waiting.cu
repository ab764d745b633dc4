// Threads that wait for what does not come, lanes that do not fit their masks, kernels that end early or never.
#include "gpusim/tests/faults.h"

#include <cassert>

using What = gpusim::Finding::What;

namespace {

constexpr int n = 64;

// Threads that have ended are not waited for.
__global__ void early_return(int* out, int count) {
  __shared__ int s[n];
  if (threadIdx.x >= count) return;
  s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = s[count - 1 - threadIdx.x];
}

__global__ void half_a_warp(int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = threadIdx.x;
  if (!bad || threadIdx.x % 32 < 16) {
    __syncthreads();  // FAULT half_a_warp
    out[threadIdx.x] = s[threadIdx.x ^ 16];
  }
  __syncwarp();  // FAULT half_a_warp
  out[threadIdx.x] = 1;
}

__global__ void half_a_block(int* out, int bad) {
  if (!bad || threadIdx.x < 32) __syncthreads();  // FAULT half_a_block
  asm volatile("bar.sync 1;" ::: "memory");       // FAULT half_a_block
  out[threadIdx.x] = 1;
}

__global__ void trip_counts(int* out, int bad) {
#pragma unroll 1
  for (int i = 0; i < 3 + bad * int(threadIdx.x % 2); ++i) {
    out[threadIdx.x] = i;
    __syncthreads();  // FAULT trip_counts
  }
  out[threadIdx.x] = 9;
  __syncthreads();  // FAULT trip_counts
}

__global__ void barrier_counts(int* out, int bad) {
  if (threadIdx.x < 32)
    asm volatile("bar.sync 1, 64;" ::: "memory");  // FAULT barrier_counts
  else if (!bad)
    asm volatile("bar.sync 1, 64;" ::: "memory");
  else
    asm volatile("bar.sync 1, 96;" ::: "memory");  // FAULT barrier_counts
  out[threadIdx.x] = 1;
}

__global__ void lane_not_in_mask(int* out, int bad) {
  const unsigned mask = bad ? 0x7fffffff : 0xffffffff;
  out[threadIdx.x] = __shfl_xor_sync(mask, threadIdx.x, 1);  // FAULT lane_not_in_mask
}

__global__ void lane_elsewhere(int* out, int bad) {
  int v = threadIdx.x;
  if (threadIdx.x < 16) v = __shfl_down_sync(bad ? 0xffffffff : 0xffff, v, 1, 16);  // FAULT lane_elsewhere
  __syncwarp();                                                                     // FAULT lane_elsewhere
  out[threadIdx.x] = v;
}

__global__ void from_inactive_lane(int* out, int bad) {
  int v = threadIdx.x;
  if (threadIdx.x < 16) v = __shfl_sync(0xffff, v, threadIdx.x + 16 * bad);  // FAULT from_inactive_lane
  __syncwarp();
  out[threadIdx.x] = v;
}

__global__ void masks_differ(int* out, int bad) {
  const unsigned mask = bad && threadIdx.x == 3 ? 0x0000000f : 0xffffffff;
  out[threadIdx.x] = __ballot_sync(mask, threadIdx.x & 1);  // FAULT masks_differ
}

// The halves of a warp shuffle apart from one another.
__global__ void masks_of_halves(int* out) {
  const unsigned mask = threadIdx.x < 16 ? 0xffff : 0xffff0000;
  int v = threadIdx.x;
  for (int by = 8; by; by /= 2) v += __shfl_xor_sync(mask, v, by);
  if (threadIdx.x < 16)
    v += __shfl_xor_sync(mask, v, 1);
  else
    v -= __shfl_xor_sync(mask, v, 2);
  out[threadIdx.x] = v;
}

// Every lane in its turn: those that spin must not keep the one that holds the lock from going on.
__device__ int lock;
__global__ void lock_in_warp(int* out) {
  bool done = false;
  while (!done) {
    if (atomicCAS(&lock, 0, 1) == 0) {
      __threadfence();
      ++*out;
      __threadfence();
      atomicExch(&lock, 0);
      done = true;
    }
  }
}

__global__ void lock_spun_on(int* out) {
  while (atomicCAS(&lock, 0, 1) != 0) {
  }
  __threadfence();
  ++*out;
  __threadfence();
  atomicExch(&lock, 0);
}

// Block b waits for block b + 1.
__global__ void for_later_blocks(volatile int* flags, int* out) {
  if (threadIdx.x == 0 && blockIdx.x + 1 < gridDim.x)
    while (!flags[blockIdx.x + 1]) {
    }
  __threadfence();
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x;
  __syncthreads();
  __threadfence();
  if (threadIdx.x == 0) flags[blockIdx.x] = 1;
}

__global__ void nobody_sets_it(volatile int* flags, int bad) {
  if (blockIdx.x == 0 && !bad) flags[0] = 1;
  if (blockIdx.x == 1)
    while (!flags[0]) {  // FAULT nobody_sets_it
    }
}

// Two blocks, each of which holds what the other wants.
__global__ void two_locks(int* locks, int* out, int bad) {
  int *first = locks + (blockIdx.x & bad), *second = locks + 1 - (blockIdx.x & bad);
  while (atomicCAS(first, 0, 1)) __nanosleep(100);  // FAULT two_locks
  __threadfence();
  for (int i = 0; i < 1000; ++i) atomicAdd(out, 1);
  while (bad && atomicAdd(out + 1 + blockIdx.x, 1) == 0) atomicAdd(out + 3, 1);
  while (bad && atomicAdd(out + 3, 0) < 2) __nanosleep(100);
  while (atomicCAS(second, 0, 1)) __nanosleep(100);  // FAULT two_locks
  __threadfence();
  atomicExch(second, 0);
  atomicExch(first, 0);
}

__global__ void endless(volatile int* out, int bad) {
  int i = 0;
  do {
    out[threadIdx.x] = ++i;  // FAULT endless
  } while (bad || i < 3);    // FAULT endless
}

__global__ void traps(int* out, int bad) {
  if (bad && threadIdx.x == 7) __trap();  // FAULT traps
  out[threadIdx.x] = 1;
}

__global__ void asserts(int* out, int bad) {
  assert(threadIdx.x < 60 || !bad);  // FAULT asserts
  out[threadIdx.x] = 1;
}

__device__ __noinline__ int factorial(int i) { return i < 2 ? 1 : i * factorial(i - 1) + factorial(i - 2); }
__global__ void recursion(int* out) { out[threadIdx.x] = factorial(threadIdx.x); }

__device__ __noinline__ int one(int) { return 1; }
__device__ __noinline__ int two(int x) { return x + 2; }
__global__ void indirect(int* out) {
  int (*f)(int) = out[threadIdx.x] ? one : two;
  out[threadIdx.x] = f(3);
}

template <class... Formal, class... Actual>
void on(void (*kernel)(Formal...), dim3 blocks, int threads, Actual... arguments) {
  OnDevice<int> out(8 * n);
  kernel<<<blocks, threads>>>(out, arguments...);
}

constexpr Fault faults[] = {
    {"early_return",
     {},
     [](int) {
       on(early_return, 2, n, 16);
       on(early_return, 2, n, 33);
     }},
    {"half_a_warp", What::divergent_barrier, [](int bad) { on(half_a_warp, 1, n, bad); }},
    {"half_a_block", What::divergent_barrier, [](int bad) { on(half_a_block, 1, n, bad); }},
    {"trip_counts", What::divergent_barrier, [](int bad) { on(trip_counts, 1, n, bad); }},
    {"barrier_counts", What::divergent_barrier, [](int bad) { on(barrier_counts, 1, n, bad); }},
    {"lane_not_in_mask", What::wrong_members, [](int bad) { on(lane_not_in_mask, 1, 32, bad); }},
    {"lane_elsewhere", What::wrong_members, [](int bad) { on(lane_elsewhere, 1, 32, bad); }},
    {"from_inactive_lane", What::wrong_members, [](int bad) { on(from_inactive_lane, 1, 32, bad); }},
    {"masks_differ", What::wrong_members, [](int bad) { on(masks_differ, 1, 32, bad); }},
    {"masks_of_halves", {}, [](int) { on(masks_of_halves, 1, 32); }},
    {"lock_in_warp", {}, [](int) { on(lock_in_warp, 2, 64); }},
    {"lock_spun_on", {}, [](int) { on(lock_spun_on, 2, 64); }},
    {"for_later_blocks",
     {},
     [](int) {
       OnDevice<int> flags(40), out(40 * 32);
       for_later_blocks<<<40, 32>>>(flags, out);
     }},
    {"nobody_sets_it", What::deadlock,
     [](int bad) {
       OnDevice<int> flags(4);
       nobody_sets_it<<<4, 32>>>(flags, bad);
     }},
    {"two_locks", What::deadlock,
     [](int bad) {
       OnDevice<int> locks(2), out(4);
       two_locks<<<2, 1>>>(locks, out, bad);
     }},
    {"endless", What::deadlock,
     [](int bad) {
       OnDevice<int> out(n);
       endless<<<1, n>>>(out, bad);
     }},
    {"traps", What::trap, [](int bad) { on(traps, 1, n, bad); }},
    {"asserts", What::trap, [](int bad) { on(asserts, 1, n, bad); }},
};

constexpr Fault refused[] = {
    {"calls itself; recursion cannot be simulated", What::misuse, [](int) { on(recursion, 1, 8); }},
    {"calls through pointers cannot be simulated", What::misuse, [](int) { on(indirect, 1, 8); }},
};

}  // namespace

std::span<const Fault> faults_of_waiting() { return faults; }
std::span<const Fault> refused_kernels() { return refused; }
