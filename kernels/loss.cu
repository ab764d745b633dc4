#include <limits>

#include "kernels/device.cuh"
#include "kernels/loss_math.h"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Pack;
using cuda::pack_size;

/// Elements, or rows of logits, that a block sums.
constexpr int64_t block_elements = 4096, block_rows = 64;

struct Plus {
  __device__ double operator()(double a, double b) const { return a + b; }
};

/// The sum over all threads of a block, in f64; the first one writes it.
__device__ void write_sum(double sum, double* to) {
  sum = cuda::combined<block_threads>(sum, Plus());
  if (threadIdx.x == 0) *to = sum;
}

// A block owns block_elements neighbouring elements, a thread every 256th of them; those past the last bring nothing.
template <class F, class T>
__global__ void sum_kernel(int64_t n, F term, const T* x, const T* targets, double* partial) {
  using Sum = sum_type<T>;
  const int64_t begin = blockIdx.x * block_elements, end = std::min(n, begin + block_elements);
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += block_threads) sum += term(Sum(x[i]), Sum(targets[i]));
  write_sum(sum, partial + blockIdx.x);
}

// One block: loss = the sum of the blocks' sums / n, a thread every 256th of them.
template <class Sum>
__global__ void mean_kernel(int64_t blocks, const double* partial, double n, Sum* loss) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < blocks; i += block_threads) sum += partial[i];
  sum = cuda::combined<block_threads>(sum, Plus());
  if (threadIdx.x == 0) *loss = Sum(sum / n);
}

// A thread takes one pack of V elements at a time where all operands are aligned for that, and then the elements behind
// the last whole pack one by one.
template <int V, class F, class T, class Sum>
__global__ void slope_kernel(int64_t n, bool aligned, F, const Sum* dloss, const T* x, const T* targets, T* dx) {
  const Sum factor = *dloss / Sum(n);
  auto one = [=](T v, T t) { return T(loss::slope<F>(factor, Sum(v), Sum(t))); };
  const int64_t packs = aligned ? n / V : 0;
  for (int64_t i = cuda::first_item(); i < packs; i += cuda::item_step()) {
    const auto v = cuda::load_word<V>(x + i * V), t = cuda::load_word<V>(targets + i * V);
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.at[k] = one(v.at[k], t.at[k]);
    cuda::store_word(dx + i * V, out);
  }
  for (int64_t i = packs * V + cuda::first_item(); i < n; i += cuda::item_step()) dx[i] = one(x[i], targets[i]);
}

// Logits come in rows of a few classes, or a few dozen: a warp owns one, a thread one class at a time.
using Logits = cuda::Row<32, 1>;

// log sum_c exp(x[c]), shifted by the largest so that nothing overflows. A NaN may be lost from that, but not from the
// sum.
template <class T, class Sum = sum_type<T>>
__device__ Sum log_sum_exp(Logits row, int64_t cols, const T* x) {
  const Sum largest = row.reduce(
      cols, -std::numeric_limits<Sum>::infinity(), [](Sum a, Sum b) { return a > b ? a : b; }, [](Sum v) { return v; },
      x);
  const Sum sum = row.template sum<Sum>(
      cols, [=](Sum v) { return vector_math::exp(v - largest); }, x);
  return largest + vector_math::log(sum);
}

// A block owns block_rows neighbouring rows, a warp every eighth of them. A label that is no class makes the loss NaN.
template <class T>
__global__ void cross_entropy_kernel(Logits row, int64_t rows, int64_t cols, const T* x, const int64_t* labels,
                                     double* partial) {
  using Sum = sum_type<T>;
  const int64_t begin = blockIdx.x * block_rows, end = std::min(rows, begin + block_rows);
  double sum = 0;
  for (int64_t b = begin + threadIdx.x / Logits::size; b < end; b += block_threads / Logits::size) {
    const T* in = x + b * cols;
    const Sum total = log_sum_exp(row, cols, in);
    const int64_t label = labels[b];
    const bool known = label >= 0 && label < cols;
    if (row.first()) sum += known ? total - Sum(in[label]) : std::numeric_limits<Sum>::quiet_NaN();
  }
  write_sum(sum, partial + blockIdx.x);
}

// A warp owns one row; those past the last leave. A label that is no class makes the row's gradient NaN.
template <class T, class Sum>
__global__ void cross_entropy_backward_kernel(Logits row, int64_t rows, int64_t cols, const Sum* dloss, const T* x,
                                              const int64_t* labels, T* dx) {
  const int64_t b = row.index();
  if (b >= rows) return;
  const Sum total = log_sum_exp(row, cols, x + b * cols);
  const int64_t label = labels[b];
  const bool known = label >= 0 && label < cols;
  const Sum factor = known ? *dloss / Sum(rows) : std::numeric_limits<Sum>::quiet_NaN();
  row.each(
      cols,
      [&](int64_t c, const Pack<T, 1>& v) {
        dx[b * cols + c] = T(factor * (vector_math::exp(Sum(v.at[0]) - total) - Sum(c == label)));
      },
      x + b * cols);
}

// loss = the mean of n terms, of which `sums(partial)` leaves the sum of each block.
template <class Sum, class F>
void mean_of(Context& ctx, const char* where, int64_t n, int64_t blocks, Tensor& loss, F sums) {
  auto partial = ctx.scratch<double>(blocks);
  sums(partial.data());
  cuda::launch(ctx, where, mean_kernel<Sum>, {1, block_threads}, blocks, partial.data(), static_cast<double>(n),
               loss.data<Sum>());
}

}  // namespace

namespace cuda {

template <class F>
void mean(Context& ctx, const char* where, F term, const Tensor& x, const Tensor& targets, Tensor& loss) {
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t n = x.numel(), blocks = (n + block_elements - 1) / block_elements;
    mean_of<sum_type<T>>(ctx, where, n, blocks, loss, [&](double* partial) {
      launch(ctx, where, sum_kernel<F, T>, {blocks, block_threads}, n, term, x.data<T>(), targets.data<T>(), partial);
    });
  });
}

template <class F>
void slope(Context& ctx, const char* where, F term, const Tensor& dloss, const Tensor& x, const Tensor& targets,
           Tensor& dx) {
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    constexpr int V = pack_size<T>;
    const int64_t n = x.numel();
    launch(ctx, where, slope_kernel<V, F, T, Sum>, {blocks_for((n + V - 1) / V), block_threads}, n,
           aligned<V>(x.data<T>(), targets.data<T>(), dx.data<T>()), term, dloss.data<Sum>(), x.data<T>(),
           targets.data<T>(), dx.data<T>());
  });
}

#define LIGHTCONE_LOSS(F)                                                              \
  template void mean(Context&, const char*, F, const Tensor&, const Tensor&, Tensor&); \
  template void slope(Context&, const char*, F, const Tensor&, const Tensor&, const Tensor&, Tensor&)
LIGHTCONE_LOSS(loss::BinaryCrossEntropy);
LIGHTCONE_LOSS(loss::SquaredError);
#undef LIGHTCONE_LOSS

void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& labels, Tensor& loss) {
  dispatch_compute("cross_entropy", logits.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t rows = logits.dim(0), cols = logits.dim(1), blocks = (rows + block_rows - 1) / block_rows;
    mean_of<sum_type<T>>(ctx, "cross_entropy", rows, blocks, loss, [&](double* partial) {
      launch(ctx, "cross_entropy", cross_entropy_kernel<T>, {blocks, block_threads}, Logits{true}, rows, cols,
             logits.data<T>(), labels.data<int64_t>(), partial);
    });
  });
}

void cross_entropy_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            Tensor& dlogits) {
  dispatch_compute("cross_entropy_backward", logits.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    const int64_t rows = logits.dim(0), cols = logits.dim(1);
    launch(ctx, "cross_entropy_backward", cross_entropy_backward_kernel<T, Sum>, {Logits::blocks(rows), block_threads},
           Logits{true}, rows, cols, dloss.data<Sum>(), logits.data<T>(), labels.data<int64_t>(), dlogits.data<T>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
