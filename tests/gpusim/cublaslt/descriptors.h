#pragma once
#include <cublasLt.h>

#include <cstdint>

namespace gpusim::lt {

// What cuBLASLt's opaque structures hold here. Types, sizes and defaults of the attributes are those of cublasLt.h;
// setting one checks nothing but its size, as in cuBLASLt: what it means is checked with the whole problem (rules.h).

struct Layout {
  uint32_t type = 0;  // cudaDataType
  int32_t order = CUBLASLT_ORDER_COL;
  uint64_t rows = 0, cols = 0;
  int64_t ld = 0;
  int32_t batch_count = 1;
  uint32_t batch_mode = CUBLASLT_BATCH_MODE_STRIDED;
  int64_t batch_stride = 0;  // in elements
  int64_t plane_offset = 0;

  /// Elements from one row, or one column, to the next.
  int64_t row_step() const { return order == CUBLASLT_ORDER_ROW ? ld : 1; }
  int64_t col_step() const { return order == CUBLASLT_ORDER_ROW ? 1 : ld; }
  bool operator==(const Layout&) const = default;
};

/// The pointer and way of one scale factor.
struct Scale {
  const float* pointer = nullptr;
  int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
};

struct Operator {
  int32_t compute = 0;     // cublasComputeType_t
  int32_t scale_type = 0;  // cudaDataType, of alpha and beta
  int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N, transpose_c = CUBLAS_OP_N;
  int32_t fill_mode = CUBLAS_FILL_MODE_FULL;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
  int64_t bias_stride = 0;
  int32_t bias_type = -1, aux_type = -1;
  void* aux = nullptr;
  int64_t aux_ld = 0, aux_stride = 0;
  int64_t alpha_stride = 0;
  Scale a, b, c, d, aux_scale, d_out;
  float* amax_d = nullptr;
  float* amax_aux = nullptr;
  void* emulation = nullptr;
  int32_t sm_count = 0;
  int8_t fast_accumulation = 0;
};

struct Preference {
  uint32_t search = CUBLASLT_SEARCH_BEST_FIT;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint64_t workspace = 0;
  uint32_t alignment[4] = {256, 256, 256, 256};  // A, B, C, D
  float waves = 0;
  uint64_t implementations = ~uint64_t{0};
};

/// An algorithm as the heuristic hands it out: the types it is made for, and how wide it reads and writes each buffer,
/// which that buffer's address, leading dimension and batch stride must be multiples of.
struct Algorithm {
  uint32_t magic = 0;
  uint32_t id = 0;  // plain, split_k
  int32_t compute = 0, scale_type = 0;
  uint32_t types[4] = {};  // A, B, C, D
  uint8_t width[4] = {};   // in bytes
  uint8_t bias_width = 0;

  static constexpr uint32_t known = 0x4c744131;
  static constexpr uint32_t plain = 0, split_k = 1;  // without and with a workspace
};

// The structures live in memory of the caller's: the opaque types' size is all there is.
Layout& of(cublasLtMatrixLayout_t layout);
Operator& of(cublasLtMatmulDesc_t descriptor);
Preference& of(cublasLtMatmulPreference_t preference);

}  // namespace gpusim::lt
