#include <cstring>
#include <thread>

#include "gpusim/tests/runtime_support.h"

namespace {

int attribute(cudaDeviceAttr of, int device = 0) {
  int value = -1;
  ok(cudaDeviceGetAttribute(&value, of, device));
  return value;
}

}  // namespace

TEST_CASE("There are two devices with the facts of an H100") {
  Quiet quiet;
  int count = 0;
  ok(cudaGetDeviceCount(&count));
  CHECK(count == 2);
  cudaDeviceProp p;
  ok(cudaGetDeviceProperties(&p, 1));
  CHECK(p.major == 9);
  CHECK(p.minor == 0);
  CHECK(p.multiProcessorCount == 132);
  CHECK(p.sharedMemPerBlock == 49152);
  CHECK(p.sharedMemPerBlockOptin == 227 * 1024);
  CHECK(p.warpSize == 32);
  CHECK(p.totalGlobalMem == uint64_t{80} << 30);
  CHECK(std::strstr(p.name, "gpusim") != nullptr);
  CHECK(cudaGetDeviceProperties(&p, 2) == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
}

TEST_CASE("Attributes say what the properties say") {
  Quiet quiet;
  cudaDeviceProp p;
  ok(cudaGetDeviceProperties(&p, 0));
  CHECK(attribute(cudaDevAttrMultiProcessorCount) == p.multiProcessorCount);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) == static_cast<int>(p.sharedMemPerBlockOptin));
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) == static_cast<int>(p.sharedMemPerMultiprocessor));
  CHECK(attribute(cudaDevAttrMaxThreadsPerMultiProcessor) == p.maxThreadsPerMultiProcessor);
  CHECK(attribute(cudaDevAttrMaxBlocksPerMultiprocessor) == p.maxBlocksPerMultiProcessor);
  CHECK(attribute(cudaDevAttrMaxGridDimY) == p.maxGridSize[1]);
  CHECK(attribute(cudaDevAttrMaxBlockDimZ) == p.maxThreadsDim[2]);
  CHECK(attribute(cudaDevAttrL2CacheSize) == p.l2CacheSize);
  CHECK(attribute(cudaDevAttrComputeCapabilityMajor) == p.major);
  CHECK(attribute(cudaDevAttrManagedMemory) == p.managedMemory);
  CHECK(attribute(cudaDevAttrClusterLaunch) == 0);
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(0), 0) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST_CASE("Each thread has a current device and a last error of its own") {
  Quiet quiet;
  CHECK(cudaSetDevice(7) == cudaErrorInvalidDevice);
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidDevice);
  int here = -1, there = -1;
  cudaError_t error_there = cudaErrorUnknown;
  ok(cudaSetDevice(1));
  std::thread([&] {
    error_there = cudaPeekAtLastError();
    cudaGetDevice(&there);
  }).join();
  ok(cudaGetDevice(&here));
  CHECK(here == 1);
  CHECK(there == 0);
  CHECK(error_there == cudaSuccess);
  ok(cudaSetDevice(0));
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("Limits, buses, priorities, versions") {
  Quiet quiet;
  size_t limit = 0;
  ok(cudaDeviceSetLimit(cudaLimitPrintfFifoSize, 12345));
  ok(cudaDeviceGetLimit(&limit, cudaLimitPrintfFifoSize));
  CHECK(limit == 12345);
  CHECK(cudaDeviceSetLimit(static_cast<cudaLimit>(77), 1) == cudaErrorUnsupportedLimit);
  char bus[32];
  int device = -1, least = 1, greatest = 1, version = 0;
  ok(cudaDeviceGetPCIBusId(bus, sizeof bus, 1));
  ok(cudaDeviceGetByPCIBusId(&device, bus));
  CHECK(device == 1);
  ok(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  CHECK(least > greatest);
  ok(cudaRuntimeGetVersion(&version));
  CHECK(version == CUDART_VERSION);
  void* function = &function;
  cudaDriverEntryPointQueryResult found;
  ok(cudaGetDriverEntryPointByVersion("cuInit", &function, 13000, cudaEnableDefault, &found));
  CHECK(found == cudaDriverEntryPointSymbolNotFound);
  CHECK(function == nullptr);
  cudaGetLastError();
}

TEST_CASE("Errors have the names of their constants") {
  CHECK(std::string(cudaGetErrorName(cudaErrorIllegalAddress)) == "cudaErrorIllegalAddress");
  CHECK(std::string(cudaGetErrorString(cudaErrorMemoryAllocation)) == "out of memory");
  CHECK(std::string(cudaGetErrorName(static_cast<cudaError_t>(12345))) == "unrecognized error code");
}
