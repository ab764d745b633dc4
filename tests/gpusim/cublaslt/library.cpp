#include "gpusim/cublaslt/library.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace gpusim::lt {
namespace {

struct Logger {
  std::mutex mutex;
  cublasLtLoggerCallback_t callback = nullptr;
  FILE* file = nullptr;  // null: stderr
  bool errors = false, never = false;

  Logger() {
    const char* level = std::getenv("CUBLASLT_LOG_LEVEL");
    errors = level && std::atoi(level) > 0;
  }
};

Logger& logger() {
  static Logger logger;
  return logger;
}

struct Name {
  cublasStatus_t status;
  const char* name;
  const char* text;
};
constexpr Name names[] = {
    {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
    {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE",
     "an unsupported value or parameter was passed to the function"},
    {CUBLAS_STATUS_ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH",
     "the function requires an architectural feature absent from the device"},
    {CUBLAS_STATUS_MAPPING_ERROR, "CUBLAS_STATUS_MAPPING_ERROR", "an access to GPU memory space failed"},
    {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED", "the function failed to launch on the GPU"},
    {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
    {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the requested functionality is not supported"},
    {CUBLAS_STATUS_LICENSE_ERROR, "CUBLAS_STATUS_LICENSE_ERROR", "the license check failed"},
};

}  // namespace

cublasStatus_t answer(const char* function, const Refusal& refusal) {
  Logger& l = logger();
  std::unique_lock lock(l.mutex);
  if (l.never) return refusal.status;
  if (l.errors) fmt::print(l.file ? l.file : stderr, "[cublasLt][Error][{}] {}\n", function, refusal.why);
  const auto callback = l.callback;
  lock.unlock();
  if (callback) callback(1, function, refusal.why.c_str());
  return refusal.status;
}

}  // namespace gpusim::lt

using namespace gpusim;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasLtContext{device};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }
cublasStatus_t cublasLtGetProperty(libraryPropertyType type, int* value) {
  if (!value) return CUBLAS_STATUS_INVALID_VALUE;
  switch (type) {
    case MAJOR_VERSION:
      *value = CUBLAS_VER_MAJOR;
      return CUBLAS_STATUS_SUCCESS;
    case MINOR_VERSION:
      *value = CUBLAS_VER_MINOR;
      return CUBLAS_STATUS_SUCCESS;
    case PATCH_LEVEL:
      *value = CUBLAS_VER_PATCH;
      return CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  for (const auto& n : lt::names)
    if (n.status == status) return n.name;
  return "unrecognized status";
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  for (const auto& n : lt::names)
    if (n.status == status) return n.text;
  return "unrecognized status";
}

cublasStatus_t cublasLtLoggerSetCallback(cublasLtLoggerCallback_t callback) {
  const std::lock_guard lock(lt::logger().mutex);
  lt::logger().callback = callback;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtLoggerSetFile(FILE* file) {
  const std::lock_guard lock(lt::logger().mutex);
  lt::logger().file = file;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtLoggerOpenFile(const char* path) {
  FILE* file = path ? std::fopen(path, "w") : nullptr;
  return file ? cublasLtLoggerSetFile(file) : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtLoggerSetLevel(int level) {
  if (level < 0 || level > 5) return CUBLAS_STATUS_INVALID_VALUE;
  const std::lock_guard lock(lt::logger().mutex);
  lt::logger().errors = level > 0;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtLoggerSetMask(int mask) {
  const std::lock_guard lock(lt::logger().mutex);
  lt::logger().errors = mask & 1;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtLoggerForceDisable() {
  const std::lock_guard lock(lt::logger().mutex);
  lt::logger().never = true;
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
