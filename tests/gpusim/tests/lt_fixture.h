#pragma once
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "gpusim/report.h"
#include "lt_reference.h"

// What a program does to call cublasLt, in short.

namespace lt_test {

/// Device memory that is freed with it.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes) { REQUIRE(cudaMalloc(&pointer_, bytes) == cudaSuccess); }
  explicit Buffer(const std::vector<uint8_t>& bytes) : Buffer(bytes.size()) {
    REQUIRE(cudaMemcpy(pointer_, bytes.data(), bytes.size(), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  explicit Buffer(float x) : Buffer(sizeof x) { set(x); }
  /// A matrix' elements; what is between its columns stays unwritten, and so a read of it is found.
  explicit Buffer(const Matrix& x) : Buffer(x.bytes.size()) {
    const size_t size = size_t(size_of(x.type)), pitch = size_t(x.ld) * size;
    REQUIRE(cudaMemcpy2D(pointer_, pitch, x.bytes.data(), pitch, size_t(x.length()) * size, size_t(x.lines() * x.batch),
                         cudaMemcpyHostToDevice) == cudaSuccess);
  }
  Buffer(Buffer&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(pointer_, other.pointer_);
    return *this;
  }
  ~Buffer() { cudaFree(pointer_); }

  void set(float x) { REQUIRE(cudaMemcpy(pointer_, &x, sizeof x, cudaMemcpyHostToDevice) == cudaSuccess); }
  float value() const { return read<float>(1)[0]; }
  template <class T>
  std::vector<T> read(size_t count) const {
    std::vector<T> x(count);
    REQUIRE(cudaMemcpy(x.data(), pointer_, count * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return x;
  }
  template <class T = void>
  T* get(size_t offset = 0) const {
    return reinterpret_cast<T*>(static_cast<uint8_t*>(pointer_) + offset);
  }

 private:
  void* pointer_ = nullptr;
};

class Handle {
 public:
  Handle() { REQUIRE(cublasLtCreate(&handle_) == CUBLAS_STATUS_SUCCESS); }
  Handle(const Handle&) = delete;
  ~Handle() { cublasLtDestroy(handle_); }
  operator cublasLtHandle_t() const { return handle_; }

 private:
  cublasLtHandle_t handle_ = nullptr;
};

class Descriptor {
 public:
  Descriptor(cublasComputeType_t compute, cudaDataType scale) {
    REQUIRE(cublasLtMatmulDescInit(&opaque_, compute, scale) == CUBLAS_STATUS_SUCCESS);
  }
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    REQUIRE(cublasLtMatmulDescSetAttribute(&opaque_, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS);
  }
  operator cublasLtMatmulDesc_t() { return &opaque_; }

 private:
  cublasLtMatmulDescOpaque_t opaque_;
};

class Layout {
 public:
  explicit Layout(const Matrix& x) {
    REQUIRE(cublasLtMatrixLayoutInit(&opaque_, x.type, uint64_t(x.rows), uint64_t(x.cols), x.ld) ==
            CUBLAS_STATUS_SUCCESS);
    set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(x.row_order ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL));
    set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, int32_t(x.batch));
    set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, int64_t(x.stride()));
  }
  template <class T>
  void set(cublasLtMatrixLayoutAttribute_t attribute, const T& value) {
    REQUIRE(cublasLtMatrixLayoutSetAttribute(&opaque_, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS);
  }
  operator cublasLtMatrixLayout_t() { return &opaque_; }

 private:
  cublasLtMatrixLayoutOpaque_t opaque_;
};

class Preference {
 public:
  Preference() { REQUIRE(cublasLtMatmulPreferenceInit(&opaque_) == CUBLAS_STATUS_SUCCESS); }
  template <class T>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    REQUIRE(cublasLtMatmulPreferenceSetAttribute(&opaque_, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS);
  }
  operator cublasLtMatmulPreference_t() { return &opaque_; }

 private:
  cublasLtMatmulPreferenceOpaque_t opaque_;
};

inline bool has_fp8() {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
  return major * 10 + minor >= 89;
}

/// Waits for the device; what was found since the last call.
inline std::vector<gpusim::Finding> findings() {
  cudaDeviceSynchronize();
  return gpusim::take_findings();
}

}  // namespace lt_test
