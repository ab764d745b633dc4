// Accesses that leave what they are to touch, come too late or too early, or are crooked.
#include "gpusim/tests/faults.h"

using What = gpusim::Finding::What;

namespace {

constexpr int n = 128;

// Every kernel is its own program: with bad = 0 it does nothing wrong.

__global__ void read_behind(const int* in, int* out, int bad) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[i + bad];  // FAULT read_behind
}

__global__ void write_behind(int* out, int bad) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i + bad] = i;  // FAULT write_behind
}

__global__ void byte_behind(const char* in, int count, int* out) {
  int sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += in[i];  // FAULT byte_behind
  out[threadIdx.x] = sum;
}

__global__ void read_below(const int* in, int* out, int bad) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[i - bad];  // FAULT read_below
}

__global__ void vector_behind(const int4* in, int* out) {
  const int4 v = in[threadIdx.x];  // FAULT vector_behind
  out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

__global__ void vector_write_behind(int4* out) {
  out[threadIdx.x] = make_int4(1, 2, 3, 4);  // FAULT vector_write_behind
}

__global__ void atomic_behind(int* out, int bad) {
  atomicAdd(out + threadIdx.x + bad, 1);  // FAULT atomic_behind
}

__global__ void null_pointer(int* out) {
  out[threadIdx.x] = 1;  // FAULT null_pointer
}

__global__ void host_pointer(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x];  // FAULT host_pointer
}

__global__ void wild_pointer(const int* in, int* out, int bad) {
  const int* p = reinterpret_cast<const int*>(reinterpret_cast<size_t>(in) ^ size_t(bad) << 62);
  out[threadIdx.x] = p[threadIdx.x];  // FAULT wild_pointer
}

__device__ int table[n];
__global__ void variable_behind(int* out, int bad) {
  out[threadIdx.x] = table[threadIdx.x + bad];  // FAULT variable_behind
}

__constant__ int constants[n];
__global__ void constant_behind(int* out, int bad) {
  out[threadIdx.x] = constants[threadIdx.x + bad];  // FAULT constant_behind
}

__global__ void shared_read_behind(int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x + bad];  // FAULT shared_read_behind
}

__global__ void shared_write_behind(int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x + bad] = 1;  // FAULT shared_write_behind
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void shared_below(int* out, int bad) {
  __shared__ int s[n];
  s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x - bad];  // FAULT shared_below
}

__global__ void shared_into_another(int* out, int bad) {
  __shared__ int s[n], t[n];
  s[threadIdx.x] = 1;
  t[threadIdx.x] = 2;
  __syncthreads();
  // Whichever of the two comes first.
  out[threadIdx.x] = s[threadIdx.x + bad] + t[threadIdx.x + bad];  // FAULT shared_into_another
}

__global__ void dynamic_shared_behind(int* out, int bad) {
  extern __shared__ int dynamic[];
  dynamic[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = dynamic[threadIdx.x + bad];  // FAULT dynamic_shared_behind
}

__global__ void shared_vector_behind(int* out, int bad) {
  __shared__ __align__(16) int s[n];
  s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = reinterpret_cast<int4*>(s)[threadIdx.x / 4 + bad].w;  // FAULT shared_vector_behind
}

__global__ void local_read_behind(int* out, int bad) {
  int a[8];
  for (int i = 0; i < 8; ++i) a[i] = i * threadIdx.x;
  out[threadIdx.x] = a[threadIdx.x % 8 + bad];  // FAULT local_read_behind
}

__global__ void local_write_behind(int* out, int bad) {
  int a[8] = {};
  a[threadIdx.x % 8 + bad] = threadIdx.x;  // FAULT local_write_behind
  out[threadIdx.x] = a[out[threadIdx.x] & 7];
}

struct Eight {
  int of[8];
};
__global__ void parameters_behind(const __grid_constant__ Eight eight, int* out, int bad) {
  out[threadIdx.x] = eight.of[threadIdx.x % 8 + 8 * bad];  // FAULT parameters_behind
}

__global__ void after_free(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x];  // FAULT after_free
}

__global__ void after_free_async(int* out) {
  out[threadIdx.x] = 1;  // FAULT after_free_async
}

__global__ void never_written(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x];  // FAULT never_written
}

__global__ void never_written_byte(const char* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x];  // FAULT never_written_byte
}

__global__ void never_written_added(int* out) {
  atomicAdd(out + threadIdx.x, 1);  // FAULT never_written_added
}

__global__ void shared_never_written(int* out, int bad) {
  __shared__ int s[n];
  if (threadIdx.x >= bad) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];  // FAULT shared_never_written
}

// What another block left in shared memory is not there for this one.
__global__ void shared_of_another_block(int* out, int bad) {
  __shared__ int s[n];
  if (blockIdx.x == 0 || !bad) s[threadIdx.x] = 1;
  __syncthreads();
  out[blockIdx.x * n + threadIdx.x] = s[threadIdx.x];  // FAULT shared_of_another_block
}

__global__ void local_never_written(int* out, int bad) {
  int a[8];
  for (int i = bad; i < 8; ++i) a[i] = i + out[threadIdx.x];
  out[threadIdx.x] = a[threadIdx.x % 8];  // FAULT local_never_written
}

__global__ void crooked(const char* in, int* out, int bad) {
  out[threadIdx.x] = *reinterpret_cast<const int*>(in + 4 * threadIdx.x + bad);  // FAULT crooked
}

__global__ void crooked_vector(int* out, int bad) {
  *reinterpret_cast<int4*>(out + 4 * threadIdx.x + 2 * bad) = make_int4(1, 2, 3, 4);  // FAULT crooked_vector
}

__global__ void crooked_shared(int* out, int bad) {
  __shared__ __align__(8) char s[8 * n + 8];
  reinterpret_cast<double*>(s)[threadIdx.x] = 0;
  __syncthreads();
  double* p = reinterpret_cast<double*>(s + 8 * threadIdx.x + 4 * bad);
  *p = 1;  // FAULT crooked_shared
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void write_first(int* out, int count) {
  if (threadIdx.x < count) out[threadIdx.x] = 1;
}

// A copy back to the host reads what a kernel has not written: there is no line, but a name.
void copied_back(int bad) {
  OnDevice<int> out(n, false);
  write_first<<<1, n>>>(out, n - bad);
  int back[n];
  cudaMemcpy(back, out, sizeof back, cudaMemcpyDeviceToHost);
}

int* host_value() {
  static int values[n];
  return values;
}

constexpr Fault faults[] = {
    {"read_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> in(n), out(n);
       read_behind<<<4, n / 4>>>(in, out, bad);
     }},
    {"write_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       write_behind<<<4, n / 4>>>(out, bad);
     }},
    {"byte_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<char> in(1001);
       OnDevice<int> out(n);
       byte_behind<<<1, n>>>(in, 1001 + bad, out);
     }},
    {"read_below", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> in(n), out(n);
       read_below<<<4, n / 4>>>(in, out, bad);
     }},
    {"vector_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> in(4 * n - bad), out(n);
       vector_behind<<<1, n>>>((int4*)in.data, out);
     }},
    {"vector_write_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(4 * n - bad);
       vector_write_behind<<<1, n>>>((int4*)out.data);
     }},
    {"atomic_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       atomic_behind<<<1, n>>>(out, bad);
     }},
    {"null_pointer", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       null_pointer<<<1, n>>>(bad ? nullptr : out.data);
     }},
    {"host_pointer", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> in(n), out(n);
       host_pointer<<<1, n>>>(bad ? host_value() : in.data, out);
     }},
    {"wild_pointer", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> in(n), out(n);
       wild_pointer<<<1, n>>>(in, out, bad);
     }},
    {"variable_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       variable_behind<<<1, n>>>(out, bad);
     }},
    {"constant_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       constant_behind<<<1, n>>>(out, bad);
     }},
    {"shared_read_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       shared_read_behind<<<1, n>>>(out, bad);
     }},
    {"shared_write_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       shared_write_behind<<<1, n - 1 + bad>>>(out, bad);
     }},
    {"shared_below", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       shared_below<<<1, n>>>(out, bad);
     }},
    {"shared_into_another", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       shared_into_another<<<1, n>>>(out, bad);
     }},
    {"dynamic_shared_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       dynamic_shared_behind<<<1, n, n * sizeof(int)>>>(out, bad);
     }},
    {"shared_vector_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       shared_vector_behind<<<1, n>>>(out, bad);
     }},
    {"local_read_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       local_read_behind<<<1, n>>>(out, bad);
     }},
    {"local_write_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       local_write_behind<<<1, n>>>(out, bad);
     }},
    {"parameters_behind", What::out_of_bounds,
     [](int bad) {
       OnDevice<int> out(n);
       parameters_behind<<<1, n>>>({}, out, bad);
     }},
    {"after_free", What::use_after_free,
     [](int bad) {
       OnDevice<int> out(n);
       int* in = nullptr;
       cudaMalloc(&in, n * sizeof(int));
       cudaMemset(in, 0, n * sizeof(int));
       if (bad) cudaFree(in);
       after_free<<<1, n>>>(in, out);
       if (!bad) cudaFree(in);
     }},
    {"after_free_async", What::use_after_free,
     [](int bad) {
       int* out = nullptr;
       cudaMallocAsync(&out, n * sizeof(int), nullptr);
       if (bad) cudaFreeAsync(out, nullptr);
       after_free_async<<<1, n>>>(out);
       if (!bad) cudaFreeAsync(out, nullptr);
     }},
    {"never_written", What::uninitialised_read,
     [](int bad) {
       OnDevice<int> in(n, !bad), out(n);
       never_written<<<1, n>>>(in, out);
     }},
    {"never_written_byte", What::uninitialised_read,
     [](int bad) {
       OnDevice<char> in(n, false);
       OnDevice<int> out(n);
       cudaMemset(in, 0, n - bad);
       never_written_byte<<<1, n>>>(in, out);
     }},
    {"never_written_added", What::uninitialised_read,
     [](int bad) {
       OnDevice<int> out(n, !bad);
       never_written_added<<<1, n>>>(out);
     }},
    {"shared_never_written", What::uninitialised_read,
     [](int bad) {
       OnDevice<int> out(n);
       shared_never_written<<<1, n>>>(out, bad);
     }},
    {"shared_of_another_block", What::uninitialised_read,
     [](int bad) {
       OnDevice<int> out(4 * n);
       shared_of_another_block<<<4, n>>>(out, bad);
     }},
    {"local_never_written", What::uninitialised_read,
     [](int bad) {
       OnDevice<int> out(n);
       local_never_written<<<1, n>>>(out, bad);
     }},
    {"copied_back", What::uninitialised_read, copied_back},
    {"crooked", What::misaligned,
     [](int bad) {
       OnDevice<char> in(4 * n + 4);
       OnDevice<int> out(n);
       crooked<<<1, n>>>(in, out, bad);
     }},
    {"crooked_vector", What::misaligned,
     [](int bad) {
       OnDevice<int> out(4 * n + 4);
       crooked_vector<<<1, n>>>(out, bad);
     }},
    {"crooked_shared", What::misaligned,
     [](int bad) {
       OnDevice<int> out(n);
       crooked_shared<<<1, n>>>(out, bad);
     }},
};

}  // namespace

std::span<const Fault> faults_of_memory() { return faults; }
