#include <fmt/format.h>

#include "gpusim/cublaslt/problem.h"

namespace gpusim::lt {
namespace {

struct Combination {
  int32_t compute, scale;
  uint32_t ab, cd;
  int32_t bias;
};

// cuBLASLt's table for matrices in column or row order, A and B of one type, C and D of one type.
constexpr Combination regular[] = {
    {CUBLAS_COMPUTE_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32I, CUDA_R_32I, CUDA_R_8I, CUDA_R_32I, no_bias},
    {CUBLAS_COMPUTE_32I, CUDA_R_32F, CUDA_R_8I, CUDA_R_8I, no_bias},
};

// The table for fp8: the bias has C's type, except that an f32 result takes a bf16 bias.
struct Fp8Result {
  uint32_t c, d;
  int32_t bias;
  bool mixed;  // only if A and B differ
};
constexpr Fp8Result fp8_results[] = {
    {CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF, false},  {CUDA_R_16F, CUDA_R_16F, CUDA_R_16F, false},
    {CUDA_R_32F, CUDA_R_32F, CUDA_R_16BF, false},    {CUDA_R_16BF, CUDA_R_8F_E4M3, CUDA_R_16BF, false},
    {CUDA_R_16F, CUDA_R_8F_E4M3, CUDA_R_16F, false}, {CUDA_R_16BF, CUDA_R_8F_E5M2, CUDA_R_16BF, true},
    {CUDA_R_16F, CUDA_R_8F_E5M2, CUDA_R_16F, true},
};

int32_t without_pedantic(int32_t compute) {
  switch (compute) {
    case CUBLAS_COMPUTE_64F_PEDANTIC:
      return CUBLAS_COMPUTE_64F;
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      return CUBLAS_COMPUTE_32F;
    case CUBLAS_COMPUTE_32I_PEDANTIC:
      return CUBLAS_COMPUTE_32I;
  }
  return compute;
}

}  // namespace

int64_t size_of(uint32_t type) {
  switch (type) {
    case CUDA_R_64F:
      return 8;
    case CUDA_R_32F:
    case CUDA_R_32I:
      return 4;
    case CUDA_R_16BF:
    case CUDA_R_16F:
      return 2;
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2:
    case CUDA_R_8I:
      return 1;
  }
  return 0;
}

const char* name_of_type(uint32_t type) {
  switch (type) {
    case CUDA_R_64F:
      return "f64";
    case CUDA_R_32F:
      return "f32";
    case CUDA_R_32I:
      return "s32";
    case CUDA_R_16BF:
      return "bf16";
    case CUDA_R_16F:
      return "f16";
    case CUDA_R_8F_E4M3:
      return "e4m3";
    case CUDA_R_8F_E5M2:
      return "e5m2";
    case CUDA_R_8I:
      return "s8";
  }
  return "a type not known here";
}

std::optional<int32_t> bias_type(const Problem& p) {
  const int32_t compute = without_pedantic(p.op.compute);
  if (is_fp8(p.a.type) && is_fp8(p.b.type)) {
    if (compute != CUBLAS_COMPUTE_32F || p.op.scale_type != CUDA_R_32F) return {};
    if (p.a.type == CUDA_R_8F_E5M2 && p.b.type == CUDA_R_8F_E5M2) return {};
    for (const Fp8Result& r : fp8_results)
      if (r.c == p.c.type && r.d == p.d.type && (!r.mixed || p.a.type != p.b.type)) return r.bias;
    return {};
  }
  if (p.a.type != p.b.type || p.c.type != p.d.type) return {};
  for (const Combination& r : regular)
    if (r.compute == compute && r.scale == p.op.scale_type && r.ab == p.a.type && r.cd == p.c.type) return r.bias;
  return {};
}

uint32_t aux_type(const Problem& p) { return p.op.aux_type == -1 ? p.d.type : uint32_t(p.op.aux_type); }

}  // namespace gpusim::lt
