#include "engine/cublaslt.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <numeric>

#include "engine/cuda.h"

namespace lightcone::cuda {

namespace {

void check_blas(cublasStatus_t status, const char* where) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(where, "cuBLASLt: {} ({})", cublasLtGetStatusString(status), cublasLtGetStatusName(status));
}

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return CUDA_R_64F;
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::fp8_e4m3:
      return CUDA_R_8F_E4M3;
    default:
      fail("cublaslt", "no products of {}", dtype);
  }
}

/// A product without what may be left out.
Product complete(Product p) {
  if (!p.a.step) p.a.step = p.a.transposed ? p.M : p.K;
  if (!p.b.step) p.b.step = p.b.transposed ? p.K : p.N;
  if (!p.c_step) p.c_step = p.N;
  if (p.batches == 1) p.a.stride = p.b.stride = p.c_stride = 0;
  return p;
}

/// The widest access, up to 16 bytes, that an address and the steps from there allow: the same for all rows.
uint32_t alignment(const void* data, int64_t step, int64_t stride, DType dtype) {
  const auto size = static_cast<int64_t>(size_of(dtype)), offset = int64_t(reinterpret_cast<uintptr_t>(data) % 16);
  return static_cast<uint32_t>(std::gcd(std::gcd(int64_t{16}, offset), std::gcd(step * size, stride * size)));
}

/// A row-major matrix, which cuBLASLt takes for its transpose in column order.
class Layout {
 public:
  Layout(const char* where, DType dtype, int64_t rows, int64_t cols, int64_t step, int64_t batches, int64_t stride) {
    check_blas(cublasLtMatrixLayoutInit(&opaque_, type_of(dtype), uint64_t(cols), uint64_t(rows), step), where);
    if (batches == 1) return;
    const auto count = static_cast<int32_t>(batches);
    check_blas(cublasLtMatrixLayoutSetAttribute(&opaque_, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
               where);
    check_blas(
        cublasLtMatrixLayoutSetAttribute(&opaque_, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
        where);
  }
  operator cublasLtMatrixLayout_t() { return &opaque_; }

 private:
  cublasLtMatrixLayoutOpaque_t opaque_;
};

Layout layout(const char* where, const Product& p, const Factor& f, int64_t rows, int64_t cols) {
  if (f.transposed) std::swap(rows, cols);
  return {where, p.factors, rows, cols, f.step, p.batches, f.stride};
}

/// A product as cuBLASLt sees it, c^T = b^T a^T.
struct Problem {
  cublasLtMatmulDescOpaque_t operation;
  Layout a, b, c;

  Problem(const char* where, const Product& p, bool tf32)
      : a(layout(where, p, p.a, p.M, p.K)),
        b(layout(where, p, p.b, p.K, p.N)),
        c(where, p.result, p.M, p.N, p.c_step, p.batches, p.c_stride) {
    const bool f64 = p.factors == DType::f64;
    auto compute = f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
    if (tf32 && p.factors == DType::f32) compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    check_blas(cublasLtMatmulDescInit(&operation, compute, f64 ? CUDA_R_64F : CUDA_R_32F), where);
    auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
      check_blas(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value), where);
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N});
    set(CUBLASLT_MATMUL_DESC_TRANSB, int32_t{p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N});
    if (p.bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t{CUBLASLT_EPILOGUE_BIAS});
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    }
    if (p.b.scale) set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.b.scale);
    if (p.a.scale) set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.a.scale);
  }
};

/// The same product with n rows or terms, for asking about it.
Product resized(Product p, int64_t n) {
  if (p.varies == Product::Varies::rows) {
    if (p.a.transposed) p.a.step = std::max(p.a.step, (n + 15) / 16 * 16);
    p.M = n;
  } else {
    if (!p.a.transposed) p.a.step = std::max(p.a.step, (n + 15) / 16 * 16);
    if (p.b.transposed) p.b.step = std::max(p.b.step, (n + 15) / 16 * 16);
    p.K = n;
  }
  return p;
}

}  // namespace

/// cuBLASLt's state, and the algorithms that were chosen so far.
class Products {
 public:
  Products() { check_blas(cublasLtCreate(&handle_), "cublaslt"); }
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;
  ~Products() { cublasLtDestroy(handle_); }

  void multiply(Context& ctx, const char* where, const Product& p) {
    const Range range(where);
    const Choice& choice = choose(where, p, ctx.tf32());
    Problem problem(where, p, ctx.tf32());
    auto workspace = ctx.scratch<unsigned char>(static_cast<int64_t>(choice.workspace));
    auto run = [&](auto one) {
      const decltype(one) beta = p.add ? 1 : 0;
      check_blas(cublasLtMatmul(handle_, &problem.operation, &one, p.b.data, problem.b, p.a.data, problem.a, &beta,
                                p.add ? p.add : p.c, problem.c, p.c, problem.c, &choice.algorithm, workspace.data(),
                                choice.workspace, ctx.stream()),
                 where);
    };
    p.factors == DType::f64 ? run(1.) : run(1.f);
  }

 private:
  struct Choice {
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
  };
  struct Preference {
    cublasLtMatmulPreferenceOpaque_t opaque;
    Preference(const char* where, const Product& p, const std::array<uint32_t, 4>& aligned) {
      check_blas(cublasLtMatmulPreferenceInit(&opaque), where);
      auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
        check_blas(cublasLtMatmulPreferenceSetAttribute(&opaque, attribute, &value, sizeof value), where);
      };
      const bool cut = p.varies == Product::Varies::terms;
      set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, cut ? uint64_t{32} << 20 : uint64_t{0});
      set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
          uint32_t(cut ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE));
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned[1]);
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned[0]);
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned[2]);
      set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned[3]);
    }
  };

  // By heuristics, once for all products that differ in what varies alone: for a training batch's number of rows, for
  // terms up to the next power of two. Of the candidates the best that also does the smallest and a large one.
  const Choice& choose(const char* where, const Product& p, bool tf32) {
    const bool rows = p.varies == Product::Varies::rows;
    const int64_t usual = rows ? 16384 : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(p.K)));
    const std::array<uint32_t, 4> aligned = {
        alignment(p.a.data, p.a.step, p.a.stride, p.factors), alignment(p.b.data, p.b.step, p.b.stride, p.factors),
        alignment(p.add ? p.add : p.c, p.c_step, p.c_stride, p.result), alignment(p.c, p.c_step, p.c_stride, p.result)};
    const uint32_t of_bias = alignment(p.bias, 0, 0, p.result);
    const Key key = {rows ? 0 : p.M,
                     p.N,
                     rows ? p.K : usual,
                     p.batches,
                     static_cast<int64_t>(p.factors),
                     static_cast<int64_t>(p.result),
                     p.a.transposed + 2 * p.b.transposed + 4 * (p.bias != nullptr) + 8 * (p.add != nullptr) +
                         16 * tf32 + 32 * rows + 64 * (p.a.scale != nullptr) + 128 * (p.b.scale != nullptr),
                     aligned[0],
                     aligned[1],
                     aligned[2],
                     aligned[3],
                     of_bias};
    const auto known = choices_.find(key);
    if (known != choices_.end()) return known->second;

    Problem problem(where, resized(p, usual), tf32);
    Preference preference(where, p, aligned);
    std::array<cublasLtMatmulHeuristicResult_t, 16> found;
    int count = 0;
    check_blas(cublasLtMatmulAlgoGetHeuristic(handle_, &problem.operation, problem.b, problem.a, problem.c, problem.c,
                                              &preference.opaque, static_cast<int>(found.size()), found.data(), &count),
               where);
    if (count == 0) fail(where, "cuBLASLt has no algorithm for {} x {} products of {}", p.N, p.K, p.factors);
    auto does_all = [&](const cublasLtMatmulHeuristicResult_t& candidate) {
      for (int64_t n : {rows ? int64_t{1} : usual / 2 + 1, rows ? int64_t{1} << 22 : usual}) {
        Problem other(where, resized(p, n), tf32);
        cublasLtMatmulHeuristicResult_t result;
        if (cublasLtMatmulAlgoCheck(handle_, &other.operation, other.b, other.a, other.c, other.c, &candidate.algo,
                                    &result) != CUBLAS_STATUS_SUCCESS ||
            result.workspaceSize > candidate.workspaceSize)
          return false;
      }
      return true;
    };
    auto* const end = found.data() + count;
    auto* best = std::find_if(found.data(), end, does_all);
    if (best == end) best = found.data();
    return choices_.emplace(key, Choice{best->algo, best->workspaceSize}).first->second;
  }

  using Key = std::array<int64_t, 12>;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Choice> choices_;
};

void multiply(Context& ctx, const char* where, const Product& p) {
  if (p.M == 0 || p.N == 0 || p.batches == 0) return;
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  if (p.M > most || p.K > most)
    fail(where, "{} rows are more than cuBLASLt takes; use a smaller batch", std::max(p.M, p.K));
  ctx.products().multiply(ctx, where, complete(p));
}

}  // namespace lightcone::cuda

namespace lightcone {

cuda::Products& Context::products() {
  if (!products_) products_ = std::make_shared<cuda::Products>();
  return *products_;
}

}  // namespace lightcone
