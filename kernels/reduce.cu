#include <limits>

#include "kernels/device.cuh"
#include "kernels/reduce.h"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;

struct Itself {
  template <class S>
  __device__ S operator()(S x) const {
    return x;
  }
};
struct Square {
  __device__ double operator()(double x) const { return x * x; }
};
struct NotFinite {
  template <class S>
  __device__ double operator()(S x) const {
    return !(x - x == 0);  // x - x is 0 for finite x, else NaN
  }
};

struct Plus {
  template <class S>
  __device__ S operator()(S a, S b) const {
    return a + b;
  }
};
struct Larger {  // NaN above all
  template <class S>
  __device__ S operator()(S a, S b) const {
    return a != a || a > b ? a : b;
  }
};

// The owners of a Row own one row of x each; those past the last row leave together.
template <class Row, class T, class Combine, class Sum>
__global__ void reduce_rows_kernel(Row row, int64_t rows, int64_t cols, const T* x, Combine combine, Sum none,
                                   Sum scale, T* y) {
  const int64_t t = row.index();
  if (t >= rows) return;
  const Sum all = row.reduce(cols, none, combine, Itself(), x + t * cols);
  if (row.first()) y[t] = T(scale * all);
}

// y[b, c] = scale times the sum of f(x[t, c]) over the `depth` rows t of block row b. A block owns `width` columns, a
// power of two up to 32, of one block row; a thread owns one column of every (256 / width)th row, whose sums then meet
// in halves. Threads past the last column bring nothing.
template <class T, class Sum, class F, class Out>
__global__ void sum_columns_kernel(int64_t rows, int64_t cols, int width, int64_t depth, const T* x, F f, Sum scale,
                                   Out* y) {
  const int64_t tiles = (cols + width - 1) / width, b = blockIdx.x / tiles;
  const int64_t c = blockIdx.x % tiles * width + threadIdx.x % width, end = std::min(rows, (b + 1) * depth);
  const int lane = threadIdx.x / width, lanes = block_threads / width;
  Sum sum = 0;
  if (c < cols)
    for (int64_t t = b * depth + lane; t < end; t += lanes) sum += Sum(f(sum_type<T>(x[t * cols + c])));
  __shared__ Sum sums[block_threads];
  sums[threadIdx.x] = sum;
  for (int half = lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) sums[threadIdx.x] += sums[threadIdx.x + half * width];
  }
  if (lane == 0 && c < cols) y[b * cols + c] = Out(scale * sums[threadIdx.x]);
}

// dx[t, c] = scale dy[t] (along columns) or scale dy[c]. A thread takes one element at a time.
template <class T, class Sum>
__global__ void spread_kernel(int64_t n, int64_t cols, const T* dy, bool along_columns, Sum scale, T* dx) {
  cuda::Place place(cols);
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next())
    dx[i] = T(scale * Sum(dy[along_columns ? place.row : place.col]));
}

template <class T, class Combine>
void reduce_rows(const char* where, Context& ctx, const Tensor& x, Combine combine, sum_type<T> none, double scale,
                 Tensor& y) {
  const int64_t rows = y.numel(), cols = x.dim(-1);
  auto run = [&](auto row) {
    cuda::launch(ctx, where, reduce_rows_kernel<decltype(row), T, Combine, sum_type<T>>,
                 {row.blocks(rows), block_threads}, row, rows, cols, x.data<T>(), combine, none,
                 static_cast<sum_type<T>>(scale), y.data<T>());
  };
  cuda::with_row(cols, run, x.data<T>());
}

// y[c] = scale times the sum of f(x[t, c]) over t, first over rows in blocks that depend on cols alone, in Sum, and
// then over the blocks, in f64.
template <class T, class Sum, class F, class Out>
void sum_leading(const char* where, Context& ctx, int64_t rows, int64_t cols, const T* x, F f, double scale, Out* y) {
  const int width = static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(cols, 1, 32))));
  const int64_t depth = 32 * (block_threads / width), blocks = (rows + depth - 1) / depth,
                tiles = (cols + width - 1) / width;
  auto partial = ctx.scratch<Sum>(blocks * cols);
  cuda::launch(ctx, where, sum_columns_kernel<T, Sum, F, Sum>, {blocks * tiles, block_threads}, rows, cols, width,
               depth, x, f, Sum(1), partial.data());
  cuda::launch(ctx, where, sum_columns_kernel<Sum, double, Itself, Out>, {tiles, block_threads}, blocks, cols, width,
               blocks, partial.data(), Itself(), scale, y);
}

// The sum of f(x) over all elements, in f64, read back.
template <class F>
double total(const char* where, Context& ctx, const Tensor& x, F f) {
  auto sum = ctx.scratch<double>(1);
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    sum_leading<T, double>(where, ctx, x.numel(), 1, x.data<T>(), f, 1, sum.data());
  });
  double value;
  ctx.allocator().copy_out(&value, sum.data(), sizeof value);
  return value;
}

}  // namespace

namespace cuda {

void sum(Context& ctx, const Tensor& x, Over over, double scale, Tensor& y) {
  dispatch_compute("sum", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t count = count_of_sum(x.shape(), over);
    if (over == Over::last)
      reduce_rows<T>("sum", ctx, x, Plus(), 0, scale, y);
    else
      sum_leading<T, sum_type<T>>("sum", ctx, count, y.numel(), x.data<T>(), Itself(), scale, y.data<T>());
  });
}

void column_sums(Context& ctx, const char* where, const Tensor& x, Tensor& y) {
  auto run = [&](auto in, auto out) {
    using T = typename decltype(in)::type;
    using Out = typename decltype(out)::type;
    const int64_t cols = y.numel();
    sum_leading<T, sum_type<T>>(where, ctx, cols ? x.numel() / cols : 0, cols, x.data<T>(), Itself(), 1, y.data<Out>());
  };
  if (x.dtype() == DType::bf16 && y.dtype() == DType::f32) return run(Type<bf16>(), Type<float>());
  if (x.dtype() == DType::f32 && y.dtype() == DType::bf16) return run(Type<float>(), Type<bf16>());
  dispatch_compute(where, x.dtype(), [&](auto type) { run(type, type); });
}

void sum_backward(Context& ctx, const Tensor& dy, Over over, double scale, Tensor& dx) {
  if (dx.numel() == 0) return;
  dispatch_compute("sum_backward", dx.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t cols = over == Over::last ? dx.dim(-1) : dy.numel();
    launch(ctx, "sum_backward", spread_kernel<T, sum_type<T>>, {blocks_for(dx.numel()), block_threads}, dx.numel(),
           cols, dy.data<T>(), over == Over::last, static_cast<sum_type<T>>(scale), dx.data<T>());
  });
}

void max_last(Context& ctx, const Tensor& x, Tensor& y) {
  dispatch_compute("max_last", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    reduce_rows<T>("max_last", ctx, x, Larger(), -std::numeric_limits<sum_type<T>>::infinity(), 1, y);
  });
}

double sum_of_squares(Context& ctx, const Tensor& x) { return total("sum_of_squares", ctx, x, Square()); }

bool all_finite(Context& ctx, const Tensor& x) { return total("all_finite", ctx, x, NotFinite()) == 0; }

}  // namespace cuda

}  // namespace lightcone::kernels
