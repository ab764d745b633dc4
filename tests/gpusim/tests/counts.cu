#include "gpusim/tests/counts.h"
#include "gpusim/tests/faults.h"

namespace {

__global__ void copy_kernel(const float* in, float* out, int stride, int offset) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[stride * i + offset];
}

__global__ void copy4_kernel(const float4* in, float4* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[i];
}

constexpr int size = 128;

__global__ void transpose_naive(const float* in, float* out) {
  const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
  out[x * size + y] = in[y * size + x];
}

template <int padding>
__global__ void transpose_tile(const float* in, float* out) {
  __shared__ float tile[32][32 + padding];
  tile[threadIdx.y][threadIdx.x] = in[(blockIdx.y * 32 + threadIdx.y) * size + blockIdx.x * 32 + threadIdx.x];
  __syncthreads();
  out[(blockIdx.x * 32 + threadIdx.y) * size + blockIdx.y * 32 + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}

template <int edge>
__global__ void product_kernel(const float* a, const float* b, float* c) {
  __shared__ float ta[edge][edge], tb[edge][edge];
  const int x = blockIdx.x * edge + threadIdx.x, y = blockIdx.y * edge + threadIdx.y;
  float sum = 0;
  for (int t = 0; t < size; t += edge) {
    ta[threadIdx.y][threadIdx.x] = a[y * size + t + threadIdx.x];
    tb[threadIdx.y][threadIdx.x] = b[(t + threadIdx.y) * size + x];
    __syncthreads();
    // An access for every element: no vectors.
    for (int k = 0; k < edge; ++k) sum += *(volatile float*)&ta[threadIdx.y][k] * *(volatile float*)&tb[k][threadIdx.x];
    __syncthreads();
  }
  c[y * size + x] = sum;
}

// A loop of one fma, one integer multiply-add, and its own add, compare and branch.
__global__ void loop_kernel(float* out, int trips) {
  asm volatile(
      "{.reg .f32 f; .reg .b32 i, k, t; .reg .pred p; .reg .u64 a;\n"
      "mov.f32 f, 0f00000000;\n"
      "mov.u32 i, 0;\n"
      "mov.u32 k, 0;\n"
      "again:\n"
      "fma.rn.f32 f, f, 0f3F000000, 0f3F800000;\n"
      "mad.lo.s32 k, k, 3, 1;\n"
      "add.s32 i, i, 1;\n"
      "setp.lt.s32 p, i, %1;\n"
      "@p bra again;\n"
      "cvt.rn.f32.s32 f, k;\n"
      "mov.u32 t, %%tid.x;\n"
      "mad.wide.u32 a, t, 4, %0;\n"
      "st.global.f32 [a], f;}" ::"l"(out),
      "r"(trips)
      : "memory");
}

__global__ void diverge_kernel(int* out) {
  int v = 0;
  if (threadIdx.x % 2)  // every warp parts here
    for (int i = 0; i < 4; ++i) v += __ldcv(out + 64) + i;
  if (threadIdx.x < 32) v += __ldcv(out + 65);  // and nowhere else
  out[threadIdx.x] = v;
}

__global__ void local_kernel(int* out) {
  volatile int a[16];
  for (int i = 0; i < 16; ++i) a[i] = i;
  out[threadIdx.x] = a[threadIdx.x % 16];
}

__global__ void tensor_kernel(float* out) {
  float c[4] = {};
  for (int t = 0; t < 4; ++t)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, "
        "%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(0x3c003c00));  // ones
  out[threadIdx.x] = c[0];
}

__global__ void mix_kernel(float* out, int trips) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float f = i, g = 1;
  unsigned k = i;
  for (int t = 0; t < trips; ++t) {
    f = f * 0.5f + g;
    k = k * 1664525u + 1013904223u;
    g = f - g;
    k ^= k >> 7;
  }
  out[i] = f + g + k;
}

}  // namespace

namespace counted {

void copy(int stride, int offset) {
  OnDevice<float> in(4096 * stride + offset), out(4096);
  copy_kernel<<<16, 256>>>(in, out, stride, offset);
}

void copy4() {
  OnDevice<float4> in(1024), out(1024);
  copy4_kernel<<<4, 256>>>(in, out);
}

void transpose(int padding) {
  OnDevice<float> in(size * size), out(size * size);
  const dim3 blocks(size / 32, size / 32), threads(32, 32);
  if (padding < 0)
    transpose_naive<<<blocks, threads>>>(in, out);
  else if (padding == 0)
    transpose_tile<0><<<blocks, threads>>>(in, out);
  else
    transpose_tile<1><<<blocks, threads>>>(in, out);
}

void product(int tile) {
  OnDevice<float> a(size * size), b(size * size), c(size * size);
  const dim3 blocks(size / tile, size / tile), threads(tile, tile);
  (tile == 16 ? product_kernel<16> : product_kernel<32>)<<<blocks, threads>>>(a, b, c);
}

void loop(int trips) {
  OnDevice<float> out(64);
  loop_kernel<<<1, 64>>>(out, trips);
}

void diverge() {
  OnDevice<int> out(66);
  diverge_kernel<<<1, 64>>>(out);
}

void local() {
  OnDevice<int> out(32);
  local_kernel<<<1, 32>>>(out);
}

void tensor() {
  OnDevice<float> out(64);
  tensor_kernel<<<1, 64>>>(out);
}

void mix(int blocks, int trips) {
  OnDevice<float> out(blocks * 256);
  mix_kernel<<<blocks, 256>>>(out, trips);
}

}  // namespace counted
