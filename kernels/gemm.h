#pragma once
#include "engine/context.h"

/// Matrix products on the calling thread: the inner step of matmul.h, cut there into chunks for the threads. f32 and
/// bf16 by oneDNN (bf16 operands with f32 sums; on CPUs without bf16 instructions they are widened first), f64 by a
/// blocked loop of our own. Matrices are contiguous, row-major.
namespace lightcone::kernels::gemm {

/// c[rows, n] = a[rows, k] b for one b and many a. Row r of c depends on row r of a and on b alone: its bits are the
/// same at any place among any number of rows. oneDNN takes other kernels for few or odd numbers of rows, so rows go to
/// it in whole panels (f32: 16 or 48, bf16: 64), the last one padded.
template <class T>
class RowProduct {
 public:
  using Sum = sum_type<T>;
  /// b is [n, k] if `transposed`, else [k, n]. It is read until the product is destroyed.
  RowProduct(Context& ctx, int64_t n, int64_t k, const T* b, bool transposed);
  RowProduct(const RowProduct&) = delete;
  RowProduct& operator=(const RowProduct&) = delete;
  ~RowProduct();

  /// Several threads may call it at once.
  void operator()(int64_t rows, const T* a, Sum* c) const;

 private:
  struct Parts;
  int64_t n_, k_;
  std::unique_ptr<Parts> parts_;  // null if b is empty
};

/// token_product() takes up to this many tokens at once.
inline constexpr int64_t token_block = 256;

/// c[n, k] = a[tokens, n]^T b[tokens, k], or added to c.
template <class T>
void token_product(Context& ctx, int64_t tokens, int64_t n, int64_t k, const T* a, const T* b, sum_type<T>* c,
                   bool accumulate);

}  // namespace lightcone::kernels::gemm
