#include "kernels/mlp.h"

#include <algorithm>

#include "kernels/elementwise_math.h"
#include "kernels/linear_parts.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace cpu {
namespace {

// X, W, P: the types of x and dx, of everything else, and of the factors of products.

// x w1^T + b1, rounded as a tensor of W is: in `sums`, or where W needs no rounding in `pre`, unless that is null.
template <class X, class W, class P>
sum_type<P>* before_gelu(Context& ctx, int64_t rows, const X* x, const gemm::Panels<P>& up, const sum_type<P>* bias,
                         sum_type<P>* sums, W* pre) {
  using Sum = sum_type<P>;
  const int64_t count = rows * up.n();
  if constexpr (std::is_same_v<W, Sum>) {
    if (pre) sums = pre;
    gemm::multiply(ctx, rows, x, up, 0, up.n(), bias, sums);
  } else {
    gemm::multiply(ctx, rows, x, up, 0, up.n(), bias, sums);
    std::transform(sums, sums + count, sums, [](Sum v) { return Sum(W(v)); });
    if (pre) convert(count, sums, pre);
  }
  return sums;
}

template <class X, class W, class P>
void mlp(Context& ctx, int64_t T, int64_t K, int64_t H, int64_t N, const X* x, const Weights& w1, const W* b1,
         const Weights& w2, const W* b2, const W* residual, W* pre, W* y) {
  using Sum = sum_type<P>;
  const auto &up = w1.of_transpose<P>(ctx), &down = w2.of_transpose<P>(ctx);
  Bias<W> bias1(ctx, H, b1), bias2(ctx, N, b2);
  // A single jet is shared in f32, too; in bf16 it would wait longer for the threads than for its products.
  constexpr int64_t most = gemm::row_chunk<P>, few = std::is_same_v<P, bf16> ? most : 32;
  const int64_t chunk = T > 4 * most ? most : few;
  parallel_chunks(ctx, T, chunk, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    auto sums = ctx.scratch<Sum>(rows * std::max(H, N));
    auto hidden = ctx.scratch<W>(rows * H);
    const Sum* inner =
        before_gelu<X, W>(ctx, rows, x + begin * K, up, bias1.data(), sums.data(), pre ? pre + begin * H : nullptr);
    vector_math::map(
        rows * H, hidden.data(), [](Sum v) { return elementwise::gelu(v); }, inner);
    gemm::multiply(ctx, rows, hidden.data(), down, 0, N, bias2.data(), sums.data());
    map_row(rows * N, y + begin * N, [&](auto at) { return at(residual + begin * N) + at(sums.data()); });
  });
}

template <class X, class W, class P>
void mlp_backward(Context& ctx, int64_t T, int64_t K, int64_t H, int64_t N, const W* dy, const W* pre, const X* x,
                  const Weights& w1, const W* b1, const Weights& w2, X* dx, W* dw1, W* db1, W* dw2, W* db2) {
  using Sum = sum_type<P>;
  constexpr int64_t block = gemm::token_block;  // its hidden values and gradients stay in the second-level cache
  const bool inner = dx || dw1 || db1;
  const gemm::Panels<P>*up = pre ? nullptr : &w1.of_transpose<P>(ctx),
        *to_hidden = inner ? &w2.of_weights<P>(ctx) : nullptr, *to_x = dx ? &w1.of_weights<P>(ctx) : nullptr;
  Bias<W> bias1(ctx, H, b1);
  const Segments segments(T, std::max(K, N) * H);
  TokenSum<W> sum_w1(ctx, segments, H * K, dw1), sum_b1(ctx, segments, H, db1), sum_w2(ctx, segments, N * H, dw2),
      sum_b2(ctx, segments, N, db2);
  parallel_chunks(ctx, T, segments.size, [&](int64_t s, int64_t segment_begin, int64_t segment_end) {
    auto hidden = ctx.scratch<W>(block * H), gradient = ctx.scratch<W>(block * H);
    auto again = ctx.scratch<Sum>(pre ? 0 : block * H), wide = ctx.scratch<Sum>(std::is_same_v<W, Sum> ? 0 : block * H);
    Sum* back = wide.data();
    if constexpr (std::is_same_v<W, Sum>) back = gradient.data();
    for (int64_t begin = segment_begin; begin < segment_end; begin += block) {
      const int64_t rows = std::min(block, segment_end - begin);
      const bool first = begin == segment_begin;
      const W* g = dy + begin * N;
      const X* in = x + begin * K;
      if (up) before_gelu<X, W>(ctx, rows, in, *up, bias1.data(), again.data(), static_cast<W*>(nullptr));
      if (db2) add_rows(rows, N, g, first, sum_b2.of(s));
      if (inner) {
        gemm::multiply(ctx, rows, g, *to_hidden, 0, H, nullptr, back);
        auto gelu_and_gradient = [&](const auto* p) {
          auto f = [](Sum d, Sum v) {
            const auto normal = elementwise::normal(v);
            return std::pair(v * normal.cdf, d * (normal.cdf + v * normal.density));
          };
          vector_math::map_pair(rows * H, hidden.data(), gradient.data(), f, static_cast<const Sum*>(back), p);
        };
        up ? gelu_and_gradient(again.data()) : gelu_and_gradient(pre + begin * H);
      } else {
        auto gelu = [&](const auto* p) {
          vector_math::map(
              rows * H, hidden.data(), [](Sum v) { return elementwise::gelu(v); }, p);
        };
        up ? gelu(again.data()) : gelu(pre + begin * H);
      }
      if (dw2) gemm::multiply_tokens<P>(ctx, rows, N, H, g, hidden.data(), sum_w2.of(s), !first);
      if (!inner) continue;
      if (db1) add_rows(rows, H, gradient.data(), first, sum_b1.of(s));
      if (dw1) gemm::multiply_tokens<P>(ctx, rows, H, K, gradient.data(), in, sum_w1.of(s), !first);
      if (dx) gemm::multiply(ctx, rows, gradient.data(), *to_x, 0, K, nullptr, dx + begin * K);
    }
  });
  for (auto* sum : {&sum_w1, &sum_b1, &sum_w2, &sum_b2}) sum->finish();
}

}  // namespace
}  // namespace cpu

namespace cuda {  // mlp.cu
void mlp(Context& ctx, const Tensor& x, const Weights& w1, const Tensor& b1, const Weights& w2, const Tensor& b2,
         const Tensor& residual, Tensor& pre, Tensor& y);
void mlp_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Weights& w1,
                  const Tensor& b1, const Weights& w2, const MlpGradients& gradients);
}  // namespace cuda

namespace {

struct Sizes {
  int64_t T, K, H, N;
};

Sizes check_mlp(const Context& ctx, const char* where, const Tensor& x, const Weights& w1, const Weights& w2,
                const char* name, const Tensor& y) {
  check(ctx, where, "w1", w1.tensor()).rank(2).compute();
  check(ctx, where, "w2", w2.tensor()).rank(2).dtype(w1.tensor().dtype());
  check_activation(ctx, where, "x", x, w1);
  const int64_t H = w1.tensor().dim(0), K = w1.tensor().dim(1), N = w2.tensor().dim(0);
  if (x.rank() == 0 || x.dim(-1) != K)
    fail(where, "x has shape {}, expected {} columns as w1 {} has", x.shape(), K, w1.tensor().shape());
  check(ctx, where, "w2", w2.tensor()).shape({N, H});
  if (w1.products() != w2.products())
    fail(where, "w1 multiplies in {}, w2 in {}; expected the same", w1.products(), w2.products());
  Shape expected = x.shape();
  expected[-1] = N;
  check(ctx, where, name, y).shape(expected).dtype(w1.tensor().dtype());
  int64_t T = 1;
  for (int axis = 0; axis + 1 < x.rank(); ++axis) T *= x.dim(axis);
  return {T, K, H, N};
}

void check_hidden(const Context& ctx, const char* where, const Tensor& pre, const Tensor& b1, const Tensor& x,
                  const Weights& w1) {
  const Tensor& w = w1.tensor();
  Shape expected = x.shape();
  expected[-1] = w.dim(0);
  if (pre.defined()) check(ctx, where, "pre", pre).shape(expected).dtype(w.dtype());
  if (b1.defined()) check(ctx, where, "b1", b1).shape({w.dim(0)}).dtype(w.dtype());
}

// f(Type<X>, Type<W>, Type<P>)
template <class F>
void dispatch_mlp(const char* where, const Tensor& x, const Weights& w, F&& f) {
  dispatch_products(where, w.tensor().dtype(), w.products(), [&](auto weights, auto products) {
    dispatch_activation<typename decltype(weights)::type, typename decltype(products)::type>(
        x.dtype(), [&](auto in) { f(in, weights, products); });
  });
}

}  // namespace

void mlp(Context& ctx, const Tensor& x, const Weights& w1, const Tensor& b1, const Weights& w2, const Tensor& b2,
         const Tensor& residual, Tensor& pre, Tensor& y) {
  const auto [T, K, H, N] = check_mlp(ctx, "mlp", x, w1, w2, "y", y);
  check_hidden(ctx, "mlp", pre, b1, x, w1);
  if (b2.defined()) check(ctx, "mlp", "b2", b2).shape({N}).dtype(y.dtype());
  check(ctx, "mlp", "residual", residual).like(y);
  const double bytes = x.bytes() + 2. * y.bytes() + pre.bytes() + w1.tensor().bytes() + w2.tensor().bytes();
  const auto scope = ctx.profiler().scope("mlp", bytes, 2. * T * H * (K + N));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::mlp(ctx, x, w1, b1, w2, b2, residual, pre, y);
  dispatch_mlp("mlp", x, w1, [&](auto in, auto weights, auto products) {
    using X = typename decltype(in)::type;
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    cpu::mlp<X, W, P>(ctx, T, K, H, N, x.data<X>(), w1, data<W>(b1), w2, data<W>(b2), residual.data<W>(), data<W>(&pre),
                      y.data<W>());
  });
}

void mlp_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Weights& w1,
                  const Tensor& b1, const Weights& w2, const MlpGradients& g) {
  const char* where = "mlp_backward";
  const auto [T, K, H, N] = check_mlp(ctx, where, x, w1, w2, "dy", dy);
  check_hidden(ctx, where, pre, b1, x, w1);
  auto check_gradient = [&](const char* name, const Tensor* t, const Shape& shape, DType dtype) {
    if (t) check(ctx, where, name, *t).shape(shape).dtype(dtype);
  };
  check_gradient("dx", g.dx, x.shape(), x.dtype());
  check_gradient("dw1", g.dw1, {H, K}, dy.dtype());
  check_gradient("db1", g.db1, {H}, dy.dtype());
  check_gradient("dw2", g.dw2, {N, H}, dy.dtype());
  check_gradient("db2", g.db2, {N}, dy.dtype());
  const bool inner = g.dx || g.dw1 || g.db1;
  const double products =
      N * ((g.dw2 != nullptr) + inner) + K * ((g.dx != nullptr) + (g.dw1 != nullptr) + !pre.defined());
  const auto scope = ctx.profiler().scope(where, dy.bytes() + pre.bytes() + 2. * x.bytes(), 2. * T * H * products);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::mlp_backward(ctx, dy, pre, x, w1, b1, w2, g);
  dispatch_mlp(where, x, w1, [&](auto in, auto weights, auto products) {
    using X = typename decltype(in)::type;
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    cpu::mlp_backward<X, W, P>(ctx, T, K, H, N, dy.data<W>(), data<W>(pre), x.data<X>(), w1, data<W>(b1), w2,
                               data<X>(g.dx), data<W>(g.dw1), data<W>(g.db1), data<W>(g.dw2), data<W>(g.db2));
  });
}

}  // namespace lightcone::kernels
