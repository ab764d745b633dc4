#pragma once
#include "engine/context.h"

/// Matrix products on the calling thread: the inner step of matmul.h, which cuts them into chunks for the threads.
/// Matrices are contiguous and row-major. P is the type in which factors are multiplied: f64 and f32 are multiplied and
/// summed as they are; for bf16, factors that are not bf16 are rounded to it, and sums are f32. Every element of a
/// result is one sum in a fixed order: its bits depend neither on the number of rows of a, nor on how the work is cut.
///
/// Where the CPU has AMX tiles, bf16 goes through them, and so does f32 if b (for multiply_tokens: c) has 32 rows
/// and columns and 3072 elements or more. An f32 factor is then the sum of three bf16 parts, of whose nine products the
/// six largest are summed in f32: twice the speed, with an error that is below that of f32 multiply-adds in their
/// order. Only factors at the ends of f32's range, below 1e-33 or infinite, do worse: the former lose digits, the
/// latter give NaN.
namespace lightcone::kernels::gemm {

/// The right factor b [k, n] of many products, in the order in which tiles read it.
template <class P>
class Panels {
 public:
  /// b(p, j) = b[p * n + j], or b[j * k + p] if `transposed`. In is P, or f32 for bf16.
  template <class In>
  Panels(Context& ctx, int64_t n, int64_t k, const In* b, bool transposed);
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  const Tensor& storage() const { return storage_; }
  /// The right factor of gemm_amx.h if that is what multiplies, else null.
  const bf16* tiles() const;

 private:
  int64_t n_, k_;
  Tensor storage_;
};

/// c[i, j] = sum over p of a[i, p] b(p, j), plus bias[j] unless null, for i < rows and `first` <= j < `last`; c has
/// rows of b.n() elements. `first` is a multiple of 64. Out is the type of sums, or bf16 if P is, to which they are
/// rounded in the end. Several threads may call it at once.
template <class P, class In, class Out>
void multiply(Context& ctx, int64_t rows, const In* a, const Panels<P>& b, int64_t first, int64_t last,
              const sum_type<P>* bias, Out* c);

/// Rows that multiply() best takes at once: whole tiles, few enough for the result to stay in the second-level cache.
template <class P>
inline constexpr int64_t row_chunk = std::is_same_v<P, bf16> ? 128 : 96;

/// multiply_tokens() is fastest with this many tokens at once.
inline constexpr int64_t token_block = 128;

/// c[n, k] = a[tokens, n]^T b[tokens, k], or added to c.
template <class P, class A, class B>
void multiply_tokens(Context& ctx, int64_t tokens, int64_t n, int64_t k, const A* a, const B* b, sum_type<P>* c,
                     bool accumulate);

}  // namespace lightcone::kernels::gemm
