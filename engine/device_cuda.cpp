#include <cublasLt.h>

#include "engine/cuda.h"

namespace lightcone::cuda {

namespace {
std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

std::string why_no_cublaslt() {
  try {
    cublasLtGetVersion();
  } catch (const Error& e) {  // cublaslt_library_cuda.cpp
    return e.what();
  }
  return "";
}
}  // namespace

std::string why_none() {
  int driver = 0, runtime = 0, count = 0, major = 0, minor = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) return "no NVIDIA driver is installed";
  cudaRuntimeGetVersion(&runtime);
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) {
    status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    if (status == cudaSuccess && major >= 8) return why_no_cublaslt();
  }
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver)
    return fmt::format("the NVIDIA driver is for CUDA {}, this program for {}: update the driver", version(driver),
                       version(runtime));
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) return "no GPU answers";
  if (status != cudaSuccess) return fmt::format("the GPU does not answer: {}", cudaGetErrorString(status));
  return fmt::format("the GPU has compute capability {}.{}, 8.0 is the least", major, minor);
}

std::string gpu_text() {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0), "asking for the GPU's name");
  return fmt::format("{}, {:.0f} GiB, compute capability {}.{}", properties.name,
                     static_cast<double>(properties.totalGlobalMem) / double(1 << 30), properties.major,
                     properties.minor);
}

}  // namespace lightcone::cuda
