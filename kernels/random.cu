#include "kernels/device.cuh"
#include "kernels/random.h"

namespace lightcone::kernels {

namespace {

// base + factor n_i, n_i normal or uniform with 53 bits. A thread takes one element at a time.
template <bool normal, class T>
__global__ void fill_kernel(int64_t n, Numbers numbers, double base, double factor, T* y) {
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step())
    y[i] = T(base + factor * (normal ? numbers.normal(i) : numbers.uniform53(i)));
}

/// Elements of a thread and step: those of one counter of Philox, or of two where 16 bytes hold as many.
template <class T>
inline constexpr int group = std::max(4, cuda::pack_size<T>);

// A thread takes a group at a time, in words where x and y are aligned for that; the last group, where it is not whole,
// element by element. y may be x: an element is read and written by one thread. u = word / 2^32 >= p where the word is
// at least `threshold`.
template <class T, class Sum = sum_type<T>>
__global__ void dropout_kernel(int64_t n, bool words, Numbers numbers, double p, uint64_t threshold, Sum scale,
                               const T* x, T* y) {
  constexpr int V = cuda::pack_size<T>;
  for (int64_t i = group<T> * cuda::first_item(); i < n; i += group<T> * cuda::item_step()) {
    bool kept[group<T>];
    if (numbers.recorded) {
#pragma unroll
      for (int k = 0; k < group<T>; ++k) kept[k] = i + k < n && numbers.recorded[i + k] >= p;
    } else {
#pragma unroll
      for (int k = 0; k < group<T>; k += 4) {
        const auto word = philox(numbers.key, numbers.position, static_cast<uint64_t>(i + k) / 4);
#pragma unroll
        for (int w = 0; w < 4; ++w) kept[k + w] = word[w] >= threshold;
      }
    }
    auto value = [&](T v, int k) { return kept[k] ? T(Sum(v) * scale) : T(0.f); };
    if (words && i + group<T> <= n) {
#pragma unroll
      for (int v = 0; v < group<T>; v += V) {
        auto pack = cuda::load_word<V>(x + i + v);
#pragma unroll
        for (int k = 0; k < V; ++k) pack.at[k] = value(pack.at[k], v + k);
        cuda::store_word(y + i + v, pack);
      }
    } else {
#pragma unroll
      for (int k = 0; k < group<T>; ++k)
        if (i + k < n) y[i + k] = value(x[i + k], k);
    }
  }
}

}  // namespace

namespace cuda {

void fill(Context& ctx, const char* where, bool normal, const Draw& draw, double base, double factor, Tensor& y) {
  const DrawnNumbers numbers(ctx, draw);
  dispatch_compute(where, y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, normal ? fill_kernel<true, T> : fill_kernel<false, T>, {blocks_for(y.numel()), block_threads},
           y.numel(), numbers, base, factor, y.data<T>());
  });
}

void dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y) {
  const DrawnNumbers numbers(ctx, draw);
  dispatch_compute("dropout", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t n = x.numel();
    launch(ctx, "dropout", dropout_kernel<T>, {blocks_for((n + group<T> - 1) / group<T>), block_threads}, n,
           aligned<pack_size<T>>(x.data<T>(), y.data<T>()), numbers, p, static_cast<uint64_t>(std::ceil(p * 0x1p32)),
           static_cast<sum_type<T>>(1 / (1 - p)), x.data<T>(), y.data<T>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
