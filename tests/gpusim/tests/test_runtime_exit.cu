#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "gpusim/tests/runtime_support.h"

// What happens at the end of a process, and what its environment changes: this program runs a part of itself again.

namespace {

__global__ void beyond(int* to) { to[100000] = 1; }
__device__ int first_value = 41;
__global__ void add_first_value(int* to) { *to = first_value + 1; }
__global__ void one(int* to) { *to = 1; }

/// The exit status of a skipped test case of this file.
int status_of(const std::string& environment, const std::string& test_case) {
  char self[4096] = {};
  REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  const std::string command =
      environment + " '" + self + "' --no-skip --no-intro '--test-case=" + test_case + "' >/dev/null 2>&1";
  return WEXITSTATUS(std::system(command.c_str()));
}

}  // namespace

TEST_CASE("part: nothing is wrong" * doctest::skip()) {
  one<<<1, 1>>>(on_device<int>(1));
  ok(cudaDeviceSynchronize());
}

TEST_CASE("part: a kernel reads a variable's first value" * doctest::skip()) {
  int* device = on_device<int>(1);
  int value = 0;
  add_first_value<<<1, 1>>>(device);
  ok(cudaMemcpy(&value, device, 4, cudaMemcpyDeviceToHost));
  CHECK(value == 42);
}

TEST_CASE("part: a fault that nobody waits for" * doctest::skip()) {
  beyond<<<1, 1>>>(on_device<int>(1));
  ok(cudaGetLastError());
}

TEST_CASE("part: a host function that nobody waits for" * doctest::skip()) {
  ok(cudaLaunchHostFunc(
      nullptr, [](void*) { std::_Exit(3); }, nullptr));
}

TEST_CASE("part: one device of compute capability 8.0" * doctest::skip()) {
  cudaDeviceProp properties;
  ok(cudaGetDeviceProperties(&properties, 0));
  CHECK(properties.major == 8);
  CHECK(properties.multiProcessorCount == 108);
  cudaFuncAttributes attributes;
  ok(cudaFuncGetAttributes(&attributes, one));
  CHECK(attributes.ptxVersion == 80);
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);
}

TEST_CASE("What streams still hold at the end is run, and findings that nobody took are the exit status") {
  CHECK(status_of("", "part: nothing is wrong") == 0);
  CHECK(status_of("", "part: a kernel reads a variable*s first value") == 0);
  CHECK(status_of("GPUSIM_LEAKS=1", "part: nothing is wrong") == 86);
  CHECK(status_of("", "part: a fault that nobody waits for") == 86);
  CHECK(status_of("", "part: a host function that nobody waits for") == 0);
}

TEST_CASE("The environment chooses the devices") {
  CHECK(status_of("GPUSIM_ARCH=80 GPUSIM_DEVICES=1", "part: one device of compute capability 8.0") == 0);
  CHECK(status_of("", "part: one device of compute capability 8.0") == 1);
}
