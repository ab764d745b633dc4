#pragma once
#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/gemm.h"
#include "kernels/matmul.h"

// What the kernels around linear maps (matmul.cpp, mlp.cpp) have in common.
namespace lightcone::kernels {

/// x [T, K] and y [T, N].
struct LinearSizes {
  int64_t T, N, K;
};
/// What follows the product.
enum class Epilogue { none, gelu, residual };

template <class P>
const auto& Weights::panels(Context& ctx, bool transposed) const {
  const std::lock_guard lock(mutex_);
  auto& panels = panels_[transposed];
  if (!panels)
    dispatch_compute("weights", w_.dtype(), [&](auto type) {
      using In = typename decltype(type)::type;
      if constexpr (std::is_same_v<In, P> || (std::is_same_v<In, float> && std::is_same_v<P, bf16>)) {
        const int64_t rows = w_.dim(0), cols = w_.dim(1);
        panels = std::make_shared<gemm::Panels<P>>(home_ ? *home_ : ctx, transposed ? rows : cols,
                                                   transposed ? cols : rows, w_.data<In>(), transposed);
      }
    });
  return *static_cast<const gemm::Panels<P>*>(panels.get());
}
template <class P>
const auto& Weights::of_transpose(Context& ctx) const {
  return panels<P>(ctx, true);
}
template <class P>
const auto& Weights::of_weights(Context& ctx) const {
  return panels<P>(ctx, false);
}

/// The elements of a tensor that may be missing.
template <class T>
T* data(Tensor* t) {
  return t && t->defined() ? t->data<T>() : nullptr;
}
template <class T>
const T* data(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

/// f(Type<In>, Type<P>) for tensors of `in` that are multiplied in `products`.
template <class F>
void dispatch_products(std::string_view where, DType in, DType products, F&& f) {
  dispatch_compute(where, in, [&](auto type) {
    using In = typename decltype(type)::type;
    if (products == in) return f(type, type);
    if constexpr (std::is_same_v<In, float>)
      if (products == DType::bf16) return f(type, Type<bf16>{});
    fail(where, "products of {} tensors in {}; expected {}{}", in, products, in, in == DType::f32 ? " or bf16" : "");
  });
}

/// Demands the dtype of the weights, or bf16 where that is what products of f32 weights round to.
inline void check_activation(std::string_view where, std::string_view name, const Tensor& t, const Weights& w) {
  const bool amp = w.tensor().dtype() == DType::f32 && w.products() == DType::bf16;
  Check c = check(where, name, t);
  amp ? c.dtype(DType::f32, DType::bf16) : c.dtype(w.tensor().dtype());
}
/// The same for functions that compute on every device.
inline void check_activation(const Context& ctx, std::string_view where, std::string_view name, const Tensor& t,
                             const Weights& w) {
  check(ctx, where, name, t);
  const bool amp = w.tensor().dtype() == DType::f32 && w.products() == DType::bf16;
  Check c(where, name, t);
  amp ? c.dtype(DType::f32, DType::bf16) : c.dtype(w.tensor().dtype());
}

/// f(Type<A>) for an activation that has passed check_activation(), with weights of type W and products of type P.
template <class W, class P, class F>
void dispatch_activation(DType dtype, F&& f) {
  if constexpr (!std::is_same_v<W, P>)
    if (dtype == DType::bf16) return f(Type<bf16>{});
  f(Type<W>{});
}

namespace cpu {

/// The biases in the type of sums.
template <class In>
class Bias {
 public:
  using Sum = sum_type<In>;
  Bias(Context& ctx, int64_t n, const In* b) : given_(b), wide_(ctx, std::is_same_v<In, Sum> || !b ? 0 : n) {
    if constexpr (!std::is_same_v<In, Sum>)
      if (b) std::copy_n(b, n, wide_.data());
  }
  const Sum* data() {
    if constexpr (std::is_same_v<In, Sum>)
      return given_;
    else
      return given_ ? wide_.data() : nullptr;
  }

 private:
  const In* given_;
  Context::Scratch<Sum> wide_;
};

/// Cuts of the tokens for sums over them: at most 16 segments, and fewer where one sum takes so much memory that they
/// would have more than 2^24 elements.
struct Segments {
  int64_t size, count;
  Segments(int64_t tokens, int64_t sum_size) {
    constexpr int64_t least = 8 * gemm::token_block;
    const int64_t most = std::clamp<int64_t>((int64_t{1} << 24) / std::max<int64_t>(1, sum_size), 1, 16);
    size = least * std::max<int64_t>(1, (tokens + least * most - 1) / (least * most));
    count = (tokens + size - 1) / size;
  }
};

/// A gradient that is a sum over tokens: one partial sum per segment, added up in order by finish().
template <class In>
class TokenSum {
 public:
  using Sum = sum_type<In>;
  /// `out`: n elements, overwritten by finish(); nullptr if not wanted.
  TokenSum(Context& ctx, const Segments& segments, int64_t n, In* out)
      : ctx_(ctx),
        segments_(segments),
        n_(n),
        out_(out),
        direct_(std::is_same_v<In, Sum> && segments.count == 1),
        partial_(ctx, out && !direct_ ? segments.count * n : 0) {}
  Sum* of(int64_t segment) {
    if constexpr (std::is_same_v<In, Sum>)
      if (direct_) return out_;
    return partial_.data() + segment * n_;
  }
  void finish() {
    if (!out_ || (direct_ && segments_.count)) return;
    parallel_chunks(ctx_, n_, 4096, [&](int64_t, int64_t begin, int64_t end) {
      Sum sums[4096] = {};
      for (int64_t s = 0; s < segments_.count; ++s)
        for (int64_t i = begin; i < end; ++i) sums[i - begin] += partial_[s * n_ + i];
      std::transform(sums, sums + (end - begin), out_ + begin, [](Sum s) { return In(s); });
    });
  }

 private:
  Context& ctx_;
  const Segments& segments_;
  int64_t n_;
  In* out_;
  bool direct_;
  Context::Scratch<Sum> partial_;
};

/// sums[n] += sum over t of g[t, n]; overwritten if `first`.
template <class In, class Sum>
void add_rows(int64_t rows, int64_t n, const In* g, bool first, Sum* sums) {
  if (first) std::fill_n(sums, n, Sum(0));
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t i = 0; i < n; ++i) sums[i] += Sum(g[t * n + i]);
}

}  // namespace cpu
}  // namespace lightcone::kernels
