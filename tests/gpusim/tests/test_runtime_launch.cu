#include <cuda_runtime.h>

#include <numeric>

#include "gpusim/tests/runtime_support.h"

using gpusim::Finding;

namespace {

__constant__ int offsets[4];
__device__ int total;

__global__ void fill(int* to, int n, int value) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] = value + i;
}

__global__ void add_offset(int* to, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) atomicAdd(&total, to[i] + offsets[i % 4]);
}

__global__ void dynamic_shared(int* to) {
  extern __shared__ int shared[];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  to[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void __launch_bounds__(128) bounded(int* to) { to[threadIdx.x] = 1; }

__global__ void out_of_bounds(int* to) { to[1000000] = 1; }

__global__ void trapping() { asm volatile("trap;"); }

struct Large {
  char c;
  double d[3];
  short s;
};
__global__ void large_argument(double* to, Large large, char last) { to[0] = large.d[2] + large.s + large.c + last; }

std::vector<int> on_host(const int* device, size_t n) {
  std::vector<int> values(n);
  ok(cudaMemcpy(values.data(), device, n * sizeof(int), cudaMemcpyDeviceToHost));
  return values;
}

}  // namespace

TEST_CASE("A kernel runs with its arguments when something waits for it") {
  for (const uint64_t seed : {0, 1, 2}) {
    Quiet quiet(seed);
    int* device = on_device<int>(1000);
    fill<<<4, 256>>>(device, 1000, 5);
    ok(cudaGetLastError());
    std::vector<int> expected(1000);
    std::iota(expected.begin(), expected.end(), 5);
    CHECK(on_host(device, 1000) == expected);
    double* wide = on_device<double>(1);
    large_argument<<<1, 1>>>(wide, Large{1, {2, 3, 4}, 5}, 6);
    double value = 0;
    ok(cudaMemcpy(&value, wide, 8, cudaMemcpyDeviceToHost));
    CHECK(value == 16);
    ok(cudaFree(device));
    ok(cudaFree(wide));
    CHECK(gpusim::take_findings().empty());
  }
}

TEST_CASE("Variables of a module are set, read and found by their host names") {
  Quiet quiet;
  const int values[4] = {1, 2, 3, 4};
  ok(cudaMemcpyToSymbol(offsets, values, sizeof values));
  int zero = 0, sum = 0;
  ok(cudaMemcpyToSymbol(total, &zero, 4));
  int* device = on_device<int>(8);
  fill<<<1, 8>>>(device, 8, 0);
  add_offset<<<1, 8>>>(device, 8);
  ok(cudaMemcpyFromSymbol(&sum, total, 4));
  CHECK(sum == 28 + 20);
  size_t bytes = 0;
  ok(cudaGetSymbolSize(&bytes, offsets));
  CHECK(bytes == 16);
  CHECK(cudaMemcpyToSymbol(offsets, values, 16, 4) == cudaErrorInvalidValue);
  CHECK(cudaMemcpyToSymbol(values, values, 16) == cudaErrorInvalidSymbol);
  ok(cudaFree(device));
  cudaGetLastError();
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Launches are refused as CUDA refuses them, and nothing runs") {
  Quiet quiet;
  int* device = on_device<int>(1024);
  ok(cudaMemset(device, 0, 4096));
  const auto after = [&](auto&& launch) {
    launch();
    return cudaGetLastError();
  };
  CHECK(after([&] { fill<<<1, 1025>>>(device, 1, 1); }) == cudaErrorInvalidConfiguration);
  CHECK(after([&] { fill<<<1, dim3(1, 1, 65)>>>(device, 1, 1); }) == cudaErrorInvalidConfiguration);
  CHECK(after([&] { fill<<<0, 1>>>(device, 1, 1); }) == cudaErrorInvalidConfiguration);
  CHECK(after([&] { fill<<<dim3(1, 65536), 1>>>(device, 1, 1); }) == cudaErrorInvalidConfiguration);
  CHECK(after([&] { fill<<<1, 1, 49 * 1024>>>(device, 1, 1); }) == cudaErrorInvalidValue);
  CHECK(after([&] { bounded<<<1, 129>>>(device); }) != cudaSuccess);
  CHECK(after([&] { bounded<<<1, 128>>>(device); }) == cudaSuccess);
  CHECK(cudaGetLastError() == cudaSuccess);
  const std::vector<int> values = on_host(device, 129);
  CHECK(std::accumulate(values.begin(), values.end(), 0) == 128);
  ok(cudaFree(device));
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("More than 48 KiB of shared memory has to be asked for") {
  Quiet quiet;
  int* device = on_device<int>(256);
  dynamic_shared<<<1, 256, 100 * 1024>>>(device);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 300 * 1024) ==
        cudaErrorInvalidValue);
  ok(cudaFuncSetAttribute(dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024));
  cudaGetLastError();
  dynamic_shared<<<1, 256, 100 * 1024>>>(device);
  ok(cudaGetLastError());
  CHECK(on_host(device, 256)[0] == 255);
  cudaFuncAttributes attributes;
  ok(cudaFuncGetAttributes(&attributes, dynamic_shared));
  CHECK(attributes.maxDynamicSharedSizeBytes == 100 * 1024);
  CHECK(attributes.maxThreadsPerBlock == 1024);
  CHECK(attributes.ptxVersion == 90);
  ok(cudaFuncGetAttributes(&attributes, bounded));
  CHECK(attributes.maxThreadsPerBlock == 128);
  CHECK(attributes.numRegs > 0);
  ok(cudaFree(device));
}

TEST_CASE("Occupancy is what threads and shared memory leave") {
  Quiet quiet;
  int blocks = 0, grid = 0, block = 0;
  ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill, 1024, 0));
  CHECK(blocks == 2);
  ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill, 32, 0));
  CHECK(blocks == 32);
  ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill, 32, 40 * 1024));
  CHECK(blocks == 5);
  ok(cudaOccupancyMaxPotentialBlockSize(&grid, &block, fill, 0, 0));
  CHECK(block == 1024);
  CHECK(grid == 2 * 132);
}

TEST_CASE("Kernels in streams that nothing orders are found") {
  for (const uint64_t seed : {0, 1, 2, 3}) {
    Quiet quiet(seed);
    cudaStream_t a, b;
    ok(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    int* device = on_device<int>(64);
    fill<<<1, 64, 0, a>>>(device, 64, 1);
    fill<<<1, 64, 0, b>>>(device, 64, 2);
    ok(cudaDeviceSynchronize());
    CHECK(taken(Finding::What::unordered) > 0);
    fill<<<1, 64, 0, a>>>(device, 64, 1);
    ok(cudaStreamSynchronize(a));
    fill<<<1, 64, 0, b>>>(device, 64, 2);
    ok(cudaDeviceSynchronize());
    CHECK(gpusim::take_findings().empty());
    ok(cudaStreamDestroy(a));
    ok(cudaStreamDestroy(b));
    ok(cudaFree(device));
  }
}

TEST_CASE("A fault in a kernel is every later call's answer until the device is reset") {
  Quiet quiet;
  int* device = on_device<int>(64);
  out_of_bounds<<<1, 1>>>(device);
  ok(cudaGetLastError());
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(taken(Finding::What::out_of_bounds) == 1);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  void* more = nullptr;
  CHECK(cudaMalloc(&more, 4) == cudaErrorIllegalAddress);
  ok(cudaSetDevice(1));
  ok(cudaMalloc(&more, 4));  // the other device has nothing to do with it
  ok(cudaFree(more));
  ok(cudaSetDevice(0));
  ok(cudaDeviceReset());
  cudaGetLastError();
  trapping<<<1, 1>>>();
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  CHECK(taken(Finding::What::trap) == 1);
  ok(cudaDeviceReset());
  cudaGetLastError();
  CHECK(cudaMemset(device, 0, 4) == cudaErrorInvalidValue);  // gone with the reset
  CHECK(taken(Finding::What::use_after_free) == 1);
  cudaGetLastError();
}

TEST_CASE("Launches are done on the device of their stream") {
  Quiet quiet;
  cudaStream_t stream;
  ok(cudaStreamCreate(&stream));
  ok(cudaSetDevice(1));
  int* device = on_device<int>(64);
  fill<<<1, 64, 0, stream>>>(device, 64, 1);
  CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
  fill<<<1, 64>>>(device, 64, 3);
  CHECK(on_host(device, 64)[63] == 66);
  ok(cudaFree(device));
  ok(cudaSetDevice(0));
  ok(cudaStreamDestroy(stream));
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Attributes of a launch") {
  Quiet quiet;
  int* device = on_device<int>(64);
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = 1;
  config.blockDim = 64;
  config.attrs = &attribute;
  config.numAttrs = 1;
  ok(cudaLaunchKernelEx(&config, fill, device, 64, 9));
  CHECK(on_host(device, 1)[0] == 9);
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {2, 1, 1};
  CHECK(cudaLaunchKernelEx(&config, fill, device, 64, 9) == cudaErrorNotSupported);
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  config.gridDim = 1 << 20;
  CHECK(cudaLaunchKernelEx(&config, fill, device, 64, 9) == cudaErrorCooperativeLaunchTooLarge);
  ok(cudaFree(device));
  cudaGetLastError();
}

TEST_CASE("Kernels touch another device's memory only where that was enabled") {
  Quiet quiet;
  ok(cudaSetDevice(1));
  int* there = on_device<int>(64);
  ok(cudaSetDevice(0));
  int can = 0;
  ok(cudaDeviceCanAccessPeer(&can, 0, 1));
  CHECK(can == 1);
  ok(cudaDeviceEnablePeerAccess(1, 0));
  CHECK(cudaDeviceEnablePeerAccess(1, 0) == cudaErrorPeerAccessAlreadyEnabled);
  fill<<<1, 64>>>(there, 64, 0);
  ok(cudaDeviceSynchronize());
  CHECK(on_host(there, 64)[63] == 63);
  ok(cudaDeviceDisablePeerAccess(1));
  CHECK(gpusim::take_findings().empty());
  fill<<<1, 64>>>(there, 64, 0);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(taken(Finding::What::out_of_bounds) == 1);
  ok(cudaDeviceReset());
  cudaGetLastError();
}

TEST_CASE("Kernels read and write pinned memory in its place") {
  Quiet quiet;
  int* host = pinned<int>(64);
  int* device = nullptr;
  ok(cudaHostGetDevicePointer(&device, host, 0));
  fill<<<1, 64>>>(device, 64, 7);
  ok(cudaDeviceSynchronize());
  CHECK(host[63] == 70);
  ok(cudaFreeHost(host));
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("A captured kernel is replayed, with the arguments of the capture or later ones") {
  for (const uint64_t seed : {0, 1, 2}) {
    Quiet quiet(seed);
    Stream stream;
    int* device = on_device<int>(64);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    int value = 5, count = 64;
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    fill<<<1, 64, 0, stream>>>(device, count, value);
    ok(cudaStreamEndCapture(stream, &graph));
    ok(cudaGraphInstantiate(&exec, graph, 0));
    ok(cudaGraphLaunch(exec, stream));
    ok(cudaStreamSynchronize(stream));
    CHECK(on_host(device, 64)[1] == 6);
    cudaGraphNode_t node = nullptr;
    size_t nodes = 1;
    ok(cudaGraphGetNodes(graph, &node, &nodes));
    value = 8;
    void* arguments[] = {&device, &count, &value};
    cudaKernelNodeParams parameters = {};
    parameters.func = reinterpret_cast<void*>(fill);
    parameters.gridDim = 1;
    parameters.blockDim = 64;
    parameters.kernelParams = arguments;
    ok(cudaGraphExecKernelNodeSetParams(exec, node, &parameters));
    ok(cudaGraphLaunch(exec, stream));
    ok(cudaStreamSynchronize(stream));
    CHECK(on_host(device, 64)[1] == 9);
    ok(cudaGraphExecDestroy(exec));
    ok(cudaGraphDestroy(graph));
    ok(cudaFree(device));
    CHECK(gpusim::take_findings().empty());
  }
}

namespace {
__global__ void add_into(int* to, const int* from, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) to[i] += from[i];
}
}  // namespace

TEST_CASE("A missing event between a copy and the kernel that needs it is found in every order") {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Quiet quiet(seed);
    Stream copies, kernels;
    Event copied, used;
    int *from = on_device<int>(64), *to = on_device<int>(64), *host = pinned<int>(64);
    ok(cudaMemset(to, 0, 256));
    ok(cudaDeviceSynchronize());
    std::fill_n(host, 64, 3);
    for (const bool with_event : {true, false}) {
      ok(cudaMemcpyAsync(from, host, 256, cudaMemcpyHostToDevice, copies));
      ok(cudaEventRecord(copied, copies));
      if (with_event) ok(cudaStreamWaitEvent(kernels, copied, 0));
      add_into<<<1, 64, 0, kernels>>>(to, from, 64);
      ok(cudaDeviceSynchronize());
      CHECK((taken(Finding::What::unordered) > 0) == !with_event);
    }
    ok(cudaFree(from));
    ok(cudaFree(to));
    ok(cudaFreeHost(host));
  }
}
