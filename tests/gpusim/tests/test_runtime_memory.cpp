#include <cstring>
#include <numeric>

#include "gpusim/tests/runtime_support.h"

using gpusim::Finding;

TEST_CASE("Bytes come back from a device as they went there") {
  Quiet quiet;
  std::vector<int> sent(1000), received(1000);
  std::iota(sent.begin(), sent.end(), 7);
  int* first = on_device<int>(1000);
  int* second = on_device<int>(1000);
  ok(cudaMemcpy(first, sent.data(), 4000, cudaMemcpyHostToDevice));
  ok(cudaMemcpy(second, first, 4000, cudaMemcpyDeviceToDevice));
  ok(cudaMemcpy(received.data(), second, 4000, cudaMemcpyDefault));
  CHECK(received == sent);
  ok(cudaMemset(first, 0xAB, 2000));
  ok(cudaMemcpy(received.data(), first, 4000, cudaMemcpyDeviceToHost));
  CHECK(received[499] == static_cast<int>(0xABABABAB));
  CHECK(received[500] == 507);
  ok(cudaFree(first));
  ok(cudaFree(second));
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Copies of rows leave what lies between the rows") {
  Quiet quiet;
  size_t pitch = 0;
  void* rows = nullptr;
  ok(cudaMallocPitch(&rows, &pitch, 12, 3));
  CHECK(pitch >= 12);
  ok(cudaMemset2D(rows, pitch, 0, pitch, 3));
  const std::vector<uint8_t> sent{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  ok(cudaMemcpy2D(rows, pitch, sent.data(), 4, 4, 3, cudaMemcpyHostToDevice));
  std::vector<uint8_t> received(3 * pitch, 99);
  ok(cudaMemcpy(received.data(), rows, 3 * pitch, cudaMemcpyDeviceToHost));
  for (size_t row = 0; row < 3; ++row) {
    CHECK(received[row * pitch + 3] == sent[row * 4 + 3]);
    CHECK(received[row * pitch + 4] == 0);
  }
  CHECK(cudaMemcpy2D(rows, 3, sent.data(), 4, 4, 3, cudaMemcpyHostToDevice) == cudaErrorInvalidPitchValue);
  ok(cudaFree(rows));
  CHECK(cudaGetLastError() == cudaErrorInvalidPitchValue);
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Copies that leave an allocation, or come after its end, are found and not done") {
  Quiet quiet;
  char host[64] = {};
  char* device = on_device<char>(32);
  CHECK(cudaMemcpy(device + 1, host, 32, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(taken(Finding::What::out_of_bounds) == 1);
  CHECK(cudaMemset(device, 0, 33) == cudaErrorInvalidValue);
  CHECK(taken(Finding::What::out_of_bounds) == 1);
  ok(cudaFree(device));
  CHECK(cudaMemcpy(host, device, 32, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(taken(Finding::What::use_after_free) == 1);
  CHECK(cudaFree(device) == cudaErrorInvalidValue);
  CHECK(taken(Finding::What::use_after_free) == 1);
  CHECK(cudaFree(host) == cudaErrorInvalidValue);
  CHECK(taken(Finding::What::misuse) == 1);
  cudaGetLastError();
}

TEST_CASE("A copy's kind has to be what its pointers are") {
  Quiet quiet;
  int host[2] = {1, 2};
  int* device = on_device<int>(2);
  CHECK(cudaMemcpy(device, host, 8, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(taken(Finding::What::misuse) == 1);
  CHECK(cudaMemcpy(host + 1, host, 4, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(taken(Finding::What::misuse) == 1);
  CHECK(cudaMemcpy(device, host, 8, static_cast<cudaMemcpyKind>(9)) == cudaErrorInvalidMemcpyDirection);
  ok(cudaMemcpy(host + 1, host, 4, cudaMemcpyDefault));
  CHECK(host[1] == 1);
  ok(cudaFree(device));
  cudaGetLastError();
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("What nothing wrote is found when it comes back to the host") {
  Quiet quiet;
  int host[4];
  int* device = on_device<int>(4);
  ok(cudaMemset(device, 0, 8));
  ok(cudaMemcpy(host, device, 8, cudaMemcpyDeviceToHost));
  CHECK(gpusim::take_findings().empty());
  ok(cudaMemcpy(host, device, 16, cudaMemcpyDeviceToHost));
  CHECK(taken(Finding::What::uninitialised_read) == 1);
  ok(cudaFree(device));
}

TEST_CASE("Memory is counted, and runs out") {
  Quiet quiet;
  size_t before = 0, after = 0, total = 0;
  ok(cudaMemGetInfo(&before, &total));
  void* device = on_device<char>(1 << 20);
  ok(cudaMemGetInfo(&after, &total));
  CHECK(before - after == 1 << 20);
  ok(cudaFree(device));
  CHECK(cudaMalloc(&device, total + 1) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  void* managed = nullptr;
  CHECK(cudaMallocManaged(&managed, 4) == cudaErrorNotSupported);
  cudaGetLastError();
}

TEST_CASE("Pointers tell what they are") {
  Quiet quiet;
  cudaPointerAttributes attributes;
  ok(cudaSetDevice(1));
  void* device = on_device<char>(8);
  ok(cudaSetDevice(0));
  ok(cudaPointerGetAttributes(&attributes, device));
  CHECK(attributes.type == cudaMemoryTypeDevice);
  CHECK(attributes.device == 1);
  void* host = pinned<char>(8);
  ok(cudaPointerGetAttributes(&attributes, host));
  CHECK(attributes.type == cudaMemoryTypeHost);
  ok(cudaPointerGetAttributes(&attributes, &attributes));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  ok(cudaHostRegister(&attributes, sizeof attributes, cudaHostRegisterDefault));
  CHECK(cudaHostRegister(&attributes, 1, cudaHostRegisterDefault) == cudaErrorHostMemoryAlreadyRegistered);
  ok(cudaHostUnregister(&attributes));
  CHECK(cudaHostUnregister(&attributes) == cudaErrorHostMemoryNotRegistered);
  ok(cudaFree(device));
  ok(cudaFreeHost(host));
  cudaGetLastError();
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Copies between devices") {
  Quiet quiet;
  int value = 42;
  int* here = on_device<int>(1);
  ok(cudaMemcpy(here, &value, 4, cudaMemcpyHostToDevice));
  ok(cudaSetDevice(1));
  int* there = on_device<int>(1);
  ok(cudaMemcpyPeer(there, 1, here, 0, 4));
  value = 0;
  ok(cudaMemcpy(&value, there, 4, cudaMemcpyDeviceToHost));
  CHECK(value == 42);
  CHECK(cudaMemcpyPeer(there, 0, here, 0, 4) == cudaErrorInvalidValue);
  ok(cudaFree(there));
  ok(cudaSetDevice(0));
  ok(cudaFree(here));
  cudaGetLastError();
  CHECK(gpusim::take_findings().empty());
}

TEST_CASE("Allocation in stream order") {
  bool used_after_free = false;
  for (const uint64_t seed : {0, 1, 2, 3, 4, 5}) {
    Quiet quiet(seed);
    cudaStream_t stream, other;
    ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    void* memory = nullptr;
    ok(cudaMallocAsync(&memory, 64, stream));
    ok(cudaMemsetAsync(memory, 1, 64, stream));
    ok(cudaFreeAsync(memory, stream));
    ok(cudaStreamSynchronize(stream));
    CHECK(gpusim::take_findings().empty());
    CHECK(cudaMemsetAsync(memory, 1, 64, stream) == cudaErrorInvalidValue);
    CHECK(taken(Finding::What::use_after_free) == 1);
    // Freed in one stream, used in another.
    ok(cudaMallocAsync(&memory, 64, stream));
    ok(cudaFreeAsync(memory, stream));
    ok(cudaMemsetAsync(memory, 1, 64, other));
    ok(cudaDeviceSynchronize());
    used_after_free |= taken(Finding::What::use_after_free) > 0;
    cudaMemPool_t pool = nullptr;
    ok(cudaDeviceGetDefaultMemPool(&pool, 0));
    uint64_t used = 1;
    ok(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
    CHECK(used == 0);
    ok(cudaStreamDestroy(stream));
    ok(cudaStreamDestroy(other));
    cudaGetLastError();
  }
  CHECK(used_after_free);
}
