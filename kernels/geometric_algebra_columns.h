#pragma once
#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/geometric_algebra_math.h"
#include "kernels/norm_types.h"
#include "kernels/vector.h"

// What the kernels of geometric_algebra.h share: walks over the columns of multivectors, and checks.
namespace lightcone::kernels {

namespace cpu {
using namespace geometric_algebra;

/// f(begin, end) for chunks of tokens whose multivectors have so many columns.
template <class F>
void for_tokens(Context& ctx, int64_t tokens, int64_t columns, F&& f) {
  parallel_chunks(ctx, tokens, grain_for(pairs * columns), [&](int64_t, int64_t begin, int64_t end) { f(begin, end); });
}

/// f(at) for C columns: whole registers, then single elements (see map_row).
template <class S, class F>
[[gnu::always_inline]] inline void for_columns(int64_t C, F&& f) {
  int64_t c = 0;
  for (; c + lanes<S> <= C; c += lanes<S>) f(WholeRegister<S>{c});
  for (; c < C; ++c) f(SingleElement<S>{c});
}
template <class S, class T>
[[gnu::always_inline]] inline void put(WholeRegister<S> at, Vector<S> value, T* to) {
  store(value, to + at.place);
}
template <class S, class T>
[[gnu::always_inline]] inline void put(SingleElement<S> at, S value, T* to) {
  to[at.place] = static_cast<T>(value);
}

/// The address of each component's first column: `pair` elements from pair to pair, `half` from half to half.
template <class T>
std::array<T*, components> places(T* x, int64_t pair, int64_t half) {
  std::array<T*, components> out;
  for (int i = 0; i < components; ++i) out[i] = x + i / 2 * pair + i % 2 * half;
  return out;
}
}  // namespace cpu

struct MultivectorSizes {
  int64_t T, C;
};

/// A multivector with a whole number of channels.
inline MultivectorSizes check_multivector(const Context& ctx, const char* where, const char* name, const Tensor& x) {
  check(ctx, where, name, x).rank(3).compute();
  if (x.dim(0) != cpu::pairs || x.dim(2) % 2)
    fail(where, "{} has shape {}, expected 8 pairs of components and an even number of columns", name, x.shape());
  return {x.dim(1), x.dim(2) / 2};
}

/// The dtype of x, or bf16 for f32.
inline void check_narrow(const Context& ctx, const char* where, const char* name, const Tensor& y, const Shape& shape,
                         DType x) {
  Check c = check(ctx, where, name, y).shape(shape);
  x == DType::f32 ? c.dtype(DType::f32, DType::bf16) : c.dtype(x);
}

}  // namespace lightcone::kernels
