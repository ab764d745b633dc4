#include "kernels/matmul.h"

#include <algorithm>
#include <optional>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/elementwise_math.h"
#include "kernels/gemm.h"

namespace lightcone::kernels {

namespace cpu {
// Rows of a product per chunk: enough for oneDNN to run at speed, few enough for the result to stay in L2 for the
// epilogue.
constexpr int64_t row_chunk = 144;

enum class Epilogue { none, gelu, residual };

template <class In, class Out>
void linear(Context& ctx, int64_t T, int64_t N, int64_t K, const In* x, const In* w, const Out* b, Epilogue epilogue,
            const Out* residual, Out* pre, Out* y) {
  using Sum = sum_type<In>;
  const gemm::RowProduct<In> product(ctx, N, K, w, true);
  auto bias = ctx.scratch<Sum>(N);
  for (int64_t n = 0; n < N; ++n) bias[n] = b ? Sum(b[n]) : 0;
  parallel_chunks(ctx, T, row_chunk, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t rows = end - begin, first = begin * N;
    auto sums = ctx.scratch<Sum>(rows * N);
    product(rows, x + begin * K, sums.data());
    // store(i, x w^T + b) for every element i of the chunk.
    auto each = [&](auto&& store) {
      for (int64_t t = 0; t < rows; ++t)
        for (int64_t n = 0; n < N; ++n) store(t * N + n, sums[t * N + n] + bias[n]);
    };
    switch (epilogue) {
      case Epilogue::none:
        each([out = y + first](int64_t i, Sum v) { out[i] = Out(v); });
        break;
      case Epilogue::residual:
        each([out = y + first, in = residual + first](int64_t i, Sum v) { out[i] = Out(Sum(in[i]) + v); });
        break;
      case Epilogue::gelu:
        // gelu of what pre holds, so that the backward differentiates what was computed.
        each([out = sums.data()](int64_t i, Sum v) { out[i] = Sum(Out(v)); });
        if (pre) std::transform(sums.data(), sums.data() + rows * N, pre + first, [](Sum v) { return Out(v); });
        vector_math::map(
            rows * N, y + first, [](Sum v) { return elementwise::gelu(v); }, sums.data());
        break;
    }
  });
}

// out[i] = sum over s of partial[s][i], in order.
template <class Sum, class Out>
void combine(Context& ctx, int64_t segments, int64_t n, const Sum* partial, Out* out) {
  parallel_chunks(ctx, n, 4096, [&](int64_t, int64_t begin, int64_t end) {
    Sum sums[4096] = {};
    for (int64_t s = 0; s < segments; ++s)
      for (int64_t i = begin; i < end; ++i) sums[i - begin] += partial[s * n + i];
    std::transform(sums, sums + (end - begin), out + begin, [](Sum s) { return Out(s); });
  });
}

// Tokens go in segments of whole blocks, one partial sum of dw and db each: at most 16 of them, and fewer where dw is
// so large that they would take more than 2^24 elements.
template <class In, class Dy, class Out>
void linear_backward(Context& ctx, int64_t T, int64_t N, int64_t K, const Dy* dy, const Dy* pre, const In* x,
                     const In* w, Out* dx, Out* dw, Out* db) {
  using Sum = sum_type<In>;
  constexpr int64_t block = gemm::token_block;
  const int64_t most = std::clamp<int64_t>((int64_t{1} << 24) / std::max<int64_t>(1, N * K), 1, 16);
  const int64_t segment = block * std::max<int64_t>(1, (T + block * most - 1) / (block * most));
  const int64_t segments = (T + segment - 1) / segment;

  std::optional<gemm::RowProduct<In>> to_x;
  if (dx) to_x.emplace(ctx, K, N, w, false);
  auto partial_w = ctx.scratch<Sum>(dw ? segments * N * K : 0);
  auto partial_b = ctx.scratch<Sum>(db ? segments * N : 0);

  parallel_chunks(ctx, T, segment, [&](int64_t s, int64_t segment_begin, int64_t segment_end) {
    auto through_gelu = ctx.scratch<Dy>(pre ? block * N : 0);
    auto rounded = ctx.scratch<In>(std::is_same_v<In, Dy> ? 0 : block * N);
    auto sums = ctx.scratch<Sum>(dx && !std::is_same_v<Sum, Out> ? block * K : 0);
    Sum* bias = partial_b.data() + (db ? s * N : 0);
    if (db) std::fill_n(bias, N, Sum(0));
    for (int64_t begin = segment_begin; begin < segment_end; begin += block) {
      const int64_t rows = std::min(block, segment_end - begin);
      const Dy* g = dy + begin * N;
      if (pre) {
        vector_math::map(
            rows * N, through_gelu.data(), [](Sum d, Sum p) { return d * elementwise::gelu_derivative(p); }, g,
            pre + begin * N);
        g = through_gelu.data();
      }
      if (db)
        for (int64_t t = 0; t < rows; ++t)
          for (int64_t n = 0; n < N; ++n) bias[n] += Sum(g[t * N + n]);
      const In* factor;
      if constexpr (std::is_same_v<In, Dy>) {
        factor = g;
      } else {
        std::transform(g, g + rows * N, rounded.data(), [](Dy v) { return In(v); });
        factor = rounded.data();
      }
      if (dx) {
        if constexpr (std::is_same_v<Sum, Out>) {
          (*to_x)(rows, factor, dx + begin * K);
        } else {
          (*to_x)(rows, factor, sums.data());
          std::transform(sums.data(), sums.data() + rows * K, dx + begin * K, [](Sum v) { return Out(v); });
        }
      }
      if (dw)
        gemm::token_product(ctx, rows, N, K, factor, x + begin * K, partial_w.data() + s * N * K,
                            begin != segment_begin);
    }
  });
  if (dw) combine(ctx, segments, N * K, partial_w.data(), dw);
  if (db) combine(ctx, segments, N, partial_b.data(), db);
}

// c[M, N] from rows of a, or from rows of the transpose of a [K, M], made chunk by chunk.
template <class In, class Out>
void matmul_rows(Context& ctx, int64_t M, int64_t N, int64_t K, const In* a, bool transpose_a, const In* b,
                 bool transpose_b, Out* c) {
  using Sum = sum_type<In>;
  const gemm::RowProduct<In> product(ctx, N, K, b, transpose_b);
  parallel_chunks(ctx, M, row_chunk, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    auto turned = ctx.scratch<In>(transpose_a ? rows * K : 0);
    if (transpose_a)
      for (int64_t k = 0; k < K; ++k)
        for (int64_t m = 0; m < rows; ++m) turned[m * K + k] = a[k * M + begin + m];
    auto sums = ctx.scratch<Sum>(rows * N);
    product(rows, transpose_a ? turned.data() : a + begin * K, sums.data());
    std::transform(sums.data(), sums.data() + rows * N, c + begin * N, [](Sum s) { return Out(s); });
  });
}
}  // namespace cpu

namespace {

// f(Type<In>, Type<Out>) for operands of `in` and results of `out`, which is the same dtype, or f32 for bf16.
template <class F>
void dispatch_product(std::string_view where, DType in, DType out, F&& f) {
  dispatch_compute(where, in, [&](auto type) {
    using In = typename decltype(type)::type;
    if (out == in) return f(type, type);
    if constexpr (std::is_same_v<In, bf16>)
      if (out == DType::f32) return f(type, Type<float>{});
    fail(where, "operands are {}, the result {}; expected {}{}", in, out, in, in == DType::bf16 ? " or f32" : "");
  });
}

struct Sizes {
  int64_t T, N, K;
};

// Checks x and w, and that y has the shape of their product.
Sizes check_linear(std::string_view where, const Tensor& x, const Tensor& w, std::string_view name, const Tensor& y) {
  check(where, "x", x).compute();
  check(where, "w", w).rank(2).dtype(x.dtype());
  const int64_t N = w.dim(0), K = w.dim(1);
  if (x.rank() == 0 || x.dim(-1) != K)
    fail(where, "x has shape {}, expected {} columns as w {} has", x.shape(), K, w.shape());
  Shape expected = x.shape();
  expected[-1] = N;
  check(where, name, y).shape(expected);
  int64_t T = 1;
  for (int axis = 0; axis + 1 < x.rank(); ++axis) T *= x.dim(axis);
  return {T, N, K};
}

void forward(const char* where, cpu::Epilogue epilogue, Context& ctx, const Tensor& x, const Tensor& w, const Tensor& b,
             const Tensor& residual, Tensor& pre, Tensor& y) {
  const auto [T, N, K] = check_linear(where, x, w, "y", y);
  if (b.defined()) check(where, "b", b).shape({N}).dtype(y.dtype());
  if (epilogue == cpu::Epilogue::residual) check(where, "residual", residual).like(y);
  if (pre.defined()) check(where, "pre", pre).like(y);
  const auto scope =
      ctx.profiler().scope(where, x.bytes() + w.bytes() + y.bytes() + pre.bytes() + residual.bytes(), 2. * T * N * K);
  dispatch_product(where, x.dtype(), y.dtype(), [&](auto in, auto out) {
    using In = typename decltype(in)::type;
    using Out = typename decltype(out)::type;
    cpu::linear<In, Out>(ctx, T, N, K, x.data<In>(), w.data<In>(), b.defined() ? b.data<Out>() : nullptr, epilogue,
                         residual.defined() ? residual.data<Out>() : nullptr, pre.defined() ? pre.data<Out>() : nullptr,
                         y.data<Out>());
  });
}

void backward(const char* where, Context& ctx, const Tensor& dy, const Tensor* pre, const Tensor& x, const Tensor& w,
              Tensor* dx, Tensor* dw, Tensor* db) {
  const auto [T, N, K] = check_linear(where, x, w, "dy", dy);
  if (pre) check(where, "pre", *pre).like(dy);
  if (dx) check(where, "dx", *dx).shape(x.shape()).dtype(dy.dtype());
  if (dw) check(where, "dw", *dw).shape(w.shape()).dtype(dy.dtype());
  if (db) check(where, "db", *db).shape({N}).dtype(dy.dtype());
  const auto scope =
      ctx.profiler().scope(where, dy.bytes() + (pre ? pre->bytes() : 0) + 2. * x.bytes() + 2. * w.bytes(),
                           2. * T * N * K * ((dx != nullptr) + (dw != nullptr)));
  dispatch_product(where, x.dtype(), dy.dtype(), [&](auto in, auto out) {
    using In = typename decltype(in)::type;
    using Out = typename decltype(out)::type;
    auto data = [](Tensor* t) { return t ? t->data<Out>() : nullptr; };
    cpu::linear_backward<In, Out, Out>(ctx, T, N, K, dy.data<Out>(), pre ? pre->data<Out>() : nullptr, x.data<In>(),
                                       w.data<In>(), data(dx), data(dw), data(db));
  });
}

}  // namespace

void linear(Context& ctx, const Tensor& x, const Tensor& w, const Tensor& b, Tensor& y) {
  Tensor none;
  forward("linear", cpu::Epilogue::none, ctx, x, w, b, none, none, y);
}

void linear_gelu(Context& ctx, const Tensor& x, const Tensor& w, const Tensor& b, Tensor& pre, Tensor& y) {
  forward("linear_gelu", cpu::Epilogue::gelu, ctx, x, w, b, Tensor(), pre, y);
}

void linear_residual(Context& ctx, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual,
                     Tensor& y) {
  Tensor none;
  forward("linear_residual", cpu::Epilogue::residual, ctx, x, w, b, residual, none, y);
}

void linear_backward(Context& ctx, const Tensor& dy, const Tensor& x, const Tensor& w, Tensor* dx, Tensor* dw,
                     Tensor* db) {
  backward("linear_backward", ctx, dy, nullptr, x, w, dx, dw, db);
}

void linear_gelu_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Tensor& w,
                          Tensor* dx, Tensor* dw, Tensor* db) {
  backward("linear_gelu_backward", ctx, dy, &pre, x, w, dx, dw, db);
}

void matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor& c) {
  check("matmul", "a", a).rank(2).compute();
  check("matmul", "b", b).rank(2).dtype(a.dtype());
  const int64_t M = a.dim(transpose_a ? 1 : 0), K = a.dim(transpose_a ? 0 : 1), N = b.dim(transpose_b ? 0 : 1);
  if (b.dim(transpose_b ? 1 : 0) != K)
    fail("matmul", "a has shape {}{}, b {}{}: the inner extents differ", a.shape(), transpose_a ? " transposed" : "",
         b.shape(), transpose_b ? " transposed" : "");
  check("matmul", "c", c).shape({M, N});
  const auto scope = ctx.profiler().scope("matmul", a.bytes() + b.bytes() + c.bytes(), 2. * M * N * K);
  dispatch_product("matmul", a.dtype(), c.dtype(), [&](auto in, auto out) {
    using In = typename decltype(in)::type;
    using Out = typename decltype(out)::type;
    if (transpose_a && !transpose_b)  // a weight gradient in all but name
      cpu::linear_backward<In, In, Out>(ctx, K, M, N, a.data<In>(), nullptr, b.data<In>(), nullptr, nullptr,
                                        c.data<Out>(), nullptr);
    else
      cpu::matmul_rows<In, Out>(ctx, M, N, K, a.data<In>(), transpose_a, b.data<In>(), transpose_b, c.data<Out>());
  });
}

}  // namespace lightcone::kernels
