#pragma once
#include <cstdint>

#include "gpusim/cublaslt/descriptors.h"
#include "gpusim/cublaslt/library.h"

namespace gpusim::lt {

/// D = epilogue(alpha op(A) op(B) + beta C), with op(A) m by k and op(B) k by n.
struct Problem {
  Operator op;
  Layout a, b, c, d;

  int64_t m() const { return int64_t(d.rows); }
  int64_t n() const { return int64_t(d.cols); }
  int64_t k() const { return int64_t(op.transpose_a == CUBLAS_OP_N ? a.cols : a.rows); }
  int64_t batch() const { return d.batch_count; }

  // Elements from one row of op(A) to the next, and from one column to the next.
  int64_t a_row_step() const { return op.transpose_a == CUBLAS_OP_N ? a.row_step() : a.col_step(); }
  int64_t a_col_step() const { return op.transpose_a == CUBLAS_OP_N ? a.col_step() : a.row_step(); }
  int64_t b_row_step() const { return op.transpose_b == CUBLAS_OP_N ? b.row_step() : b.col_step(); }
  int64_t b_col_step() const { return op.transpose_b == CUBLAS_OP_N ? b.col_step() : b.row_step(); }
};

/// What an epilogue is made of; the values of cublasLtEpilogue_t are these bits.
struct Epilogue {
  enum : uint32_t {
    relu = 2,
    bias = 4,
    drelu = 8,
    bias_gradient = 16,
    gelu = 32,
    dgelu = 64,
    aux = 128,
    gradient_a = 256,
    gradient_b = 512
  };
  uint32_t bits;

  bool has(uint32_t what) const { return (bits & what) != 0; }
  bool writes_bias() const { return has(bias_gradient | gradient_a | gradient_b); }
  bool uses_bias() const { return has(bias) || writes_bias(); }
  bool reads_aux() const { return has(drelu | dgelu); }
  bool writes_aux() const { return has(aux) && !reads_aux(); }
  bool aux_is_mask() const { return has(aux) && has(relu | drelu); }
};
inline Epilogue epilogue(const Operator& op) { return {op.epilogue == CUBLASLT_EPILOGUE_DEFAULT ? 0 : op.epilogue}; }

constexpr bool is_fp8(uint32_t type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }
int64_t size_of(uint32_t type);  ///< bytes of an element; 0 for a type that is not known here
const char* name_of_type(uint32_t type);

/// The bias type of a combination of types that cuBLASLt documents: nothing if it does not, no_bias if only the default
/// epilogue goes with it.
inline constexpr int32_t no_bias = -1;
std::optional<int32_t> bias_type(const Problem& problem);
uint32_t aux_type(const Problem& problem);  ///< of GELU's auxiliary matrix

/// The rules of types, shapes, layouts, scales and epilogues, for a device of this compute capability (89 for 8.9).
/// They are cuBLASLt's documented ones, read strictly where the documentation is short: fp8 wants m, n and k in
/// multiples of 16; a bias or an auxiliary matrix goes with D in column order; with fp8 there are no gradients and no
/// masks. What is documented but not played here is refused, and says so: other orders, pointer arrays, vectors of
/// alpha, block scales, f16 sums, emulation. Fast accumulation and the number of SMs change nothing.
Refused check(const Problem& problem, int capability);

/// What is left for the pointers' own alignment, given what the caller promises.
Algorithm algorithm(const Problem& problem, uint32_t id, const uint32_t alignment[4]);
uint64_t workspace_of(const Problem& problem, uint32_t id);

}  // namespace gpusim::lt
