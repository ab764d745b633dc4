#pragma once
#include <random>

#include "lt_fixture.h"

namespace lt_test {

/// Why cublasLt refused the last call, as it tells its logger.
inline std::string last_reason;
inline void keep_reason(int, const char*, const char* message) { last_reason = message; }

/// A matmul that is legal: D (32 by 16) = op(A) op(B), k = 64, one batch or two.
struct Call {
  Matrix a, b, c, d;
  Handle handle;
  Descriptor op;
  Layout la, lb, lc, ld;
  Preference preference;
  Buffer da, db, dc, dd, dbias, daux, scalar, work;
  const void *pa, *pb, *pc;
  void *pd, *workspace = nullptr;
  size_t workspace_bytes = 0;
  float one = 1;
  const void *alpha = &one, *beta = &one;
  const cublasLtMatmulAlgo_t* algorithm = nullptr;
  cublasLtMatmulHeuristicResult_t results[4] = {};
  int count = 0;

  static Matrix filled(Matrix x) {
    std::mt19937 random(5);
    x.fill(random);
    return x;
  }
  Call(cublasComputeType_t compute, cudaDataType scale, cudaDataType ab, cudaDataType ct, cudaDataType dt,
       int batch = 1)
      : a(filled({ab, 64, 32, 0, batch})),
        b(filled({ab, 64, 16, 0, batch})),
        c(filled({ct, 32, 16, 0, batch})),
        d(dt, 32, 16, 0, batch),
        op(compute, scale),
        la(a),
        lb(b),
        lc(c),
        ld(d),
        da(a),
        db(b),
        dc(c),
        dd(d.bytes.size()),
        dbias(std::vector<uint8_t>(4096)),
        daux(std::vector<uint8_t>(8192)),
        scalar(1.f),
        work(size_t{1} << 20),
        pa(da.get()),
        pb(db.get()),
        pc(dc.get()),
        pd(dd.get()) {
    op.set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t(CUBLAS_OP_T));
    cublasLtLoggerSetCallback(keep_reason);
    gpusim::take_findings();
  }

  cublasStatus_t heuristic(int most = 4) {
    count = -1;
    return cublasLtMatmulAlgoGetHeuristic(handle, op, la, lb, lc, ld, preference, most, results, &count);
  }
  cublasStatus_t matmul(cudaStream_t stream = nullptr) {
    return cublasLtMatmul(handle, op, alpha, pa, la, pb, lb, beta, pc, lc, pd, ld, algorithm, workspace,
                          workspace_bytes, stream);
  }
  void epilogue(uint32_t epilogue) {
    op.set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    op.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, dbias.get());
    op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, daux.get());
    op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t{128});
  }
};

inline Call f32(int batch = 1) { return {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, batch}; }
inline Call bf16() { return {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF}; }
inline Call int8() { return {CUBLAS_COMPUTE_32I, CUDA_R_32F, CUDA_R_8I, CUDA_R_8I, CUDA_R_8I}; }
inline Call fp8(cudaDataType c = CUDA_R_16BF, cudaDataType d = CUDA_R_16BF, int batch = 1) {
  return {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_8F_E4M3, c, d, batch};
}

inline constexpr auto INVALID = CUBLAS_STATUS_INVALID_VALUE, UNSUPPORTED = CUBLAS_STATUS_NOT_SUPPORTED;

}  // namespace lt_test
