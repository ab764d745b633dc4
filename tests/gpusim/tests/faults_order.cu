// Accesses of different threads to the same place that nothing orders, and some that look like it but are in order.
#include "gpusim/tests/faults.h"

using What = gpusim::Finding::What;

namespace {

constexpr int n = 64;

__global__ void missing_barrier(int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = threadIdx.x + 1;  // FAULT missing_barrier
  if (!bad) __syncthreads();
  out[threadIdx.x] = s[threadIdx.x ^ 32];  // FAULT missing_barrier
}

__global__ void read_then_write(int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  const int v = s[threadIdx.x ^ 32];  // FAULT read_then_write
  if (!bad) __syncthreads();
  s[threadIdx.x] = v + 1;  // FAULT read_then_write
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void write_write(int* out, int bad) {
  __shared__ int s[n];
  s[bad ? threadIdx.x % 32 : threadIdx.x] = threadIdx.x;  // FAULT write_write
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x % 32];
}

// Two lanes of one store, of which either may win.
__global__ void write_write_in_warp(int* out, int bad) {
  __shared__ int s[n];
  s[bad ? threadIdx.x / 2 : threadIdx.x] = threadIdx.x;  // FAULT write_write_in_warp
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x / 2];
}

__global__ void within_warp(int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = 0;
  __syncwarp();
  s[threadIdx.x] = threadIdx.x + 1;  // FAULT within_warp
  if (!bad) __syncwarp();
  out[threadIdx.x] = s[threadIdx.x ^ 1];  // FAULT within_warp
}

// The second warp ends instead of coming to the barrier, which does not wait for it but comes after what it wrote.
__global__ void end_before_barrier(int* out) {
  __shared__ int s[n];
  s[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = 0;
  if (threadIdx.x >= 32) return;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x ^ 32];
}

__global__ void byte_neighbours(int* out) {
  __shared__ char s[n];
  s[threadIdx.x] = threadIdx.x;
  if (threadIdx.x < 32) s[threadIdx.x] = s[threadIdx.x] + 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void byte_race(int* out, int bad) {
  __shared__ char s[n];
  s[threadIdx.x - bad * (threadIdx.x == 33)] = threadIdx.x;  // FAULT byte_race
  __syncthreads();
  out[threadIdx.x] = s[0];
}

__global__ void same_value(int* out) {
  __shared__ int s;
  s = blockDim.x;
  __syncthreads();
  out[threadIdx.x] = s;
  if (threadIdx.x % 2) out[n] = 7;
}

__global__ void shared_atomics(int* out) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 0;
  __syncthreads();
  atomicAdd(&s, 1);
  __syncthreads();
  atomicAdd(out, s);
}

__global__ void atomic_and_read(int* out, int bad) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 0;
  __syncthreads();
  atomicAdd(&s, 1);  // FAULT atomic_and_read
  if (!bad) __syncthreads();
  out[threadIdx.x] = s;  // FAULT atomic_and_read
}

__global__ void global_in_block(int* out, int bad) {
  out[threadIdx.x] = threadIdx.x;  // FAULT global_in_block
  if (!bad) __syncthreads();
  out[n + threadIdx.x] = out[threadIdx.x ^ 32];  // FAULT global_in_block
}

// A sum by tiles: the second barrier keeps the fast from overwriting what the slow still read.
__global__ void missing_second_barrier(const int* in, int* out, int bad) {
  __shared__ int tile[n];
  int sum = 0;
  for (int t = 0; t < 4; ++t) {
    tile[threadIdx.x] = in[t * n + threadIdx.x];  // FAULT missing_second_barrier
    __syncthreads();
    for (int i = 0; i < n; ++i) sum += tile[(threadIdx.x + i) % n];  // FAULT missing_second_barrier
    if (!bad) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

__global__ void between_blocks(int* out, int bad) {
  const int i = blockIdx.x * n + threadIdx.x, other = (blockIdx.x ^ 1) * n + threadIdx.x;
  out[i] = i;  // FAULT between_blocks
  __threadfence();
  const int v = out[bad ? other : i];  // FAULT between_blocks
  __syncthreads();
  out[gridDim.x * n + i] = v;
}

__global__ void two_blocks_write(int* out, int bad) {
  out[bad ? threadIdx.x : blockIdx.x * n + threadIdx.x] = blockIdx.x;  // FAULT two_blocks_write
}

__global__ void blocks_add(int* out) { atomicAdd(out, threadIdx.x); }

// The last block to come adds up what all have written; without the fence nothing says that it sees it.
__device__ int arrived;
__global__ void last_block(int* parts, int* out, int bad) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = blockIdx.x;  // FAULT last_block
    if (!bad) __threadfence();
    last = atomicAdd(&arrived, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x) return;
  if (!bad) __threadfence();
  int sum = 0;
#pragma unroll 1
  for (int b = 0; b < gridDim.x; ++b) sum += parts[b];  // FAULT last_block
  *out = sum;
  if (bad)
    atomicExch(&arrived, 0);  // a plain store would race, too
  else
    arrived = 0;
}

// Decoupled look-back: a block hands its sum to the next one with a flag.
__global__ void look_back(volatile int* flags, int* sums, int bad) {
  if (threadIdx.x) return;
  int before = 0;
  if (blockIdx.x) {
    while (!flags[blockIdx.x - 1]) {
    }
    if (!bad) __threadfence();
    before = sums[blockIdx.x - 1];  // FAULT look_back
  }
  sums[blockIdx.x] = before + blockIdx.x;  // FAULT look_back
  if (!bad) __threadfence();
  flags[blockIdx.x] = 1;
}

__device__ void copy_async(int* shared, const int* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((unsigned)__cvta_generic_to_shared(shared)),
               "l"(global));
  asm volatile("cp.async.commit_group;");
}

// Without the wait the copy comes at the end of the thread, over what was read before.
__global__ void copy_without_wait(const int* in, int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = 0;
  __syncthreads();
  const unsigned at = __cvta_generic_to_shared(s + threadIdx.x);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(in + threadIdx.x));  // FAULT copy_without_wait
  if (!bad) asm volatile("cp.async.wait_all;");
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x ^ 32];  // FAULT copy_without_wait
}

// The wait is for the thread's own copies: others need a barrier too.
__global__ void copy_without_barrier(const int* in, int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = 0;
  __syncthreads();
  const unsigned at = __cvta_generic_to_shared(s + threadIdx.x);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at),
               "l"(in + threadIdx.x));  // FAULT copy_without_barrier
  asm volatile("cp.async.wait_all;");
  if (!bad) __syncthreads();
  out[threadIdx.x] = s[threadIdx.x ^ 32];  // FAULT copy_without_barrier
}

// Two stages in flight: the older one is waited for, the younger one is not touched.
__global__ void copies_in_stages(const int* in, int* out) {
  __shared__ int s[2][n];
  copy_async(&s[0][threadIdx.x], in + threadIdx.x);
  int sum = 0;
  for (int t = 0; t < 4; ++t) {
    copy_async(&s[(t + 1) % 2][threadIdx.x], in + (t + 1) * n + threadIdx.x);
    asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    sum += s[t % 2][threadIdx.x ^ 33];
    __syncthreads();
  }
  asm volatile("cp.async.wait_all;");
  out[threadIdx.x] = sum;
}

// Warp 0 fills, warp 1 uses, round after round: barrier 1 says full, barrier 2 empty.
__global__ void producer_and_consumer(int* out, int bad) {
  __shared__ int s[32];
  const int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) s[lane] = 0;
  __syncthreads();
  int *mine = s + lane, *other = s + (lane ^ 1);
  for (int round = 0; round < 4; ++round)
    if (threadIdx.x < 32) {
      if (!bad && round) asm volatile("bar.sync 2, 64;" ::: "memory");
      *mine = round;  // FAULT producer_and_consumer
      if (!bad) asm volatile("bar.arrive 1, 64;" ::: "memory");
    } else {
      if (!bad) asm volatile("bar.sync 1, 64;" ::: "memory");
      out[round * 32 + lane] = *other;  // FAULT producer_and_consumer
      if (!bad && round < 3) asm volatile("bar.arrive 2, 64;" ::: "memory");
    }
}

__global__ void fill(int* out, int value) {
  out[threadIdx.x] = value;  // FAULT two_streams
}
__global__ void use(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x];  // FAULT two_streams
}

void two_streams(int bad) {
  OnDevice<int> data(n), out(n);
  cudaDeviceSynchronize();
  cudaStream_t first, second;
  cudaEvent_t done;
  cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
  cudaEventCreate(&done);
  fill<<<1, n, 0, first>>>(data, 5);
  cudaEventRecord(done, first);
  if (!bad) cudaStreamWaitEvent(second, done);
  use<<<1, n, 0, second>>>(data, out);
  cudaDeviceSynchronize();
  cudaEventDestroy(done);
  cudaStreamDestroy(first);
  cudaStreamDestroy(second);
}

constexpr Fault faults[] = {
    {"missing_barrier", What::race,
     [](int bad) {
       OnDevice<int> out(n);
       missing_barrier<<<2, n>>>(out, bad);
     }},
    {"read_then_write", What::race,
     [](int bad) {
       OnDevice<int> out(n);
       read_then_write<<<1, n>>>(out, bad);
     }},
    {"write_write", What::race,
     [](int bad) {
       OnDevice<int> out(n);
       write_write<<<1, n>>>(out, bad);
     }},
    {"write_write_in_warp", What::race,
     [](int bad) {
       OnDevice<int> out(n);
       write_write_in_warp<<<1, n>>>(out, bad);
     }},
    {"within_warp", What::race,
     [](int bad) {
       OnDevice<int> out(n);
       within_warp<<<1, n>>>(out, bad);
     }},
    {"byte_neighbours",
     {},
     [](int) {
       OnDevice<int> out(n);
       byte_neighbours<<<1, n>>>(out);
     }},
    {"end_before_barrier",
     {},
     [](int) {
       OnDevice<int> out(n);
       end_before_barrier<<<1, n>>>(out);
     }},
    {"byte_race", What::race,
     [](int bad) {
       OnDevice<int> out(n);
       byte_race<<<1, n>>>(out, bad);
     }},
    {"same_value",
     {},
     [](int) {
       OnDevice<int> out(n + 1);
       same_value<<<1, n>>>(out);
     }},
    {"shared_atomics",
     {},
     [](int) {
       OnDevice<int> out(n);
       shared_atomics<<<2, n>>>(out);
     }},
    {"atomic_and_read", What::race,
     [](int bad) {
       OnDevice<int> out(n);
       atomic_and_read<<<1, n>>>(out, bad);
     }},
    {"global_in_block", What::race,
     [](int bad) {
       OnDevice<int> out(2 * n);
       global_in_block<<<1, n>>>(out, bad);
     }},
    {"missing_second_barrier", What::race,
     [](int bad) {
       OnDevice<int> in(4 * n), out(n);
       missing_second_barrier<<<1, n>>>(in, out, bad);
     }},
    {"between_blocks", What::race,
     [](int bad) {
       OnDevice<int> out(8 * n);
       between_blocks<<<4, n>>>(out, bad);
     }},
    {"two_blocks_write", What::race,
     [](int bad) {
       OnDevice<int> out(4 * n);
       two_blocks_write<<<4, n>>>(out, bad);
     }},
    {"blocks_add",
     {},
     [](int) {
       OnDevice<int> out(n);
       blocks_add<<<8, n>>>(out);
     }},
    {"last_block", What::race,
     [](int bad) {
       OnDevice<int> parts(8), out(1);
       last_block<<<8, n>>>(parts, out, bad);
     }},
    {"look_back", What::race,
     [](int bad) {
       OnDevice<int> flags(8), sums(8);
       look_back<<<8, 32>>>(flags, sums, bad);
     }},
    {"copy_without_wait", What::race,
     [](int bad) {
       OnDevice<int> in(n), out(n);
       copy_without_wait<<<1, n>>>(in, out, bad);
     }},
    {"copy_without_barrier", What::race,
     [](int bad) {
       OnDevice<int> in(n), out(n);
       copy_without_barrier<<<1, n>>>(in, out, bad);
     }},
    {"copies_in_stages",
     {},
     [](int) {
       OnDevice<int> in(5 * n), out(n);
       copies_in_stages<<<1, n>>>(in, out);
     }},
    {"producer_and_consumer", What::race,
     [](int bad) {
       OnDevice<int> out(4 * 32);
       producer_and_consumer<<<1, 64>>>(out, bad);
     }},
    {"two_streams", What::unordered, two_streams},
};

}  // namespace

std::span<const Fault> faults_of_order() { return faults; }
