#include "gpusim/cublaslt/descriptors.h"

#include <cstring>
#include <new>
#include <span>

namespace gpusim::lt {
namespace {

template <class Held, class Opaque>
Held& held(Opaque* opaque) {
  static_assert(sizeof(Held) <= sizeof(Opaque) && alignof(Held) <= alignof(Opaque));
  return *std::launder(reinterpret_cast<Held*>(opaque));
}

}  // namespace

Layout& of(cublasLtMatrixLayout_t layout) { return held<Layout>(layout); }
Operator& of(cublasLtMatmulDesc_t descriptor) { return held<Operator>(descriptor); }
Preference& of(cublasLtMatmulPreference_t preference) { return held<Preference>(preference); }

namespace {

using Field = std::span<std::byte>;

template <class T>
Field bytes(T& field) {
  return std::as_writable_bytes(std::span(&field, 1));
}

Field field(Layout& x, cublasLtMatrixLayoutAttribute_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return bytes(x.type);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return bytes(x.order);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return bytes(x.rows);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return bytes(x.cols);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return bytes(x.ld);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return bytes(x.batch_count);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return bytes(x.batch_stride);
    case CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET:
      return bytes(x.plane_offset);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_MODE:
      return bytes(x.batch_mode);
  }
  return {};
}

Field field(Operator& x, cublasLtMatmulDescAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return bytes(x.compute);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return bytes(x.scale_type);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return bytes(x.pointer_mode);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return bytes(x.transpose_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return bytes(x.transpose_b);
    case CUBLASLT_MATMUL_DESC_TRANSC:
      return bytes(x.transpose_c);
    case CUBLASLT_MATMUL_DESC_FILL_MODE:
      return bytes(x.fill_mode);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return bytes(x.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return bytes(x.bias);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
      return bytes(x.bias_stride);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return bytes(x.aux);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return bytes(x.aux_ld);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
      return bytes(x.aux_stride);
    case CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE:
      return bytes(x.alpha_stride);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
      return bytes(x.sm_count);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
      return bytes(x.a.pointer);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
      return bytes(x.b.pointer);
    case CUBLASLT_MATMUL_DESC_C_SCALE_POINTER:
      return bytes(x.c.pointer);
    case CUBLASLT_MATMUL_DESC_D_SCALE_POINTER:
      return bytes(x.d.pointer);
    case CUBLASLT_MATMUL_DESC_AMAX_D_POINTER:
      return bytes(x.amax_d);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
      return bytes(x.aux_type);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_POINTER:
      return bytes(x.aux_scale.pointer);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_AMAX_POINTER:
      return bytes(x.amax_aux);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
      return bytes(x.fast_accumulation);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return bytes(x.bias_type);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
      return bytes(x.a.mode);
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
      return bytes(x.b.mode);
    case CUBLASLT_MATMUL_DESC_C_SCALE_MODE:
      return bytes(x.c.mode);
    case CUBLASLT_MATMUL_DESC_D_SCALE_MODE:
      return bytes(x.d.mode);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_MODE:
      return bytes(x.aux_scale.mode);
    case CUBLASLT_MATMUL_DESC_D_OUT_SCALE_POINTER:
      return bytes(x.d_out.pointer);
    case CUBLASLT_MATMUL_DESC_D_OUT_SCALE_MODE:
      return bytes(x.d_out.mode);
    case CUBLASLT_MATMUL_DESC_EMULATION_DESCRIPTOR:
      return bytes(x.emulation);
  }
  return {};
}

Field field(Preference& x, cublasLtMatmulPreferenceAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
      return bytes(x.search);
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return bytes(x.workspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return bytes(x.reductions);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return bytes(x.alignment[0]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return bytes(x.alignment[1]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return bytes(x.alignment[2]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return bytes(x.alignment[3]);
    case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT:
      return bytes(x.waves);
    case CUBLASLT_MATMUL_PREF_IMPL_MASK:
      return bytes(x.implementations);
  }
  return {};
}

template <class Opaque, class Attribute>
cublasStatus_t set(Opaque* opaque, Attribute attribute, const void* value, size_t size) {
  if (!opaque || !value) return CUBLAS_STATUS_INVALID_VALUE;
  const Field f = field(of(opaque), attribute);
  if (f.empty() || f.size() != size) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(f.data(), value, size);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque, class Attribute>
cublasStatus_t get(Opaque* opaque, Attribute attribute, void* value, size_t size, size_t* written) {
  if (!opaque) return CUBLAS_STATUS_INVALID_VALUE;
  const Field f = field(of(opaque), attribute);
  if (f.empty() || (size == 0 ? written == nullptr : value == nullptr || size != f.size()))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (size > 0) std::memcpy(value, f.data(), f.size());
  if (written) *written = f.size();
  return CUBLAS_STATUS_SUCCESS;
}

template <class Held, class Opaque>
cublasStatus_t init(Opaque* opaque, size_t size, const Held& value) {
  if (!opaque) return CUBLAS_STATUS_INVALID_VALUE;
  if (size < sizeof(Opaque)) return CUBLAS_STATUS_ALLOC_FAILED;
  new (opaque) Held(value);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Held, class Opaque>
cublasStatus_t create(Opaque** opaque, const Held& value) {
  if (!opaque) return CUBLAS_STATUS_INVALID_VALUE;
  *opaque = new Opaque;
  return init(*opaque, sizeof(Opaque), value);
}

template <class Opaque>
cublasStatus_t destroy(Opaque* opaque) {
  delete opaque;
  return CUBLAS_STATUS_SUCCESS;
}

Layout layout(cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld) {
  Layout x;
  x.type = uint32_t(type), x.rows = rows, x.cols = cols, x.ld = ld;
  return x;
}

Operator operation(cublasComputeType_t compute, cudaDataType_t scale_type) {
  Operator x;
  x.compute = compute, x.scale_type = scale_type;
  return x;
}

}  // namespace
}  // namespace gpusim::lt

using namespace gpusim;

extern "C" {

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t x, size_t size, cudaDataType type,
                                                 uint64_t rows, uint64_t cols, int64_t ld) {
  return lt::init(x, size, lt::layout(type, rows, cols, ld));
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* x, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
  return lt::create(x, lt::layout(type, rows, cols, ld));
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t x) { return lt::destroy(x); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t x, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t size) {
  return lt::set(x, attribute, value, size);
}
cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t x, cublasLtMatrixLayoutAttribute_t attribute,
                                                void* value, size_t size, size_t* written) {
  return lt::get(x, attribute, value, size, written);
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t x, size_t size, cublasComputeType_t compute,
                                               cudaDataType_t scale_type) {
  return lt::init(x, size, lt::operation(compute, scale_type));
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* x, cublasComputeType_t compute,
                                        cudaDataType_t scale_type) {
  return lt::create(x, lt::operation(compute, scale_type));
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t x) { return lt::destroy(x); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t x, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t size) {
  return lt::set(x, attribute, value, size);
}
cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t x, cublasLtMatmulDescAttributes_t attribute,
                                              void* value, size_t size, size_t* written) {
  return lt::get(x, attribute, value, size, written);
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t x, size_t size) {
  return lt::init(x, size, lt::Preference{});
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* x) { return lt::create(x, lt::Preference{}); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t x) { return lt::destroy(x); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t x,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t size) {
  return lt::set(x, attribute, value, size);
}
cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t x,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void* value,
                                                    size_t size, size_t* written) {
  return lt::get(x, attribute, value, size, written);
}

}  // extern "C"
