#include "kernels/device.cuh"
#include "kernels/elementwise_math.h"

namespace lightcone::kernels {

namespace {

using cuda::Pack;

// A thread takes one pack of V elements at a time where all operands are aligned for that, and then the elements behind
// the last whole pack one by one. y may be an operand: an element is read and written by one thread.
template <int V, class F, class T, class... In>
__global__ void map_kernel(int64_t n, bool aligned, F f, T* y, const In*... x) {
  const int64_t packs = aligned ? n / V : 0;
  auto of_pack = [&](const Pack<In, V>&... in) {
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = T(f(sum_type<In>(in.at[k])...));
    return out;
  };
  for (int64_t i = cuda::first_item(); i < packs; i += cuda::item_step())
    cuda::store_word(y + i * V, of_pack(cuda::load_word<V>(x + i * V)...));
  for (int64_t i = packs * V + cuda::first_item(); i < n; i += cuda::item_step()) y[i] = T(f(sum_type<In>(x[i])...));
}

// A thread takes one pack of V elements at a time; V divides cols. n and cols count packs.
template <int V, class T>
__global__ void add_row_kernel(int64_t n, int64_t cols, const T* x, const T* row, T* y) {
  using Sum = sum_type<T>;
  cuda::Place place(cols);
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next()) {
    const auto a = cuda::load_word<V>(x + i * V), b = cuda::load_word<V>(row + place.col * V);
    Pack<T, V> sum;
#pragma unroll
    for (int k = 0; k < V; ++k) sum.at[k] = T(Sum(a.at[k]) + Sum(b.at[k]));
    cuda::store_word(y + i * V, sum);
  }
}

// As map_kernel. *bad becomes the first place whose value To cannot hold, if it was behind all places.
template <int V, class From, class To>
__global__ void cast_kernel(int64_t n, bool aligned, const From* x, To* y, unsigned long long* bad) {
  auto one = [&](int64_t i, From v) {
    if constexpr (elementwise::may_not_fit<To, From>)
      if (!elementwise::fits<To>(v)) atomicMin(bad, static_cast<unsigned long long>(i));
    return elementwise::converted<To>(v);
  };
  const int64_t packs = aligned ? n / V : 0;
  for (int64_t i = cuda::first_item(); i < packs; i += cuda::item_step()) {
    const auto in = cuda::load_word<V>(x + i * V);
    Pack<To, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = one(i * V + k, in.at[k]);
    cuda::store_word(y + i * V, out);
  }
  for (int64_t i = packs * V + cuda::first_item(); i < n; i += cuda::item_step()) y[i] = one(i, x[i]);
}

// A thread takes one unit of a row at a time, from rows of from_row units to rows of to_row units.
template <class Unit>
__global__ void copy_columns_kernel(int64_t n, int64_t cols, const Unit* from, int64_t from_row, Unit* to,
                                    int64_t to_row) {
  cuda::Place place(cols);
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next())
    to[place.row * to_row + place.col] = from[place.row * from_row + place.col];
}

template <class Unit>
void copy_columns(Context& ctx, const char* where, int64_t rows, int64_t bytes, const void* from, int64_t from_row,
                  void* to, int64_t to_row) {
  constexpr int64_t unit = sizeof(Unit);
  const int64_t cols = bytes / unit;
  cuda::launch(ctx, where, copy_columns_kernel<Unit>, {cuda::blocks_for(rows * cols), cuda::block_threads}, rows * cols,
               cols, static_cast<const Unit*>(from), from_row / unit, static_cast<Unit*>(to), to_row / unit);
}

}  // namespace

namespace cuda {

template <class F, class... In>
void map(Context& ctx, const char* where, F f, Tensor& y, const In&... x) {
  dispatch_compute(where, y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int V = pack_size<T>;
    const int64_t n = y.numel();
    launch(ctx, where, map_kernel<V, F, T, decltype(x, T())...>, {blocks_for((n + V - 1) / V), block_threads}, n,
           aligned<V>(y.data<T>(), x.template data<T>()...), f, y.data<T>(), x.template data<T>()...);
  });
}

using namespace elementwise;
template void map(Context&, const char*, Add, Tensor&, const Tensor&, const Tensor&);
template void map(Context&, const char*, Subtract, Tensor&, const Tensor&, const Tensor&);
template void map(Context&, const char*, Multiply, Tensor&, const Tensor&, const Tensor&);
template void map(Context&, const char*, Scale, Tensor&, const Tensor&);
template void map(Context&, const char*, Clamp, Tensor&, const Tensor&);
template void map(Context&, const char*, ClampBackward, Tensor&, const Tensor&, const Tensor&);
#define LIGHTCONE_UNARY(f)                                                    \
  template void map(Context&, const char*, Value<f>, Tensor&, const Tensor&); \
  template void map(Context&, const char*, TimesDerivative<f>, Tensor&, const Tensor&, const Tensor&)
LIGHTCONE_UNARY(Unary::gelu);
LIGHTCONE_UNARY(Unary::relu);
LIGHTCONE_UNARY(Unary::silu);
LIGHTCONE_UNARY(Unary::sigmoid);
LIGHTCONE_UNARY(Unary::tanh);
LIGHTCONE_UNARY(Unary::softplus);
LIGHTCONE_UNARY(Unary::leaky_relu);
LIGHTCONE_UNARY(Unary::exp);
LIGHTCONE_UNARY(Unary::log);
LIGHTCONE_UNARY(Unary::sqrt);
LIGHTCONE_UNARY(Unary::abs);
LIGHTCONE_UNARY(Unary::square);
#undef LIGHTCONE_UNARY

void add_row(Context& ctx, const Tensor& x, const Tensor& row, Tensor& y) {
  dispatch_compute("add_row", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int V = pack_size<T>;
    auto run = [&]<int v>(std::integral_constant<int, v>) {
      const int64_t n = x.numel() / v;
      launch(ctx, "add_row", add_row_kernel<v, T>, {blocks_for(n), block_threads}, n, x.dim(-1) / v, x.data<T>(),
             row.data<T>(), y.data<T>());
    };
    if (x.dim(-1) % V == 0 && aligned<V>(x.data<T>(), row.data<T>(), y.data<T>()))
      run(std::integral_constant<int, V>());
    else
      run(std::integral_constant<int, 1>());
  });
}

void cast(Context& ctx, const Tensor& x, Tensor& y) {
  const int64_t n = x.numel();
  if (n == 0) return;
  dispatch_all(x.dtype(), [&](auto from) {
    dispatch_all(y.dtype(), [&](auto to) {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      if constexpr (!std::is_same_v<From, To>) {
        constexpr int V = pack_size<From, To>;
        constexpr bool refuses = may_not_fit<To, From>;
        unsigned long long none = ~0ull, bad = none;
        auto flag = ctx.scratch<unsigned long long>(refuses);
        if (refuses) ctx.allocator().copy_in(flag.data(), &none, sizeof none);
        launch(ctx, "cast", cast_kernel<V, From, To>, {blocks_for((n + V - 1) / V), block_threads}, n,
               aligned<V>(x.data<From>(), y.data<To>()), x.data<From>(), y.data<To>(), flag.data());
        if (refuses) ctx.allocator().copy_out(&bad, flag.data(), sizeof bad);
        if (bad == none) return;
        From value;
        ctx.allocator().copy_out(&value, x.data<From>() + bad, sizeof value);
        fail("cast", "element {} is {}, which {} cannot hold", bad, static_cast<double>(value), y.dtype());
      }
    });
  });
}

void copy_columns(Context& ctx, const char* where, int64_t rows, int64_t bytes, const void* from, int64_t from_row,
                  void* to, int64_t to_row) {
  if (rows == 0 || bytes == 0) return;
  // The largest unit that divides everything.
  const uint64_t all = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) | bytes | from_row | to_row;
  auto with = [&](auto unit) {
    kernels::copy_columns<decltype(unit)>(ctx, where, rows, bytes, from, from_row, to, to_row);
  };
  switch (std::countr_zero(all | 16)) {
    case 0:
      return with(uint8_t{});
    case 1:
      return with(uint16_t{});
    case 2:
      return with(uint32_t{});
    case 3:
      return with(uint2{});
    default:
      return with(uint4{});
  }
}

}  // namespace cuda

}  // namespace lightcone::kernels
