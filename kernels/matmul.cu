#include "engine/cublaslt.h"
#include "kernels/device.cuh"
#include "kernels/elementwise.h"
#include "kernels/elementwise_math.h"
#include "kernels/linear_cuda.h"
#include "kernels/linear_parts.h"

namespace lightcone::kernels {

namespace {

using cuda::Pack;

// What cuBLASLt leaves to do where a product is in f32 and y is bf16 with a bias in f32, or where K is 0: from sums
// (null: zeros) and the bias (null: none), y = sums + b + residual, or pre = sums + b, y = gelu(pre). A thread takes V
// elements of one row at a time; V divides the number of columns. residual, if not null, may be y.
template <int V, bool gelu, class Y, class W>
__global__ void finish_kernel(int64_t packs, int64_t cols, bool aligned, const sum_type<Y>* sums, const W* b,
                              const Y* residual, Y* pre, Y* y) {
  using Sum = sum_type<Y>;
  cuda::Place place(cols / V);
  auto add = [&](Pack<Sum, V>& to, const auto* from) {
    const auto more = aligned ? cuda::load_word<V>(from) : [&] {
      Pack<std::remove_cvref_t<decltype(*from)>, V> pack;
#pragma unroll
      for (int k = 0; k < V; ++k) pack.at[k] = from[k];
      return pack;
    }();
#pragma unroll
    for (int k = 0; k < V; ++k) to.at[k] += Sum(more.at[k]);
  };
  auto store = [&](Y* to, const Pack<Y, V>& pack) {
    if (aligned) return cuda::store_word<V>(to, pack);
#pragma unroll
    for (int k = 0; k < V; ++k) to[k] = pack.at[k];
  };
  for (int64_t i = cuda::first_item(); i < packs; i += cuda::item_step(), place.next()) {
    Pack<Sum, V> sum;
#pragma unroll
    for (int k = 0; k < V; ++k) sum.at[k] = 0;
    if (sums) add(sum, sums + i * V);
    if (b) add(sum, b + place.col * V);
    if (!gelu && residual) add(sum, residual + i * V);
    Pack<Y, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = Y(sum.at[k]);
    if constexpr (gelu) {
      if (pre) store(pre + i * V, out);
#pragma unroll
      for (int k = 0; k < V; ++k) out.at[k] = Y(elementwise::gelu(Sum(out.at[k])));
    }
    store(y + i * V, out);
  }
}

template <bool gelu, class Y, class W>
void finish(Context& ctx, const char* where, int64_t n, int64_t cols, const sum_type<Y>* sums, const W* b,
            const Y* residual, Y* pre, Y* y) {
  auto run = [&]<int V>(std::integral_constant<int, V>) {
    cuda::launch(ctx, where, finish_kernel<V, gelu, Y, W>, {cuda::blocks_for(n / V), cuda::block_threads}, n / V, cols,
                 cuda::aligned<V>(sums, b, residual, pre, y), sums, b, residual, pre, y);
  };
  constexpr int V = cuda::pack_size<sum_type<Y>>;
  cols % V == 0 ? run(std::integral_constant<int, V>()) : run(std::integral_constant<int, 1>());
}

using lightcone::cuda::Product;

// c = a b with c's rows (or what is summed) as what varies; zeros where there is nothing to sum.
void multiply(Context& ctx, const char* where, const Product& p, Tensor& c) {
  if (p.K == 0) return ctx.allocator().clear(c.raw(), c.bytes());
  lightcone::cuda::multiply(ctx, where, p);
}

/// The product of all extents but the last.
int64_t rows_of(const Tensor& t) {
  int64_t rows = 1;
  for (int axis = 0; axis + 1 < t.rank(); ++axis) rows *= t.dim(axis);
  return rows;
}

}  // namespace

namespace cuda {

Tensor rounded(Context& ctx, const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  Tensor copy = ctx.empty(t.shape(), dtype);
  cast(ctx, t, copy);
  return copy;
}

void product(Context& ctx, const char* where, const Tensor& x, const Weights& w, const Tensor& b, const Tensor& add,
             Tensor& y) {
  const int64_t N = w.tensor().dim(0), K = w.tensor().dim(1);
  if (y.numel() == 0) return;
  const Tensor bias = b.defined() ? rounded(ctx, b, y.dtype()) : Tensor();
  if (K == 0) {
    add.defined() ? scale(ctx, add, 1, y) : ctx.allocator().clear(y.raw(), y.bytes());
    if (b.defined()) add_row(ctx, y, bias, y);
    return;
  }
  const Tensor in = rounded(ctx, x, w.products());
  lightcone::cuda::multiply(ctx, where,
                            {.M = rows_of(y),
                             .N = N,
                             .K = K,
                             .factors = w.products(),
                             .result = y.dtype(),
                             .a = {in.raw()},
                             .b = {w.factor(ctx).raw(), true},
                             .c = y.raw(),
                             .bias = b.defined() ? bias.raw() : nullptr,
                             .add = add.defined() ? add.raw() : nullptr});
}

void product_backward(Context& ctx, const char* where, const Tensor& dy, const Weights& w, const Tensor& add,
                      Tensor& dx) {
  const int64_t N = w.tensor().dim(0), K = w.tensor().dim(1);
  if (dx.numel() == 0) return;
  if (N == 0 && add.defined()) return scale(ctx, add, 1, dx);
  const Tensor factor = rounded(ctx, dy, w.products());
  multiply(ctx, where,
           {.M = rows_of(dx),
            .N = K,
            .K = N,
            .factors = w.products(),
            .result = dx.dtype(),
            .a = {factor.raw()},
            .b = {w.factor(ctx).raw()},
            .c = dx.raw(),
            .add = add.defined() ? add.raw() : nullptr},
           dx);
}

void product_weights(Context& ctx, const char* where, const Tensor& dy, const Tensor& x, const Weights& w, Tensor& dw) {
  const Tensor factor = rounded(ctx, dy, w.products()), in = rounded(ctx, x, w.products());
  multiply(ctx, where,
           {.M = dw.dim(0),
            .N = dw.dim(1),
            .K = rows_of(dy),
            .factors = w.products(),
            .result = dw.dtype(),
            .a = {factor.raw(), true},
            .b = {in.raw()},
            .c = dw.raw(),
            .varies = Product::Varies::terms},
           dw);
}

void linear(Context& ctx, const char* where, LinearSizes n, const Tensor& x, const Weights& w, const Tensor& b,
            Epilogue epilogue, const Tensor& residual, Tensor& pre, Tensor& y) {
  if (y.numel() == 0) return;
  const bool gelu = epilogue == Epilogue::gelu;
  const DType sums = sum_dtype(w.products());
  // cuBLASLt adds a bias of y's dtype alone.
  const bool separate = n.K == 0 || (b.defined() && b.dtype() != y.dtype());
  Tensor product = !separate ? (gelu && pre.defined() ? pre : y) : n.K ? ctx.empty(y.shape(), sums) : Tensor();
  if (n.K) {
    const Tensor in = rounded(ctx, x, w.products());
    Product p{.M = n.T,
              .N = n.N,
              .K = n.K,
              .factors = w.products(),
              .result = product.dtype(),
              .a = {in.raw()},
              .b = {w.factor(ctx).raw(), true},
              .c = product.raw()};
    if (!separate) p.bias = b.defined() ? b.raw() : nullptr, p.add = residual.defined() ? residual.raw() : nullptr;
    lightcone::cuda::multiply(ctx, where, p);
  }
  if (!separate) {
    if (gelu) unary(ctx, Unary::gelu, product, y);
    return;
  }
  dispatch_products(where, w.tensor().dtype(), w.products(), [&](auto weights, auto products) {
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    dispatch_activation<W, P>(y.dtype(), [&](auto out) {
      using Y = typename decltype(out)::type;
      auto run = [&]<bool g>(std::bool_constant<g>) {
        finish<g, Y, W>(ctx, where, y.numel(), n.N, data<sum_type<Y>>(product), data<W>(b), data<Y>(residual),
                        data<Y>(&pre), y.data<Y>());
      };
      gelu ? run(std::true_type()) : run(std::false_type());
    });
  });
}

void linear_backward(Context& ctx, const char* where, const Tensor& dy, const Tensor* pre, const Tensor& x,
                     const Weights& w, Tensor* dx, Tensor* dw, Tensor* db) {
  Tensor g = dy;
  if (pre && dy.numel()) {
    g = ctx.empty(dy.shape(), dy.dtype());
    unary_backward(ctx, Unary::gelu, dy, *pre, g);
  }
  if (db) column_sums(ctx, where, g, *db);
  if (!dx && !dw) return;
  const Tensor factor = rounded(ctx, g, w.products());  // once for both
  if (dx) product_backward(ctx, where, factor, w, {}, *dx);
  if (dw) product_weights(ctx, where, factor, x, w, *dw);
}

void matmul(Context& ctx, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor& c,
            DType products) {
  const Tensor left = rounded(ctx, a, products), right = rounded(ctx, b, products);
  const bool terms = transpose_a && !transpose_b;  // a weight gradient in all but name
  multiply(ctx, "matmul",
           {.M = c.dim(0),
            .N = c.dim(1),
            .K = a.dim(transpose_a ? 0 : 1),
            .factors = products,
            .result = c.dtype(),
            .a = {left.raw(), transpose_a},
            .b = {right.raw(), transpose_b},
            .c = c.raw(),
            .varies = terms ? Product::Varies::terms : Product::Varies::rows},
           c);
}

}  // namespace cuda

}  // namespace lightcone::kernels
