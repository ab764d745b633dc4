#include "kernels/geometric_algebra_device.cuh"
#include "kernels/geometric_algebra_gate.h"
#include "kernels/norm_types.h"

// Products, gates, grades in and out; norms are in geometric_algebra_norm.cu.

namespace lightcone::kernels {

namespace {

using namespace geometric_algebra;
using cuda::Channels;
using cuda::channels_in_registers;
using cuda::Components;
using cuda::layout;
using cuda::Multivectors;
using cuda::Pack;
using cuda::Place;

// Everywhere here a thread takes one pack of channels of one token at a time, all its components.

template <int V, class X>
__global__ void embed_kernel(int64_t n, Multivectors in, Channels<V> channels, Held held, int64_t count, const X* x,
                             X* y) {
  Place place(channels.packs());
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step(), place.next())
    unrolled<components>([&](auto i) {
      Pack<X, V> pack = {};
      if (held[i]) {
        pack = channels.load(x + (place.row * count + std::abs(held[i]) - 1) * channels.n, place.col * V);
#pragma unroll
        for (int k = 0; k < V; ++k)
          if (held[i] < 0) pack.at[k] = X(-pack.at[k]);
      }
      channels.store(y + in(place.row, i), place.col * V, pack);
    });
}

template <int V, class X>
__global__ void extract_kernel(int64_t n, Multivectors in, Channels<V> channels, Held held, int64_t count, const X* y,
                               X* x) {
  Place place(channels.packs());
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step(), place.next())
    unrolled<components>([&](auto i) {
      if (!held[i]) return;
      auto pack = channels.load(y + in(place.row, i), place.col * V);
#pragma unroll
      for (int k = 0; k < V; ++k)
        if (held[i] < 0) pack.at[k] = X(-pack.at[k]);
      channels.store(x + (place.row * count + std::abs(held[i]) - 1) * channels.n, place.col * V, pack);
    });
}

// to = the products of two, the terms of component i those of terms(i, j).
template <Term (*terms)(int, int), int V, class S, class Y>
__device__ void multiply(const Components<V, S>& a, const Components<V, S>& b, const Channels<V>& channels,
                         const Multivectors& out, Y* to, int64_t token, int64_t c) {
  unrolled<components>([&](auto i) {
    Pack<Y, V> pack;
#pragma unroll
    for (int k = 0; k < V; ++k) pack.at[k] = Y(product_row<terms, i()>(a.at[k], b.at[k]));
    channels.store(to + out(token, i), c, pack);
  });
}

template <int V, class X, class Y>
__global__ void geometric_product_kernel(int64_t n, Multivectors in, Multivectors out, Channels<V> channels,
                                         const X* lr, Y* y) {
  Place place(channels.packs());
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step(), place.next()) {
    Components<V, sum_type<X>> l, r;
    l.load(channels, in, lr, place.row, place.col * V);
    r.load(channels, in, lr + 2 * channels.n, place.row, place.col * V);
    multiply<term>(l, r, channels, out, y, place.row, place.col * V);
  }
}

template <int V, class X, class Y>
__global__ void geometric_product_backward_kernel(int64_t n, Multivectors in, Multivectors out, Channels<V> channels,
                                                  const Y* dy, const X* lr, X* dlr) {
  Place place(channels.packs());
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step(), place.next()) {
    Components<V, sum_type<X>> g, other;
    g.load(channels, out, dy, place.row, place.col * V);
    other.load(channels, in, lr + 2 * channels.n, place.row, place.col * V);
    multiply<left_term>(g, other, channels, in, dlr, place.row, place.col * V);
    other.load(channels, in, lr, place.row, place.col * V);
    multiply<right_term>(g, other, channels, in, dlr + 2 * channels.n, place.row, place.col * V);
  }
}

template <int V, class X, class Y>
__global__ void gated_kernel(int64_t n, Multivectors in, Channels<V> channels, const X* x, Gate f, Y* y) {
  using S = sum_type<X>;
  Place place(channels.packs());
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step(), place.next()) {
    const auto scalar = channels.load(x + in(place.row, 0), place.col * V);
    S value[V];
    with_gate(f, [&](auto function) {
#pragma unroll
      for (int k = 0; k < V; ++k) value[k] = gate<function()>(S(scalar.at[k])).value;
    });
#pragma unroll
    for (int i = 0; i < components; ++i) {
      const auto pack = channels.load(x + in(place.row, i), place.col * V);
      Pack<Y, V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) result.at[k] = Y(value[k] * S(pack.at[k]));
      channels.store(y + in(place.row, i), place.col * V, result);
    }
  }
}

// The scalar component is the last, when the sum over all is known.
template <int V, class X, class Y>
__global__ void gated_backward_kernel(int64_t n, Multivectors in, Channels<V> channels, const Y* dy, const X* x, Gate f,
                                      X* dx) {
  using S = sum_type<X>;
  Place place(channels.packs());
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step(), place.next()) {
    const auto scalar = channels.load(x + in(place.row, 0), place.col * V);
    S value[V], slope[V], sum[V] = {};
    with_gate(f, [&](auto function) {
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const auto both = gate<function()>(S(scalar.at[k]));
        value[k] = both.value;
        slope[k] = both.derivative;
      }
    });
#pragma unroll
    for (int i = components - 1; i >= 0; --i) {
      const auto g = channels.load(dy + in(place.row, i), place.col * V);
      const auto pack = i ? channels.load(x + in(place.row, i), place.col * V) : scalar;
      Pack<X, V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        sum[k] += S(g.at[k]) * S(pack.at[k]);
        result.at[k] = X(i ? value[k] * S(g.at[k]) : value[k] * S(g.at[k]) + slope[k] * sum[k]);
      }
      channels.store(dx + in(place.row, i), place.col * V, result);
    }
  }
}

// Five numbers of the draw for channel j: 5 j and those after it, which two counters of the generator hold; a number is
// its word / 2^32, so that it is at least p where the word is at least `threshold`.
struct Kept {
  bool grade[5];

  __device__ Kept(const Numbers& numbers, int64_t j, double p, uint64_t threshold) {
    if (numbers.recorded) {
#pragma unroll
      for (int k = 0; k < 5; ++k) grade[k] = numbers.recorded[5 * j + k] >= p;
      return;
    }
    const auto counter = static_cast<uint64_t>(5 * j) / 4;
    const auto low = philox(numbers.key, numbers.position, counter),
               high = philox(numbers.key, numbers.position, counter + 1);
    const int first = static_cast<int>(5 * j % 4);
    unrolled<5>([&](auto k) {
      auto word = [&]<int w>(std::integral_constant<int, w>) { return w < 4 ? low[w % 4] : high[w % 4]; };
      const uint32_t words[] = {word(k), word(std::integral_constant<int, k() + 1>()),
                                word(std::integral_constant<int, k() + 2>()),
                                word(std::integral_constant<int, k() + 3>())};
      grade[k] = (first == 0 ? words[0] : first == 1 ? words[1] : first == 2 ? words[2] : words[3]) >= threshold;
    });
  }
};

// A thread takes one channel of one token at a time. y may be x.
template <class X>
__global__ void grade_dropout_kernel(int64_t n, Multivectors in, Numbers numbers, double p, uint64_t threshold,
                                     sum_type<X> scale, const X* x, X* y) {
  Place place(in.half);
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step(), place.next()) {
    const Kept kept(numbers, item, p, threshold);
    unrolled<components>([&](auto i) {
      const int64_t at = in(place.row, i) + place.col;
      y[at] = kept.grade[grade(component(i).blade)] ? X(sum_type<X>(x[at]) * scale) : X(0.f);
    });
  }
}

// launch() for kernels whose threads take packs of channels of tokens; n and the layout come first.
template <class... Parameters, class... Arguments>
void launch_packs(Context& ctx, const char* name, void (*kernel)(Parameters...), int64_t tokens, int64_t packs,
                  Arguments... arguments) {
  const int64_t n = tokens * packs;
  cuda::launch(ctx, name, kernel, {cuda::blocks_for(n), cuda::block_threads}, n, arguments...);
}

}  // namespace

namespace cuda {

void embed(Context& ctx, const Held& held, const Tensor& x, Tensor& y) {
  dispatch_compute("embed", x.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    const Channels<pack_size<X>> channels(x.dim(2), x.data<X>(), y.data<X>());
    launch_packs(ctx, "embed", embed_kernel<pack_size<X>, X>, x.dim(0), channels.packs(), layout(y), channels, held,
                 x.dim(1), x.data<X>(), y.data<X>());
  });
}

void extract(Context& ctx, const Held& held, const Tensor& y, Tensor& x) {
  dispatch_compute("extract", x.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    const Channels<pack_size<X>> channels(x.dim(2), x.data<X>(), y.data<X>());
    launch_packs(ctx, "extract", extract_kernel<pack_size<X>, X>, x.dim(0), channels.packs(), layout(y), channels, held,
                 x.dim(1), y.data<X>(), x.data<X>());
  });
}

void geometric_product(Context& ctx, const Tensor& lr, Tensor& y) {
  const char* where = "geometric_product";
  dispatch_narrow(where, lr.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    constexpr int V = channels_in_registers<X>;
    const Channels<V> channels(y.dim(2) / 2, lr.data<X>(), y.data<Y>());
    launch_packs(ctx, where, geometric_product_kernel<V, X, Y>, y.dim(1), channels.packs(),
                 Multivectors{y.dim(1), lr.dim(2), channels.n}, layout(y), channels, lr.data<X>(), y.data<Y>());
  });
}

void geometric_product_backward(Context& ctx, const Tensor& dy, const Tensor& lr, Tensor& dlr) {
  const char* where = "geometric_product_backward";
  dispatch_narrow(where, lr.dtype(), dy.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    constexpr int V = channels_in_registers<X>;
    const Channels<V> channels(dy.dim(2) / 2, dy.data<Y>(), lr.data<X>(), dlr.data<X>());
    launch_packs(ctx, where, geometric_product_backward_kernel<V, X, Y>, dy.dim(1), channels.packs(),
                 Multivectors{dy.dim(1), lr.dim(2), channels.n}, layout(dy), channels, dy.data<Y>(), lr.data<X>(),
                 dlr.data<X>());
  });
}

void gated(Context& ctx, Gate f, const Tensor& x, Tensor& y) {
  dispatch_narrow("gated", x.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    constexpr int V = pack_size<X, Y>;
    const Channels<V> channels(x.dim(2) / 2, x.data<X>(), y.data<Y>());
    launch_packs(ctx, "gated", gated_kernel<V, X, Y>, x.dim(1), channels.packs(), layout(x), channels, x.data<X>(), f,
                 y.data<Y>());
  });
}

void gated_backward(Context& ctx, Gate f, const Tensor& dy, const Tensor& x, Tensor& dx) {
  dispatch_narrow("gated_backward", x.dtype(), dy.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    constexpr int V = pack_size<X, Y>;
    const Channels<V> channels(x.dim(2) / 2, dy.data<Y>(), x.data<X>(), dx.data<X>());
    launch_packs(ctx, "gated_backward", gated_backward_kernel<V, X, Y>, x.dim(1), channels.packs(), layout(x), channels,
                 dy.data<Y>(), x.data<X>(), f, dx.data<X>());
  });
}

void grade_dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y) {
  dispatch_compute("grade_dropout", x.dtype(), [&](auto type) {
    using X = typename decltype(type)::type;
    const DrawnNumbers numbers(ctx, draw);
    launch_packs(ctx, "grade_dropout", grade_dropout_kernel<X>, x.dim(1), x.dim(2) / 2, layout(x), Numbers(numbers), p,
                 static_cast<uint64_t>(std::ceil(p * 0x1p32)), static_cast<sum_type<X>>(1 / (1 - p)), x.data<X>(),
                 y.data<X>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
