#include "kernels/gated_unit_math.h"
#include "kernels/norm_types.h"
#include "kernels/team.cuh"

namespace lightcone::kernels {

namespace {

using cuda::Channels;
using cuda::Pack;

/// The unit's operands for V channels of one token: x, its partners a and b, and the argument u.
template <int parts, int V, class X>
struct Unit {
  using S = sum_type<X>;
  static constexpr int inputs = parts == 4 ? 3 : 2;
  Pack<X, V> x[parts], a[parts], b[parts];

  __device__ Unit(const Channels<V>& channels, const X* in, int64_t c) {
#pragma unroll
    for (int p = 0; p < parts; ++p, in += inputs * channels.n) {
      x[p] = channels.load(in, c);
      a[p] = channels.load(in + channels.n, c);
      if constexpr (parts == 4) b[p] = channels.load(in + 2 * channels.n, c);
    }
  }
  __device__ S argument(int k) const {
    if constexpr (parts == 1)
      return S(a[0].at[k]);
    else
      return S(a[0].at[k]) * S(b[0].at[k]) - S(a[1].at[k]) * S(b[1].at[k]) - S(a[2].at[k]) * S(b[2].at[k]) -
             S(a[3].at[k]) * S(b[3].at[k]);
  }
};

// A thread takes one pack of channels of one token at a time.
template <int parts, int V, class X, class Y>
__global__ void gated_unit_kernel(int64_t n, Channels<V> channels, const X* x, Unary f, Y* y) {
  using Operands = Unit<parts, V, X>;
  using S = sum_type<X>;
  cuda::Place place(channels.packs());
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next()) {
    const int64_t c = place.col * V;
    const Operands in(channels, x + place.row * parts * Operands::inputs * channels.n, c);
    S gate[V];
    gated::with_function(f, [&](auto function) {
#pragma unroll
      for (int k = 0; k < V; ++k) gate[k] = elementwise::value<function()>(in.argument(k));
    });
#pragma unroll
    for (int p = 0; p < parts; ++p) {
      Pack<Y, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) out.at[k] = Y(S(in.x[p].at[k]) * gate[k]);
      channels.store(y + (place.row * parts + p) * channels.n, c, out);
    }
  }
}

// As above. dx may be x: what a thread writes it alone has read, before.
template <int parts, int V, class X, class D>
__global__ void gated_unit_backward_kernel(int64_t n, Channels<V> channels, const X* dy, const X* x, Unary f, D* dx) {
  using Operands = Unit<parts, V, X>;
  using S = sum_type<X>;
  cuda::Place place(channels.packs());
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next()) {
    const int64_t c = place.col * V, row = Operands::inputs * channels.n;
    const Operands in(channels, x + place.row * parts * row, c);
    Pack<X, V> g[parts];
#pragma unroll
    for (int p = 0; p < parts; ++p) g[p] = channels.load(dy + (place.row * parts + p) * channels.n, c);
    S gate[V], slope[V];
    gated::with_function(f, [&](auto function) {
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const auto both = gated::value_and_slope<function()>(in.argument(k));
        gate[k] = both.first;
        slope[k] = both.second;
      }
    });
#pragma unroll
    for (int k = 0; k < V; ++k) {
      S dot = 0;
#pragma unroll
      for (int p = 0; p < parts; ++p) dot += S(g[p].at[k]) * S(in.x[p].at[k]);
      slope[k] *= dot;
    }
    D* out = dx + place.row * parts * row;
#pragma unroll
    for (int p = 0; p < parts; ++p, out += row) {
      const S sign = p == 0 ? 1 : -1;
      Pack<D, V> of_x, of_a, of_b;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        of_x.at[k] = D(S(g[p].at[k]) * gate[k]);
        if constexpr (parts == 4) {
          of_a.at[k] = D(sign * slope[k] * S(in.b[p].at[k]));
          of_b.at[k] = D(sign * slope[k] * S(in.a[p].at[k]));
        } else {
          of_a.at[k] = D(slope[k]);
        }
      }
      channels.store(out, c, of_x);
      channels.store(out + channels.n, c, of_a);
      if constexpr (parts == 4) channels.store(out + 2 * channels.n, c, of_b);
    }
  }
}

// run(std::integral_constant<int, parts>, std::integral_constant<int, V>, X(), Y()) for x and the dtype of the result.
// Packs of scalars have 16 bytes, those of vectors 8, of which a thread has 16 on their way at a time.
template <class F>
void dispatch(const char* where, const Tensor& x, DType result, F&& run) {
  dispatch_narrow(where, x.dtype(), result, [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    constexpr int V = cuda::pack_size<X>;
    if (x.rank() == 3)
      run(std::integral_constant<int, 4>(), std::integral_constant<int, V / 2>(), X(), Y());
    else
      run(std::integral_constant<int, 1>(), std::integral_constant<int, V>(), X(), Y());
  });
}

}  // namespace

namespace cuda {

void gated_unit(Context& ctx, const Tensor& x, Unary f, Tensor& y) {
  auto run = [&]<int parts, int V, class X, class Y>(std::integral_constant<int, parts>, std::integral_constant<int, V>,
                                                     X, Y) {
    const Channels<V> channels(y.dim(-1), x.data<X>(), y.data<Y>());
    const int64_t n = x.dim(0) * channels.packs();
    launch(ctx, "gated_unit", gated_unit_kernel<parts, V, X, Y>, {blocks_for(n), block_threads}, n, channels,
           x.data<X>(), f, y.data<Y>());
  };
  dispatch("gated_unit", x, y.dtype(), run);
}

void gated_unit_backward(Context& ctx, const Tensor& dy, const Tensor& x, Unary f, Tensor& dx) {
  const char* where = "gated_unit_backward";
  auto run = [&]<int parts, int V, class X, class D>(std::integral_constant<int, parts>, std::integral_constant<int, V>,
                                                     X, D) {
    const Channels<V> channels(dy.dim(-1), dy.data<X>(), x.data<X>(), dx.data<D>());
    const int64_t n = x.dim(0) * channels.packs();
    launch(ctx, where, gated_unit_backward_kernel<parts, V, X, D>, {blocks_for(n), block_threads}, n, channels,
           dy.data<X>(), x.data<X>(), f, dx.data<D>());
  };
  dispatch(where, x, dx.dtype(), run);
}

}  // namespace cuda

}  // namespace lightcone::kernels
