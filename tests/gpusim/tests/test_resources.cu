// What ptxas gave these kernels, read from the machine code.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "gpusim/error.h"
#include "gpusim/resources.h"

namespace {

__global__ void plain_kernel(float* x) { x[threadIdx.x] *= 2; }

__global__ void shared_kernel(float* x) {
  __shared__ float s[300];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[299 - threadIdx.x];
}

// 64 values at 32 registers a thread.
__global__ void __launch_bounds__(1024, 2) spilling_kernel(float* x) {
  float values[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) values[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = values[63 - i] + values[i * 7 % 64];
}

void check(const std::vector<gpusim::Resources>& all) {
  int found = 0;
  for (const auto& r : all) {
    INFO(r.kernel << " for sm_" << r.target << ": " << r.registers << " registers, " << r.shared_bytes << " shared, "
                  << r.local_bytes << " local");
    auto is = [&](const char* name) { return r.kernel.find(name) != std::string::npos; };
    if (!is("plain_kernel") && !is("shared_kernel") && !is("spilling_kernel")) continue;
    ++found;
    CHECK((r.target == 80 || r.target == 90));
    CHECK(r.shared_bytes == (is("shared_kernel") ? 1200 : 0));
    CHECK((r.local_bytes > 0) == is("spilling_kernel"));
    if (is("spilling_kernel")) CHECK(r.registers == 32);
    CHECK(r.registers > 0);
    CHECK(r.registers <= 32);
  }
  CHECK(found == 6);
}

}  // namespace

TEST_CASE("resources: registers, shared and local memory are those of the machine code") {
  CHECK(reinterpret_cast<const void*>(plain_kernel) != reinterpret_cast<const void*>(shared_kernel));
  CHECK(reinterpret_cast<const void*>(spilling_kernel) != nullptr);
  check(gpusim::resources());
  check(gpusim::resources_in("/proc/self/exe"));
}

TEST_CASE("resources: files that are none are refused, others have no kernels") {
  CHECK_THROWS_AS(gpusim::resources_in("/no/such/file"), gpusim::Error);
  const auto path = std::filesystem::temp_directory_path() / "gpusim_resources_test";
  std::ofstream(path) << "nothing in here";
  CHECK(gpusim::resources_in(path).empty());
  // A header, and an entry that is cut short; put together here, so that this program does not hold one.
  std::string bytes(
      "\x51\xed\x55\xba\x01\x00\x10\x00\x08\x00\x00\x00\x00\x00\x00\x00"
      "12345678",
      24);
  --bytes[0];
  std::ofstream(path, std::ios::binary) << bytes;
  CHECK_THROWS_AS(gpusim::resources_in(path), gpusim::Error);
  std::filesystem::remove(path);
}
