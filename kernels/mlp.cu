#include "kernels/device.cuh"
#include "kernels/elementwise_math.h"
#include "kernels/linear_cuda.h"
#include "kernels/linear_parts.h"
#include "kernels/mlp.h"

// Products by cuBLASLt and, between them, one pass over the hidden values.
namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Pack;

/// How threads share the hidden values [rows, cols]: a block has `lanes` packs of V columns, and of a chunk of rows
/// every (block_threads / lanes)-th goes to the same thread. Sums over a chunk have an order that the shape fixes.
struct Tiles {
  static constexpr int chunk = 64;
  int64_t rows, cols;
  int lanes;
  bool aligned;

  int64_t chunks() const { return (rows + chunk - 1) / chunk; }
  LIGHTCONE_HOST_DEVICE int64_t across(int V) const { return (cols / V + lanes - 1) / lanes; }
};

template <int V, class T>
__device__ Pack<T, V> load(const Tiles& tiles, const T* x) {
  if (tiles.aligned) return cuda::load_word<V>(x);
  Pack<T, V> pack;
#pragma unroll
  for (int k = 0; k < V; ++k) pack.at[k] = x[k];
  return pack;
}
template <int V, class T>
__device__ void store(const Tiles& tiles, T* to, const Pack<T, V>& pack) {
  if (tiles.aligned) return cuda::store_word(to, pack);
#pragma unroll
  for (int k = 0; k < V; ++k) to[k] = pack.at[k];
}

// hidden = gelu(pre), g = gelu'(pre) dh, sums [chunks, cols] = those of g over the rows of a chunk; null: not wanted,
// and no dh, no g. A block owns a tile of Tiles; V divides cols, and threads past the last pack have nothing to do.
template <int V, class W, class P, class Sum>
__global__ void gelu_kernel(Tiles tiles, const W* pre, const Sum* dh, P* hidden, P* g, Sum* sums) {
  const int64_t across = tiles.across(V), of_chunk = blockIdx.x / across;
  const int lane = static_cast<int>(threadIdx.x) % tiles.lanes, first = static_cast<int>(threadIdx.x) / tiles.lanes,
            step = block_threads / tiles.lanes;
  const int64_t col = (blockIdx.x % across * tiles.lanes + lane) * V;
  const int64_t end = min((of_chunk + 1) * Tiles::chunk, tiles.rows);
  Sum sum[V];
#pragma unroll
  for (int k = 0; k < V; ++k) sum[k] = 0;
  if (col < tiles.cols)
    for (int64_t t = of_chunk * Tiles::chunk + first; t < end; t += step) {
      const int64_t at = t * tiles.cols + col;
      const auto in = load<V>(tiles, pre + at);
      Pack<Sum, V> gradient;
      if (dh) gradient = load<V>(tiles, dh + at);
      Pack<P, V> value, back;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const Sum v = Sum(in.at[k]);
        const auto normal = elementwise::normal(v);
        value.at[k] = P(v * normal.cdf);
        if (!dh) continue;
        const Sum d = gradient.at[k] * (normal.cdf + v * normal.density);
        back.at[k] = P(d);
        sum[k] += d;
      }
      if (hidden) store<V>(tiles, hidden + at, value);
      if (g) store<V>(tiles, g + at, back);
    }
  if (!sums) return;
  __shared__ Sum shared[V][block_threads];  // by components, without bank conflicts
#pragma unroll
  for (int k = 0; k < V; ++k) shared[k][threadIdx.x] = sum[k];
  __syncthreads();
  if (first > 0 || col >= tiles.cols) return;
  Pack<Sum, V> total;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    total.at[k] = 0;
    for (int i = lane; i < block_threads; i += tiles.lanes) total.at[k] += shared[k][i];
  }
  store<V>(tiles, sums + of_chunk * tiles.cols + col, total);
}

/// gelu_kernel for tensors; undefined ones are null, `sum` is all of g summed over its rows.
void through_gelu(Context& ctx, const char* where, const Weights& w1, const Tensor& pre, const Tensor& dh,
                  Tensor& hidden, Tensor& g, Tensor* sum) {
  const int64_t H = w1.tensor().dim(0), T = H ? pre.numel() / H : 0;
  dispatch_products(where, w1.tensor().dtype(), w1.products(), [&](auto weights, auto products) {
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    using Sum = sum_type<P>;
    auto run = [&]<int V>(std::integral_constant<int, V>) {
      const int lanes = static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(H / V, 1, 32))));
      Tiles tiles{T, H, lanes, false};
      const Tensor sums = sum ? ctx.empty({tiles.chunks(), H}, sum_dtype(w1.products())) : Tensor();
      const W* in = data<W>(pre);
      const Sum* back = data<Sum>(dh);
      P *to = data<P>(&hidden), *to_g = data<P>(&g);
      Sum* to_sums = const_cast<Sum*>(data<Sum>(sums));
      tiles.aligned = cuda::aligned<V>(in, back, to, to_g, to_sums);
      cuda::launch(ctx, where, gelu_kernel<V, W, P, Sum>, {tiles.chunks() * tiles.across(V), block_threads}, tiles, in,
                   back, to, to_g, to_sums);
      if (sum) cuda::column_sums(ctx, where, sums, *sum);
    };
    constexpr int V = cuda::pack_size<Sum>;
    H % V == 0 ? run(std::integral_constant<int, V>()) : run(std::integral_constant<int, 1>());
  });
}

}  // namespace

namespace cuda {

void mlp(Context& ctx, const Tensor& x, const Weights& w1, const Tensor& b1, const Weights& w2, const Tensor& b2,
         const Tensor& residual, Tensor& pre, Tensor& y) {
  const char* where = "mlp";
  Shape shape = x.shape();
  shape[-1] = w1.tensor().dim(0);
  Tensor inner = pre.defined() ? pre : ctx.empty(shape, w1.tensor().dtype());
  Tensor hidden = ctx.empty(shape, w1.products()), none;
  product(ctx, where, x, w1, b1, {}, inner);
  through_gelu(ctx, where, w1, inner, {}, hidden, none, nullptr);
  product(ctx, where, hidden, w2, b2, residual, y);
}

void mlp_backward(Context& ctx, const Tensor& dy, const Tensor& pre, const Tensor& x, const Weights& w1,
                  const Tensor& b1, const Weights& w2, const MlpGradients& to) {
  const char* where = "mlp_backward";
  const bool inner = to.dx || to.dw1 || to.db1;
  if (to.db2) column_sums(ctx, where, dy, *to.db2);
  if (!inner && !to.dw2) return;

  Shape shape = x.shape();
  shape[-1] = w1.tensor().dim(0);
  const DType products = w1.products();
  const Tensor factor = rounded(ctx, dy, products), in = to.dw1 || !pre.defined() ? rounded(ctx, x, products) : x;
  Tensor before = pre, dh, hidden, g;
  if (!pre.defined()) before = ctx.empty(shape, w1.tensor().dtype()), product(ctx, where, in, w1, b1, {}, before);
  if (inner) dh = ctx.empty(shape, sum_dtype(products)), product_backward(ctx, where, factor, w2, {}, dh);
  if (to.dw2) hidden = ctx.empty(shape, products);
  if (to.dx || to.dw1) g = ctx.empty(shape, products);
  through_gelu(ctx, where, w1, before, dh, hidden, g, to.db1);
  if (to.dw2) product_weights(ctx, where, factor, hidden, w2, *to.dw2);
  if (to.dw1) product_weights(ctx, where, g, in, w1, *to.dw1);
  if (to.dx) product_backward(ctx, where, g, w1, {}, *to.dx);
}

}  // namespace cuda

}  // namespace lightcone::kernels
