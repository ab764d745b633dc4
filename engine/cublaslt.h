#pragma once
#include "engine/context.h"

// For CUDA sources alone (*.cu, *_cuda.cpp): matrix products by cuBLASLt.
namespace lightcone::cuda {

/// A factor in row-major order, one per batch.
struct Factor {
  const void* data;
  bool transposed = false;       ///< the product reads the transpose of what is stored
  int64_t step = 0;              ///< elements from one stored row to the next; 0: the rows are contiguous
  int64_t stride = 0;            ///< elements from batch to batch
  const float* scale = nullptr;  ///< on the GPU: what elements of fp8 are multiplied by
};

/// c [M, N] = a [M, K] b [K, N] + bias [N] + add [M, N], in every batch. f64 is multiplied and summed as it is, f32 as
/// it is or rounded to tf32 (Context::tf32()), bf16 and fp8_e4m3 are summed in f32. fp8 asks for compute capability
/// 8.9, for a as it is and b transposed, and for M, N, K and steps in multiples of 16.
struct Product {
  int64_t M, N, K;
  DType factors;  ///< of a and b: f64, f32, bf16 or fp8_e4m3
  DType result;   ///< of c and add: that in which factors are summed, or bf16 for factors of bf16 and fp8
  Factor a, b;
  void* c;
  int64_t c_step = 0, c_stride = 0;
  const void* bias = nullptr;  ///< of the type of c; bf16 for factors of fp8
  const void* add = nullptr;   ///< c, or a matrix stored like it
  int64_t batches = 1;
  /// What differs from call to call. rows: a row of c depends on its row of a and on b alone, bit by bit, as the
  /// algorithm is chosen for N and K and sums every element in one go. terms: M and N are fixed, and a sum over K may
  /// be cut, the same way for the same K.
  enum class Varies { rows, terms } varies = Varies::rows;
};

/// K > 0; without rows, columns or batches nothing is done. Throws Error where cuBLASLt has no algorithm; `where` names
/// the operation.
void multiply(Context& ctx, const char* where, const Product& p);

}  // namespace lightcone::cuda
