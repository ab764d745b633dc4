#include "kernels/segment.h"
#include "kernels/team.cuh"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Channels;
using cuda::Pack;
using cuda::pack_size;

// How a block's threads share jets of `units` per row (packs of channels, or words): `width` threads, a power of two up
// to a warp, side by side on a row, `lanes` rows at once. Rows of more than 32 units are cut into tiles, a block each;
// of short ones a block has several jets. All of it depends on units alone, and so does the order of a jet's sum.
struct Seats {
  int64_t jets, units;
  int width, lanes;

  Seats(int64_t jets, int64_t units)
      : jets(jets),
        units(units),
        width(static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(units, 1, 32))))),
        lanes(std::min(block_threads / width, 32)) {}
  LIGHTCONE_HOST_DEVICE unsigned tiles() const { return static_cast<unsigned>((units + width - 1) / width); }
  LIGHTCONE_HOST_DEVICE int per_block() const { return block_threads / (width * lanes); }
  int64_t blocks() const { return (jets + per_block() - 1) / per_block() * tiles(); }

  __device__ int64_t jet() const {
    return int64_t{blockIdx.x / tiles()} * per_block() + static_cast<int>(threadIdx.x) / (width * lanes);
  }
  __device__ int64_t unit() const {
    return int64_t{blockIdx.x % tiles()} * width + static_cast<int>(threadIdx.x) % width;
  }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) / width % lanes; }
  /// Whether there is something for this thread: all stay in a kernel whose threads meet.
  __device__ bool taken() const { return jet() < jets && unit() < units; }

  /// join(n) lets this thread take in what the one n places on has brought to shared memory, until lane 0 has it all.
  template <class Join>
  __device__ void meet(Join join) const {
    for (int half = lanes / 2; half > 0; half /= 2) {
      __syncthreads();
      if (lane() < half) join(static_cast<int>(threadIdx.x) + half * width);
    }
  }
};

// A thread owns one pack of channels in every lanes-th row of one jet; the lanes' sums meet in halves. Threads past the
// last channel or jet bring zeros.
template <class T, int V = pack_size<T>>
__global__ void pool_kernel(Seats seats, Channels<V> channels, const T* x, const int32_t* ptr, bool mean, T* y) {
  using Sum = sum_type<T>;
  const bool taken = seats.taken();
  const int64_t b = seats.jet(), c = seats.unit() * V;
  const int32_t begin = taken ? ptr[b] : 0, end = taken ? ptr[b + 1] : 0;
  Sum sum[V] = {};
#pragma unroll 4
  for (int32_t t = begin + seats.lane(); t < end; t += seats.lanes) {
    const auto pack = channels.load(x + t * channels.n, c);
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] += Sum(pack.at[k]);
  }
  __shared__ Sum sums[V][block_threads];
#pragma unroll
  for (int k = 0; k < V; ++k) sums[k][threadIdx.x] = sum[k];
  seats.meet([&](int other) {
#pragma unroll
    for (int k = 0; k < V; ++k) sums[k][threadIdx.x] += sums[k][other];
  });
  if (!taken || seats.lane() != 0) return;
  const Sum count = mean ? Sum(max(1, end - begin)) : Sum(1);
  Pack<T, V> result;
#pragma unroll
  for (int k = 0; k < V; ++k) result.at[k] = T(sums[k][threadIdx.x] / count);
  channels.store(y + b * channels.n, c, result);
}

// A thread owns one pack of channels in every lanes-th row of one jet, and leaves where there is none.
template <class T, int V = pack_size<T>>
__global__ void broadcast_kernel(Seats seats, Channels<V> channels, const T* x, const int32_t* ptr, bool mean, T* y) {
  using Sum = sum_type<T>;
  if (!seats.taken()) return;
  const int64_t b = seats.jet(), c = seats.unit() * V;
  const int32_t begin = ptr[b], end = ptr[b + 1];
  const Sum count = mean ? Sum(max(1, end - begin)) : Sum(1);
  auto pack = channels.load(x + b * channels.n, c);
#pragma unroll
  for (int k = 0; k < V; ++k) pack.at[k] = T(Sum(pack.at[k]) / count);
  for (int32_t t = begin + seats.lane(); t < end; t += seats.lanes) channels.store(y + t * channels.n, c, pack);
}

// Whether row i with value a is the largest rather than row j with value b; row -1 is none.
template <class S>
__device__ bool beats(S a, int32_t i, S b, int32_t j) {
  if (i < 0 || j < 0) return i >= 0;
  const bool nan_a = a != a, nan_b = b != b;
  return a > b || (nan_a && !nan_b) || ((a == b || (nan_a && nan_b)) && i < j);
}

// As pool_kernel.
template <class T, int V = pack_size<T, int32_t>>
__global__ void max_kernel(Seats seats, Channels<V> channels, Channels<V> of_jets, const T* x, const int32_t* ptr, T* y,
                           int32_t* argmax) {
  using Sum = sum_type<T>;
  const bool taken = seats.taken();
  const int64_t b = seats.jet(), c = seats.unit() * V;
  const int32_t end = taken ? ptr[b + 1] : 0;
  Sum top[V] = {};
  int32_t row[V];
#pragma unroll
  for (int k = 0; k < V; ++k) row[k] = -1;
#pragma unroll 4
  for (int32_t t = (taken ? ptr[b] : 0) + seats.lane(); t < end; t += seats.lanes) {
    const auto pack = channels.load(x + t * channels.n, c);
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (const Sum value = Sum(pack.at[k]); beats(value, t, top[k], row[k])) top[k] = value, row[k] = t;
  }
  __shared__ Sum tops[V][block_threads];
  __shared__ int32_t rows[V][block_threads];
#pragma unroll
  for (int k = 0; k < V; ++k) tops[k][threadIdx.x] = top[k], rows[k][threadIdx.x] = row[k];
  seats.meet([&](int other) {
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (beats(tops[k][other], rows[k][other], tops[k][threadIdx.x], rows[k][threadIdx.x])) {
        tops[k][threadIdx.x] = tops[k][other];
        rows[k][threadIdx.x] = rows[k][other];
      }
  });
  if (!taken || seats.lane() != 0) return;
  Pack<T, V> value;
  Pack<int32_t, V> place;
#pragma unroll
  for (int k = 0; k < V; ++k) value.at[k] = T(tops[k][threadIdx.x]), place.at[k] = rows[k][threadIdx.x];
  of_jets.store(y + b * channels.n, c, value);
  of_jets.store(argmax + b * channels.n, c, place);
}

// As broadcast_kernel.
template <class T, int V = pack_size<T, int32_t>>
__global__ void max_backward_kernel(Seats seats, Channels<V> channels, Channels<V> of_jets, const T* dy,
                                    const int32_t* argmax, const int32_t* ptr, T* dx) {
  if (!seats.taken()) return;
  const int64_t b = seats.jet(), c = seats.unit() * V;
  const auto gradient = of_jets.load(dy + b * channels.n, c);
  const auto row = of_jets.load(argmax + b * channels.n, c);
  const int32_t end = ptr[b + 1];
  for (int32_t t = ptr[b] + seats.lane(); t < end; t += seats.lanes) {
    Pack<T, V> pack;
#pragma unroll
    for (int k = 0; k < V; ++k) pack.at[k] = row.at[k] == t ? gradient.at[k] : T(0.f);
    channels.store(dx + t * channels.n, c, pack);
  }
}

// y = the rows `first` and x between them, as words. A thread owns one word in every lanes-th row of one jet. What is
// not there is zero.
template <class Unit>
__global__ void prepend_kernel(Seats seats, const Unit* first, const Unit* x, const int32_t* longer, Unit* y) {
  if (!seats.taken()) return;
  const int64_t b = seats.jet(), c = seats.unit();
  const int32_t begin = longer[b], end = longer[b + 1];
  for (int32_t t = begin + seats.lane(); t < end; t += seats.lanes) {
    Unit value = {};
    if (t == begin && first) value = first[b * seats.units + c];
    if (t != begin && x) value = x[(t - b - 1) * seats.units + c];
    y[t * seats.units + c] = value;
  }
}

// The inverse. What is not there is left out.
template <class Unit>
__global__ void split_kernel(Seats seats, const Unit* y, const int32_t* longer, Unit* first, Unit* x) {
  if (!seats.taken()) return;
  const int64_t b = seats.jet(), c = seats.unit();
  const int32_t begin = longer[b], end = x ? longer[b + 1] : begin + 1;
  for (int32_t t = begin + seats.lane(); t < end; t += seats.lanes) {
    if (t == begin && !first) continue;
    const Unit value = y[t * seats.units + c];
    (t == begin ? first + b * seats.units : x + (t - b - 1) * seats.units)[c] = value;
  }
}

// A thread takes one word of y at a time. The index is i32 or i64.
template <class Unit>
__global__ void gather_kernel(int64_t n, int64_t units, const Unit* x, const int32_t* narrow, const int64_t* wide,
                              Unit* y) {
  cuda::Place place(units);
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next())
    y[i] = x[(narrow ? narrow[place.row] : wide[place.row]) * units + place.col];
}

// y[r] = sum of the rows order[begin[r]], …, order[begin[r+1] - 1] of x. A thread takes one pack of y at a time and adds
// row after row.
template <class T, int V = pack_size<T>>
__global__ void sum_rows_kernel(int64_t n, Channels<V> channels, const T* x, const int32_t* begin, const int32_t* order,
                                T* y) {
  using Sum = sum_type<T>;
  cuda::Place place(channels.packs());
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next()) {
    const int64_t c = place.col * V;
    const int32_t end = begin[place.row + 1];
    Sum sum[V] = {};
#pragma unroll 4
    for (int32_t j = begin[place.row]; j < end; ++j) {
      const auto pack = channels.load(x + order[j] * channels.n, c);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += Sum(pack.at[k]);
    }
    Pack<T, V> result;
#pragma unroll
    for (int k = 0; k < V; ++k) result.at[k] = T(sum[k]);
    channels.store(y + place.row * channels.n, c, result);
  }
}

// f(word) with the largest word that divides rows of so many bytes at these places.
template <class F>
void with_unit(int64_t row, F&& f, const std::same_as<const void*> auto... places) {
  switch (std::countr_zero((static_cast<uint64_t>(row) | ... | reinterpret_cast<uintptr_t>(places)) | 16)) {
    case 1:
      return f(uint16_t{});
    case 2:
      return f(uint32_t{});
    case 3:
      return f(uint2{});
    default:
      return f(uint4{});
  }
}

int64_t row_bytes(const Tensor& x) { return x.dim(1) * static_cast<int64_t>(size_of(x.dtype())); }

}  // namespace

namespace cuda {

void segment_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y) {
  dispatch_compute("segment_pool", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const Channels<pack_size<T>> channels(x.dim(1), x.data<T>(), y.data<T>());
    const Seats seats(y.dim(0), channels.packs());
    launch(ctx, "segment_pool", pool_kernel<T>, {seats.blocks(), block_threads}, seats, channels, x.data<T>(),
           ptr.data<int32_t>(), pool == Pool::mean, y.data<T>());
  });
}

void segment_broadcast(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y) {
  dispatch_compute("segment_broadcast", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const Channels<pack_size<T>> channels(x.dim(1), x.data<T>(), y.data<T>());
    const Seats seats(x.dim(0), channels.packs());
    launch(ctx, "segment_broadcast", broadcast_kernel<T>, {seats.blocks(), block_threads}, seats, channels, x.data<T>(),
           ptr.data<int32_t>(), pool == Pool::mean, y.data<T>());
  });
}

void segment_max(Context& ctx, const Tensor& x, const Tensor& ptr, Tensor& y, Tensor& argmax) {
  dispatch_compute("segment_max", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Rows = Channels<pack_size<T, int32_t>>;
    const Rows channels(x.dim(1), x.data<T>()), of_jets(x.dim(1), y.data<T>(), argmax.data<int32_t>());
    const Seats seats(y.dim(0), channels.packs());
    launch(ctx, "segment_max", max_kernel<T>, {seats.blocks(), block_threads}, seats, channels, of_jets, x.data<T>(),
           ptr.data<int32_t>(), y.data<T>(), argmax.data<int32_t>());
  });
}

void segment_max_backward(Context& ctx, const Tensor& dy, const Tensor& argmax, const Tensor& ptr, Tensor& dx) {
  dispatch_compute("segment_max_backward", dx.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Rows = Channels<pack_size<T, int32_t>>;
    const Rows channels(dx.dim(1), dx.data<T>()), of_jets(dx.dim(1), dy.data<T>(), argmax.data<int32_t>());
    const Seats seats(dy.dim(0), channels.packs());
    launch(ctx, "segment_max_backward", max_backward_kernel<T>, {seats.blocks(), block_threads}, seats, channels,
           of_jets, dy.data<T>(), argmax.data<int32_t>(), ptr.data<int32_t>(), dx.data<T>());
  });
}

void prepend_rows(Context& ctx, const Tensor* first, const Tensor* x, const Tensor& longer, Tensor& y) {
  const void *heads = first ? first->raw() : nullptr, *others = x ? x->raw() : nullptr;
  const void* to = y.raw();
  auto run = [&](auto unit) {
    using Unit = decltype(unit);
    const Seats seats(longer.dim(0) - 1, row_bytes(y) / static_cast<int64_t>(sizeof(Unit)));
    launch(ctx, "prepend_rows", prepend_kernel<Unit>, {seats.blocks(), block_threads}, seats,
           static_cast<const Unit*>(heads), static_cast<const Unit*>(others), longer.data<int32_t>(),
           static_cast<Unit*>(y.raw()));
  };
  with_unit(row_bytes(y), run, heads, others, to);
}

void split_rows(Context& ctx, const Tensor& y, const Tensor& longer, Tensor* first, Tensor* x) {
  if (!first && !x) return;
  void *heads = first ? first->raw() : nullptr, *others = x ? x->raw() : nullptr;
  const void *to_heads = heads, *to_others = others;
  auto run = [&](auto unit) {
    using Unit = decltype(unit);
    const Seats seats(longer.dim(0) - 1, row_bytes(y) / static_cast<int64_t>(sizeof(Unit)));
    launch(ctx, "split_rows", split_kernel<Unit>, {seats.blocks(), block_threads}, seats,
           static_cast<const Unit*>(y.raw()), longer.data<int32_t>(), static_cast<Unit*>(heads),
           static_cast<Unit*>(others));
  };
  with_unit(row_bytes(y), run, y.raw(), to_heads, to_others);
}

void gather_rows(Context& ctx, const Tensor& x, const Tensor& index, Tensor& y) {
  if (y.numel() == 0) return;
  const bool wide = index.dtype() == DType::i64;
  const void* to = y.raw();
  auto run = [&](auto unit) {
    using Unit = decltype(unit);
    const int64_t units = row_bytes(y) / static_cast<int64_t>(sizeof(Unit)), n = y.dim(0) * units;
    launch(ctx, "gather_rows", gather_kernel<Unit>, {blocks_for(n), block_threads}, n, units,
           static_cast<const Unit*>(x.raw()), wide ? nullptr : index.data<int32_t>(),
           wide ? index.data<int64_t>() : nullptr, static_cast<Unit*>(y.raw()));
  };
  with_unit(row_bytes(y), run, x.raw(), to);
}

void sum_rows(Context& ctx, const Tensor& x, std::span<const int32_t> lists, Tensor& y) {
  if (y.numel() == 0) return;
  auto copy = ctx.scratch<int32_t>(static_cast<int64_t>(lists.size()));
  ctx.allocator().copy_in(copy.data(), lists.data(), lists.size_bytes());
  dispatch_compute("scatter_add_rows", y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const Channels<pack_size<T>> channels(y.dim(1), x.data<T>(), y.data<T>());
    const int64_t n = y.dim(0) * channels.packs();
    launch(ctx, "scatter_add_rows", sum_rows_kernel<T>, {blocks_for(n), block_threads}, n, channels, x.data<T>(),
           copy.data(), copy.data() + y.dim(0) + 1, y.data<T>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
