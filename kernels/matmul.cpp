#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/elementwise_math.h"
#include "kernels/linear_parts.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

Weights::Weights(Tensor w, DType products, Context* home) : w_(std::move(w)), products_(products), home_(home) {}

const Tensor& Weights::factor(Context& ctx) const {
  if (w_.dtype() == products_) return w_;
  const std::lock_guard lock(mutex_);
  auto& rounded = panels_[0];
  if (!rounded) {
    Context& home = home_ ? *home_ : ctx;
    auto made = std::make_shared<Tensor>(home.empty(w_.shape(), products_));
    cast(home, w_, *made);
    if (&home != &ctx) home.allocator().synchronize();  // another stream's
    rounded = made;
  }
  return *static_cast<const Tensor*>(rounded.get());
}

namespace cpu {

// f(first row, last row, first column, last column) over the result [T, N] of a product: chunks of rows, or of columns
// where rows are few; all at once where sharing it among threads takes longer.
template <class P, class F>
void for_blocks(Context& ctx, int64_t T, int64_t N, int64_t K, F&& f) {
  constexpr int64_t row_chunk = gemm::row_chunk<P>, few_rows = 2 * row_chunk, some_columns = 64,
                    small = int64_t{1} << (std::is_same_v<P, bf16> ? 23 : 20);
  if (T * N * K < small) {
    for (int64_t t = 0; t < T; t += row_chunk) f(t, std::min(T, t + row_chunk), int64_t{0}, N);
    return;
  }
  const int64_t columns = T > few_rows ? N : some_columns, across = (N + columns - 1) / columns;
  parallel_chunks(ctx, (T + row_chunk - 1) / row_chunk * across, 1, [&](int64_t c, int64_t, int64_t) {
    const int64_t t = c / across * row_chunk, n = c % across * columns;
    f(t, std::min(T, t + row_chunk), n, std::min(N, n + columns));
  });
}

// X, Y, W, P: the types of x and dx, of y and dy, of the weights, and of the factors of products.
template <class X, class Y, class W, class P>
void linear(Context& ctx, int64_t T, int64_t N, int64_t K, const X* x, const Weights& w, const W* b, Epilogue epilogue,
            const Y* residual, Y* pre, Y* y) {
  using Sum = sum_type<P>;
  const auto& panels = w.of_transpose<P>(ctx);
  Bias<W> bias(ctx, N, b);
  for_blocks<P>(ctx, T, N, K, [&](int64_t begin, int64_t end, int64_t left, int64_t right) {
    const int64_t rows = end - begin, at = begin * N;
    auto product = [&](auto* c) { gemm::multiply(ctx, rows, x + begin * K, panels, left, right, bias.data(), c); };
    if (epilogue == Epilogue::none) return product(y + at);
    auto scratch = ctx.scratch<Sum>(rows * N);
    Sum* sums = scratch.data();
    if constexpr (std::is_same_v<Y, Sum>)
      if (pre) sums = pre + at;
    product(sums);
    // f(offset, count) for runs of elements of the block.
    auto runs = [&](auto&& f) {
      if (right - left == N) return f(int64_t{0}, rows * N);
      for (int64_t t = 0; t < rows; ++t) f(t * N + left, right - left);
    };
    runs([&](int64_t i, int64_t count) {
      if (epilogue == Epilogue::residual)
        return map_row(count, y + at + i, [&](auto part) { return part(residual + at + i) + part(sums + i); });
      // gelu of what pre holds, so that the backward differentiates what was computed.
      if constexpr (!std::is_same_v<Y, Sum>) {
        std::transform(sums + i, sums + i + count, sums + i, [](Sum v) { return Sum(Y(v)); });
        if (pre) convert(count, sums + i, pre + at + i);
      }
      vector_math::map(
          count, y + at + i, [](Sum v) { return elementwise::gelu(v); }, sums + i);
    });
  });
}

// w is needed for dx alone.
template <class X, class Y, class W, class P>
void linear_backward(Context& ctx, int64_t T, int64_t N, int64_t K, const Y* dy, const Y* pre, const X* x,
                     const Weights* w, X* dx, W* dw, W* db) {
  using Sum = sum_type<P>;
  constexpr int64_t block = gemm::token_block;
  const gemm::Panels<P>* panels = dx ? &w->of_weights<P>(ctx) : nullptr;
  const Segments segments(T, N * K);
  TokenSum<W> sum_w(ctx, segments, N * K, dw), sum_b(ctx, segments, N, db);
  parallel_chunks(ctx, T, segments.size, [&](int64_t s, int64_t segment_begin, int64_t segment_end) {
    auto through_gelu = ctx.scratch<Y>(pre ? block * N : 0);
    for (int64_t begin = segment_begin; begin < segment_end; begin += block) {
      const int64_t rows = std::min(block, segment_end - begin);
      const bool first = begin == segment_begin;
      const Y* g = dy + begin * N;
      if (pre) {
        vector_math::map(
            rows * N, through_gelu.data(), [](Sum d, Sum p) { return d * elementwise::gelu_derivative(p); }, g,
            pre + begin * N);
        g = through_gelu.data();
      }
      if (db) add_rows(rows, N, g, first, sum_b.of(s));
      if (dx) gemm::multiply(ctx, rows, g, *panels, 0, K, nullptr, dx + begin * K);
      if (dw) gemm::multiply_tokens<P>(ctx, rows, N, K, g, x + begin * K, sum_w.of(s), !first);
    }
  });
  sum_w.finish();
  sum_b.finish();
}

// c[M, N] from rows of a, or from rows of the transpose of a [K, M], made chunk by chunk.
template <class In, class P>
void matmul_rows(Context& ctx, int64_t M, int64_t N, int64_t K, const In* a, bool transpose_a, const In* b,
                 bool transpose_b, In* c) {
  const gemm::Panels<P> panels(ctx, N, K, b, transpose_b);
  parallel_chunks(ctx, M, gemm::row_chunk<P>, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    auto turned = ctx.scratch<In>(transpose_a ? rows * K : 0);
    if (transpose_a)
      for (int64_t k = 0; k < K; ++k)
        for (int64_t m = 0; m < rows; ++m) turned[m * K + k] = a[k * M + begin + m];
    gemm::multiply(ctx, rows, transpose_a ? turned.data() : a + begin * K, panels, 0, N, nullptr, c + begin * N);
  });
}
}  // namespace cpu

namespace cuda {  // matmul.cu
void linear(Context& ctx, const char* where, LinearSizes n, const Tensor& x, const Weights& w, const Tensor& b,
            Epilogue epilogue, const Tensor& residual, Tensor& pre, Tensor& y);
void linear_backward(Context& ctx, const char* where, const Tensor& dy, const Tensor* pre, const Tensor& x,
                     const Weights& w, Tensor* dx, Tensor* dw, Tensor* db);
void matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor& c,
            DType products);
}  // namespace cuda

namespace {

// Checks x and w, and that y has the shape of their product.
LinearSizes check_linear(const Context& ctx, std::string_view where, const Tensor& x, const Weights& weights,
                         std::string_view name, const Tensor& y) {
  const Tensor& w = weights.tensor();
  check(ctx, where, "w", w).rank(2).compute();
  check_activation(ctx, where, "x", x, weights);
  check_activation(ctx, where, name, y, weights);
  const int64_t N = w.dim(0), K = w.dim(1);
  if (x.rank() == 0 || x.dim(-1) != K)
    fail(where, "x has shape {}, expected {} columns as w {} has", x.shape(), K, w.shape());
  Shape expected = x.shape();
  expected[-1] = N;
  check(ctx, where, name, y).shape(expected);
  int64_t T = 1;
  for (int axis = 0; axis + 1 < x.rank(); ++axis) T *= x.dim(axis);
  return {T, N, K};
}

// f(Type<X>, Type<Y>, Type<W>, Type<P>)
template <class F>
void dispatch_linear(const char* where, DType x, DType y, const Weights& w, F&& f) {
  dispatch_products(where, w.tensor().dtype(), w.products(), [&](auto weights, auto products) {
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    dispatch_activation<W, P>(
        x, [&](auto in) { dispatch_activation<W, P>(y, [&](auto out) { f(in, out, weights, products); }); });
  });
}

void forward(const char* where, Epilogue epilogue, Context& ctx, const Tensor& x, const Weights& w, const Tensor& b,
             const Tensor& residual, Tensor& pre, Tensor& y) {
  const auto [T, N, K] = check_linear(ctx, where, x, w, "y", y);
  if (b.defined()) check(ctx, where, "b", b).shape({N}).dtype(w.tensor().dtype());
  if (epilogue == Epilogue::residual) check(ctx, where, "residual", residual).like(y);
  if (pre.defined()) check(ctx, where, "pre", pre).like(y);
  const auto scope = ctx.profiler().scope(
      where, x.bytes() + w.tensor().bytes() + y.bytes() + pre.bytes() + residual.bytes(), 2. * T * N * K);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::linear(ctx, where, {T, N, K}, x, w, b, epilogue, residual, pre, y);
  dispatch_linear(where, x.dtype(), y.dtype(), w, [&](auto in, auto out, auto weights, auto products) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    cpu::linear<X, Y, W, P>(ctx, T, N, K, x.data<X>(), w, data<W>(b), epilogue, data<Y>(residual), data<Y>(&pre),
                            y.data<Y>());
  });
}

void backward(const char* where, Context& ctx, const Tensor& dy, const Tensor* pre, const Tensor& x, const Weights& w,
              Tensor* dx, Tensor* dw, Tensor* db) {
  const auto [T, N, K] = check_linear(ctx, where, x, w, "dy", dy);
  if (pre) check(ctx, where, "pre", *pre).like(dy);
  if (dx) check(ctx, where, "dx", *dx).like(x);
  if (dw) check(ctx, where, "dw", *dw).like(w.tensor());
  if (db) check(ctx, where, "db", *db).shape({N}).dtype(w.tensor().dtype());
  const auto scope =
      ctx.profiler().scope(where, dy.bytes() + (pre ? pre->bytes() : 0) + 2. * x.bytes() + 2. * w.tensor().bytes(),
                           2. * T * N * K * ((dx != nullptr) + (dw != nullptr)));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::linear_backward(ctx, where, dy, pre, x, w, dx, dw, db);
  dispatch_linear(where, x.dtype(), dy.dtype(), w, [&](auto in, auto out, auto weights, auto products) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    cpu::linear_backward<X, Y, W, P>(ctx, T, N, K, dy.data<Y>(), pre ? pre->data<Y>() : nullptr, x.data<X>(), &w,
                                     data<X>(dx), data<W>(dw), data<W>(db));
  });
}

}  // namespace

void linear(Context& ctx, const Tensor& x, const Weights& w, const Tensor& b, Tensor& y) {
  Tensor none;
  forward("linear", Epilogue::none, ctx, x, w, b, none, none, y);
}

void linear_gelu(Context& ctx, const Tensor& x, const Weights& w, const Tensor& b, Tensor& pre, Tensor& y) {
  forward("linear_gelu", Epilogue::gelu, ctx, x, w, b, Tensor(), pre, y);
}

void linear_residual(Context& ctx, const Tensor& x, const Weights& w, const Tensor& b, const Tensor& residual,
                     Tensor& y) {
  Tensor none;
  forward("linear_residual", Epilogue::residual, ctx, x, w, b, residual, none, y);
}

void linear_backward(Context& ctx, const Tensor& dy, const Tensor& x, const Weights& w, Tensor* dx, Tensor* dw,
                     Tensor* db) {
  backward("linear_backward", ctx, dy, nullptr, x, w, dx, dw, db);
}

void linear_gelu_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Weights& w,
                          Tensor* dx, Tensor* dw, Tensor* db) {
  backward("linear_gelu_backward", ctx, dy, &pre, x, w, dx, dw, db);
}

void matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor& c,
            DType products) {
  check(ctx, "matmul", "a", a).rank(2).compute();
  check(ctx, "matmul", "b", b).rank(2).dtype(a.dtype());
  const int64_t M = a.dim(transpose_a ? 1 : 0), K = a.dim(transpose_a ? 0 : 1), N = b.dim(transpose_b ? 0 : 1);
  if (b.dim(transpose_b ? 1 : 0) != K)
    fail("matmul", "a has shape {}{}, b {}{}: the inner extents differ", a.shape(), transpose_a ? " transposed" : "",
         b.shape(), transpose_b ? " transposed" : "");
  check(ctx, "matmul", "c", c).shape({M, N}).dtype(a.dtype());
  const auto scope = ctx.profiler().scope("matmul", a.bytes() + b.bytes() + c.bytes(), 2. * M * N * K);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::matmul(ctx, a, b, transpose_a, transpose_b, c, products);
  dispatch_products("matmul", a.dtype(), products, [&](auto in, auto product) {
    using In = typename decltype(in)::type;
    using P = typename decltype(product)::type;
    if (transpose_a && !transpose_b)  // a weight gradient in all but name
      cpu::linear_backward<In, In, In, P>(ctx, K, M, N, a.data<In>(), nullptr, b.data<In>(), nullptr, nullptr,
                                          c.data<In>(), nullptr);
    else
      cpu::matmul_rows<In, P>(ctx, M, N, K, a.data<In>(), transpose_a, b.data<In>(), transpose_b, c.data<In>());
  });
}

}  // namespace lightcone::kernels
