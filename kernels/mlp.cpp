#include "kernels/mlp.h"

#include <algorithm>

#include "kernels/elementwise_math.h"
#include "kernels/linear_parts.h"

namespace lightcone::kernels {

namespace cpu {
namespace {

template <class In, class P>
void mlp(Context& ctx, int64_t T, int64_t K, int64_t H, int64_t N, const In* x, const Weights& w1, const In* b1,
         const Weights& w2, const In* b2, const In* residual, In* pre, In* y) {
  using Sum = sum_type<In>;
  const auto &up = w1.of_transpose<P>(ctx), &down = w2.of_transpose<P>(ctx);
  Bias<In> bias1(ctx, H, b1), bias2(ctx, N, b2);
  constexpr int64_t most = gemm::row_chunk<P>, few = std::is_same_v<P, bf16> ? 32 : 24;
  const int64_t chunk = T > 4 * most ? most : few;  // a single jet is shared, too
  parallel_chunks(ctx, T, chunk, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    auto sums = ctx.scratch<Sum>(rows * std::max(H, N));
    auto hidden = ctx.scratch<In>(rows * H);
    Sum* inner = sums.data();
    if constexpr (std::is_same_v<In, Sum>)
      if (pre) inner = pre + begin * H;
    gemm::multiply(ctx, rows, x + begin * K, up, 0, H, bias1.data(), inner);
    if constexpr (!std::is_same_v<In, Sum>) {
      std::transform(inner, inner + rows * H, inner, [](Sum v) { return Sum(In(v)); });
      if (pre) std::transform(inner, inner + rows * H, pre + begin * H, [](Sum v) { return In(v); });
    }
    vector_math::map(
        rows * H, hidden.data(), [](Sum v) { return elementwise::gelu(v); }, inner);
    gemm::multiply(ctx, rows, hidden.data(), down, 0, N, bias2.data(), sums.data());
    std::transform(sums.data(), sums.data() + rows * N, residual + begin * N, y + begin * N,
                   [](Sum v, In r) { return In(Sum(r) + v); });
  });
}

template <class In, class P>
void mlp_backward(Context& ctx, int64_t T, int64_t K, int64_t H, int64_t N, const In* dy, const In* pre, const In* x,
                  const Weights& w1, const Weights& w2, In* dx, In* dw1, In* db1, In* dw2, In* db2) {
  using Sum = sum_type<In>;
  constexpr int64_t block = gemm::token_block;  // its hidden values and gradients stay in the second-level cache
  const bool inner = dx || dw1 || db1;
  const auto& to_hidden = w2.of_weights<P>(ctx);
  const auto& to_x = w1.of_weights<P>(ctx);
  const Segments segments(T, std::max(K, N) * H);
  TokenSum<In> sum_w1(ctx, segments, H * K, dw1), sum_b1(ctx, segments, H, db1), sum_w2(ctx, segments, N * H, dw2),
      sum_b2(ctx, segments, N, db2);
  parallel_chunks(ctx, T, segments.size, [&](int64_t s, int64_t segment_begin, int64_t segment_end) {
    auto hidden = ctx.scratch<In>(block * H), gradient = ctx.scratch<In>(block * H);
    for (int64_t begin = segment_begin; begin < segment_end; begin += block) {
      const int64_t rows = std::min(block, segment_end - begin);
      const bool first = begin == segment_begin;
      const In *g = dy + begin * N, *p = pre + begin * H;
      if (db2) add_rows(rows, N, g, first, sum_b2.of(s));
      if (inner) {
        Result<In> back(ctx, rows * H, gradient.data());
        gemm::multiply(ctx, rows, g, to_hidden, 0, H, nullptr, back.sums());
        auto gelu_and_gradient = [](Sum d, Sum v) {
          const auto normal = elementwise::normal(v);
          return std::pair(v * normal.cdf, d * (normal.cdf + v * normal.density));
        };
        vector_math::map_pair(rows * H, hidden.data(), gradient.data(), gelu_and_gradient,
                              static_cast<const Sum*>(back.sums()), p);
      } else {
        vector_math::map(
            rows * H, hidden.data(), [](Sum v) { return elementwise::gelu(v); }, p);
      }
      if (dw2) gemm::multiply_tokens<P>(ctx, rows, N, H, g, hidden.data(), sum_w2.of(s), !first);
      if (!inner) continue;
      if (db1) add_rows(rows, H, gradient.data(), first, sum_b1.of(s));
      if (dw1) gemm::multiply_tokens<P>(ctx, rows, H, K, gradient.data(), x + begin * K, sum_w1.of(s), !first);
      if (dx) {
        Result<In> result(ctx, rows * K, dx + begin * K);
        gemm::multiply(ctx, rows, gradient.data(), to_x, 0, K, nullptr, result.sums());
        result.store();
      }
    }
  });
  for (auto* sum : {&sum_w1, &sum_b1, &sum_w2, &sum_b2}) sum->finish();
}

}  // namespace
}  // namespace cpu

namespace {

struct Sizes {
  int64_t T, K, H, N;
};

Sizes check_mlp(const char* where, const Tensor& x, const Weights& w1, const Weights& w2, const char* name,
                const Tensor& y) {
  check(where, "x", x).compute();
  check(where, "w1", w1.tensor()).rank(2).dtype(x.dtype());
  check(where, "w2", w2.tensor()).rank(2).dtype(x.dtype());
  const int64_t H = w1.tensor().dim(0), K = w1.tensor().dim(1), N = w2.tensor().dim(0);
  if (x.rank() == 0 || x.dim(-1) != K)
    fail(where, "x has shape {}, expected {} columns as w1 {} has", x.shape(), K, w1.tensor().shape());
  check(where, "w2", w2.tensor()).shape({N, H});
  if (w1.products() != w2.products())
    fail(where, "w1 multiplies in {}, w2 in {}; expected the same", w1.products(), w2.products());
  Shape expected = x.shape();
  expected[-1] = N;
  check(where, name, y).shape(expected).dtype(x.dtype());
  return {K ? x.numel() / K : expected.numel() / std::max<int64_t>(1, N), K, H, N};
}

void check_pre(const char* where, const Tensor& pre, const Tensor& x, int64_t H) {
  Shape expected = x.shape();
  expected[-1] = H;
  check(where, "pre", pre).shape(expected).dtype(x.dtype());
}

template <class T>
T* data(Tensor* t) {
  return t ? t->data<T>() : nullptr;
}

}  // namespace

void mlp(Context& ctx, const Tensor& x, const Weights& w1, const Tensor& b1, const Weights& w2, const Tensor& b2,
         const Tensor& residual, Tensor& pre, Tensor& y) {
  const auto [T, K, H, N] = check_mlp("mlp", x, w1, w2, "y", y);
  if (b1.defined()) check("mlp", "b1", b1).shape({H}).dtype(x.dtype());
  if (b2.defined()) check("mlp", "b2", b2).shape({N}).dtype(x.dtype());
  check("mlp", "residual", residual).like(y);
  if (pre.defined()) check_pre("mlp", pre, x, H);
  const double bytes = x.bytes() + 2. * y.bytes() + pre.bytes() + w1.tensor().bytes() + w2.tensor().bytes();
  const auto scope = ctx.profiler().scope("mlp", bytes, 2. * T * H * (K + N));
  dispatch_products("mlp", x.dtype(), w1.products(), [&](auto in, auto product) {
    using In = typename decltype(in)::type;
    using P = typename decltype(product)::type;
    cpu::mlp<In, P>(ctx, T, K, H, N, x.data<In>(), w1, b1.defined() ? b1.data<In>() : nullptr, w2,
                    b2.defined() ? b2.data<In>() : nullptr, residual.data<In>(),
                    pre.defined() ? pre.data<In>() : nullptr, y.data<In>());
  });
}

void mlp_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Weights& w1,
                  const Weights& w2, const MlpGradients& g) {
  const char* where = "mlp_backward";
  const auto [T, K, H, N] = check_mlp(where, x, w1, w2, "dy", dy);
  check_pre(where, pre, x, H);
  auto check_gradient = [&](const char* name, const Tensor* t, const Shape& shape) {
    if (t) check(where, name, *t).shape(shape).dtype(x.dtype());
  };
  check_gradient("dx", g.dx, x.shape());
  check_gradient("dw1", g.dw1, {H, K});
  check_gradient("db1", g.db1, {H});
  check_gradient("dw2", g.dw2, {N, H});
  check_gradient("db2", g.db2, {N});
  const bool inner = g.dx || g.dw1 || g.db1;
  const double products = N * ((g.dw2 != nullptr) + inner) + K * ((g.dx != nullptr) + (g.dw1 != nullptr));
  const auto scope = ctx.profiler().scope(where, dy.bytes() + pre.bytes() + 2. * x.bytes(), 2. * T * H * products);
  dispatch_products(where, x.dtype(), w1.products(), [&](auto in, auto product) {
    using In = typename decltype(in)::type;
    using P = typename decltype(product)::type;
    cpu::mlp_backward<In, P>(ctx, T, K, H, N, dy.data<In>(), pre.data<In>(), x.data<In>(), w1, w2, data<In>(g.dx),
                             data<In>(g.dw1), data<In>(g.db1), data<In>(g.dw2), data<In>(g.db2));
  });
}

}  // namespace lightcone::kernels
