#include "kernels/segment.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "engine/check.h"
#include "engine/threads.h"

namespace lightcone::kernels {

namespace cpu {
/// Columns of one work item: their sums stay in registers and in the first-level cache while the rows go by.
constexpr int64_t column_block = 64;

/// f(jet, first column, number of columns) for all blocks of columns of all jets.
template <class F>
void for_each_block(Context& ctx, int64_t jets, int64_t rows, int64_t cols, F&& f) {
  const int64_t blocks = (cols + column_block - 1) / column_block;
  const int64_t elements = jets ? (rows / jets + 1) * std::min(cols, column_block) : 1;
  parallel_chunks(ctx, jets * blocks, grain_for(elements), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % blocks * column_block;
      f(i / blocks, column, std::min(column_block, cols - column));
    }
  });
}

template <class T, class Sum = sum_type<T>>
void segment_pool(Context& ctx, int64_t jets, int64_t cols, const T* x, const int32_t* ptr, Pool pool, T* y) {
  for_each_block(ctx, jets, ptr[jets], cols, [&](int64_t b, int64_t column, int64_t n) {
    Sum sum[column_block] = {};
    for (int64_t t = ptr[b]; t < ptr[b + 1]; ++t)
      for (int64_t c = 0; c < n; ++c) sum[c] += Sum(x[t * cols + column + c]);
    const Sum count = pool == Pool::mean ? Sum(std::max(1, ptr[b + 1] - ptr[b])) : Sum(1);
    for (int64_t c = 0; c < n; ++c) y[b * cols + column + c] = T(sum[c] / count);
  });
}

template <class T, class Sum = sum_type<T>>
void segment_broadcast(Context& ctx, int64_t jets, int64_t cols, const T* x, const int32_t* ptr, Pool pool, T* y) {
  for_each_block(ctx, jets, ptr[jets], cols, [&](int64_t b, int64_t column, int64_t n) {
    const Sum count = pool == Pool::mean ? Sum(std::max(1, ptr[b + 1] - ptr[b])) : Sum(1);
    T value[column_block];
    for (int64_t c = 0; c < n; ++c) value[c] = T(Sum(x[b * cols + column + c]) / count);
    for (int64_t t = ptr[b]; t < ptr[b + 1]; ++t) std::copy_n(value, n, y + t * cols + column);
  });
}

template <class T, class Sum = sum_type<T>>
void segment_max(Context& ctx, int64_t jets, int64_t cols, const T* x, const int32_t* ptr, T* y, int32_t* argmax) {
  for_each_block(ctx, jets, ptr[jets], cols, [&](int64_t b, int64_t column, int64_t n) {
    for (int64_t c = column; c < column + n; ++c) {
      const int32_t begin = ptr[b], end = ptr[b + 1];
      int32_t best = begin < end ? begin : -1;
      for (int32_t t = begin + 1; t < end; ++t) {
        const Sum value = Sum(x[t * cols + c]), top = Sum(x[best * cols + c]);
        if (value > top || (value != value && top == top)) best = t;
      }
      y[b * cols + c] = best < 0 ? T(0) : x[best * cols + c];
      argmax[b * cols + c] = best;
    }
  });
}

template <class T>
void segment_max_backward(Context& ctx, int64_t jets, int64_t cols, const T* dy, const int32_t* argmax,
                          const int32_t* ptr, T* dx) {
  for_each_block(ctx, jets, ptr[jets], cols, [&](int64_t b, int64_t column, int64_t n) {
    for (int64_t t = ptr[b]; t < ptr[b + 1]; ++t) std::fill_n(dx + t * cols + column, n, T(0));
    for (int64_t c = column; c < column + n; ++c) {
      const int32_t best = argmax[b * cols + c];
      if (best >= ptr[b] && best < ptr[b + 1]) dx[best * cols + c] = dy[b * cols + c];
    }
  });
}

/// y[n] = sum of the rows order[begin[n]], …, order[begin[n+1] - 1] of x.
template <class T, class Sum = sum_type<T>>
void sum_rows(Context& ctx, int64_t rows, int64_t cols, const T* x, const int32_t* begin, const int32_t* order, T* y) {
  for_each_block(ctx, rows, begin[rows], cols, [&](int64_t r, int64_t column, int64_t n) {
    Sum sum[column_block] = {};
    for (int64_t i = begin[r]; i < begin[r + 1]; ++i)
      for (int64_t c = 0; c < n; ++c) sum[c] += Sum(x[order[i] * cols + column + c]);
    for (int64_t c = 0; c < n; ++c) y[r * cols + column + c] = T(sum[c]);
  });
}
}  // namespace cpu

int64_t check_ptr(const Context& ctx, std::string_view operation, std::string_view argument, const Tensor& ptr,
                  int64_t rows) {
  check(ctx, operation, argument, ptr).rank(1).dtype(DType::i32);
  const int64_t jets = ptr.dim(0) - 1;
  if (jets < 0) fail(operation, "{} is empty, expected at least one offset, 0", argument);
  const auto p = ptr.offsets();
  if (p[0] != 0) fail(operation, "{} starts at {}, expected 0", argument, p[0]);
  for (int64_t b = 0; b < jets; ++b)
    if (p[b + 1] < p[b]) fail(operation, "{} decreases from {} to {} at entry {}", argument, p[b], p[b + 1], b + 1);
  if (p[jets] != rows) fail(operation, "{} ends at {}, expected the number of rows, {}", argument, p[jets], rows);
  return jets;
}

namespace cuda {  // segment.cu
void segment_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y);
void segment_broadcast(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y);
void segment_max(Context& ctx, const Tensor& x, const Tensor& ptr, Tensor& y, Tensor& argmax);
void segment_max_backward(Context& ctx, const Tensor& dy, const Tensor& argmax, const Tensor& ptr, Tensor& dx);
void gather_rows(Context& ctx, const Tensor& x, const Tensor& index, Tensor& y);
/// `lists`: begin [N+1], then order [M], as in cpu::sum_rows().
void sum_rows(Context& ctx, const Tensor& x, std::span<const int32_t> lists, Tensor& y);
void prepend_rows(Context& ctx, const Tensor* first, const Tensor* x, const Tensor& longer, Tensor& y);
void split_rows(Context& ctx, const Tensor& y, const Tensor& longer, Tensor* first, Tensor* x);
}  // namespace cuda

namespace {
/// The entries of index, checked against the number of rows that they name.
void read_index(Context& ctx, const char* operation, const Tensor& index, int64_t rows, int64_t* out) {
  if (index.dtype() == DType::i32)
    std::ranges::copy(index.offsets(), out);
  else
    ctx.allocator().copy_out(out, index.raw(), index.bytes());
  for (int64_t m = 0; m < index.numel(); ++m)
    if (out[m] < 0 || out[m] >= rows) fail(operation, "index {} is {}, expected a row of [0, {})", m, out[m], rows);
}

/// The offsets of jets that all have a first row.
int64_t check_longer(const Context& ctx, const char* operation, const Tensor& longer, int64_t rows) {
  const int64_t jets = check_ptr(ctx, operation, "longer", longer, rows);
  for (int64_t b = 0; b < jets; ++b)
    if (longer.offsets()[b] == longer.offsets()[b + 1])
      fail(operation, "jet {} is empty, expected a first row in every jet", b);
  return jets;
}

/// f(b, t, n): jet b has its first row at row t of the longer tensor, n more there, and those at t - b of the shorter.
template <class F>
void for_each_longer(Context& ctx, int64_t jets, int64_t cols, const int32_t* longer, F&& f) {
  parallel_rows(ctx, jets, jets ? longer[jets] / jets * cols : 0,
                [&](int64_t b) { f(b, int64_t{longer[b]}, int64_t{longer[b + 1] - longer[b] - 1}); });
}
}  // namespace

void segment_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y) {
  check(ctx, "segment_pool", "x", x).rank(2).compute();
  const int64_t jets = check_ptr(ctx, "segment_pool", "ptr", ptr, x.dim(0)), C = x.dim(1);
  check(ctx, "segment_pool", "y", y).shape({jets, C}).dtype(x.dtype());
  const auto scope = ctx.profiler().scope("segment_pool", x.bytes() + y.bytes(), x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::segment_pool(ctx, x, ptr, pool, y);
  dispatch_compute("segment_pool", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::segment_pool<E>(ctx, jets, C, x.data<E>(), ptr.data<int32_t>(), pool, y.data<E>());
  });
}

void segment_broadcast(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y) {
  check(ctx, "segment_broadcast", "y", y).rank(2).compute();
  const int64_t jets = check_ptr(ctx, "segment_broadcast", "ptr", ptr, y.dim(0)), C = y.dim(1);
  check(ctx, "segment_broadcast", "x", x).shape({jets, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("segment_broadcast", x.bytes() + y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::segment_broadcast(ctx, x, ptr, pool, y);
  dispatch_compute("segment_broadcast", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::segment_broadcast<E>(ctx, jets, C, x.data<E>(), ptr.data<int32_t>(), pool, y.data<E>());
  });
}

void segment_max(Context& ctx, const Tensor& x, const Tensor& ptr, Tensor& y, Tensor& argmax) {
  check(ctx, "segment_max", "x", x).rank(2).compute();
  const int64_t jets = check_ptr(ctx, "segment_max", "ptr", ptr, x.dim(0)), C = x.dim(1);
  check(ctx, "segment_max", "y", y).shape({jets, C}).dtype(x.dtype());
  check(ctx, "segment_max", "argmax", argmax).shape({jets, C}).dtype(DType::i32);
  const auto scope = ctx.profiler().scope("segment_max", x.bytes() + y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::segment_max(ctx, x, ptr, y, argmax);
  dispatch_compute("segment_max", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::segment_max<E>(ctx, jets, C, x.data<E>(), ptr.data<int32_t>(), y.data<E>(), argmax.data<int32_t>());
  });
}

void segment_max_backward(Context& ctx, const Tensor& dy, const Tensor& argmax, const Tensor& ptr, Tensor& dx) {
  check(ctx, "segment_max_backward", "dx", dx).rank(2).compute();
  const int64_t jets = check_ptr(ctx, "segment_max_backward", "ptr", ptr, dx.dim(0)), C = dx.dim(1);
  check(ctx, "segment_max_backward", "dy", dy).shape({jets, C}).dtype(dx.dtype());
  check(ctx, "segment_max_backward", "argmax", argmax).shape({jets, C}).dtype(DType::i32);
  const auto scope = ctx.profiler().scope("segment_max_backward", dy.bytes() + dx.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::segment_max_backward(ctx, dy, argmax, ptr, dx);
  dispatch_compute("segment_max_backward", dx.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::segment_max_backward<E>(ctx, jets, C, dy.data<E>(), argmax.data<int32_t>(), ptr.data<int32_t>(), dx.data<E>());
  });
}

void gather_rows(Context& ctx, const Tensor& x, const Tensor& index, Tensor& y) {
  check(ctx, "gather_rows", "x", x).rank(2).compute();
  check(ctx, "gather_rows", "index", index).rank(1).dtype(DType::i32, DType::i64);
  const int64_t M = index.numel(), C = x.dim(1);
  auto rows = ctx.host().scratch<int64_t>(M);
  read_index(ctx, "gather_rows", index, x.dim(0), rows.data());
  check(ctx, "gather_rows", "y", y).shape({M, C}).dtype(x.dtype());
  const auto scope = ctx.profiler().scope("gather_rows", 2. * y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::gather_rows(ctx, x, index, y);
  const int64_t bytes = C * static_cast<int64_t>(size_of(x.dtype()));
  const auto* in = static_cast<const std::byte*>(x.raw());
  auto* out = static_cast<std::byte*>(y.raw());
  parallel_rows(ctx, M, C, [&](int64_t m) { std::memcpy(out + m * bytes, in + rows[m] * bytes, bytes); });
}

void scatter_add_rows(Context& ctx, const Tensor& x, const Tensor& index, Tensor& y) {
  check(ctx, "scatter_add_rows", "y", y).rank(2).compute();
  check(ctx, "scatter_add_rows", "index", index).rank(1).dtype(DType::i32, DType::i64);
  const int64_t M = index.numel(), N = y.dim(0), C = y.dim(1);
  if (N + M >= std::numeric_limits<int32_t>::max())
    fail("scatter_add_rows", "{} rows to {} are more than it takes; use a smaller batch", M, N);
  auto rows = ctx.host().scratch<int64_t>(M);
  auto lists = ctx.host().scratch<int32_t>(N + 1 + M);
  read_index(ctx, "scatter_add_rows", index, N, rows.data());
  check(ctx, "scatter_add_rows", "x", x).shape({M, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("scatter_add_rows", x.bytes() + y.bytes(), x.numel());
  // A stable counting sort: the rows of each sum stand together, in their order.
  int32_t *begin = lists.data(), *order = begin + N + 1;
  std::fill_n(begin, N + 1, 0);
  for (int64_t m = 0; m < M; ++m) ++begin[rows[m]];
  for (int64_t n = 0, sum = 0; n <= N; ++n) begin[n] = static_cast<int32_t>(sum += n < N ? begin[n] : 0);
  for (int64_t m = M; m-- > 0;) order[--begin[rows[m]]] = static_cast<int32_t>(m);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::sum_rows(ctx, x, {begin, static_cast<size_t>(N + 1 + M)}, y);
  dispatch_compute("scatter_add_rows", y.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::sum_rows<E>(ctx, N, C, x.data<E>(), begin, order, y.data<E>());
  });
}

Tensor prepend_ptr(Context& ctx, const Tensor& ptr) {
  check(ctx, "prepend_ptr", "ptr", ptr).rank(1).dtype(DType::i32);
  std::vector<int32_t> longer;
  for (const int32_t first : ptr.offsets()) longer.push_back(first + static_cast<int32_t>(longer.size()));
  return ctx.offsets(longer);
}

void prepend_rows(Context& ctx, const Tensor* first, const Tensor* x, const Tensor& longer, Tensor& y) {
  check(ctx, "prepend_rows", "y", y).rank(2).compute();
  const int64_t jets = check_longer(ctx, "prepend_rows", longer, y.dim(0)), C = y.dim(1);
  if (first) check(ctx, "prepend_rows", "first", *first).shape({jets, C}).dtype(y.dtype());
  if (x) check(ctx, "prepend_rows", "x", *x).shape({y.dim(0) - jets, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("prepend_rows", 2. * y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::prepend_rows(ctx, first, x, longer, y);
  const int64_t row = C * static_cast<int64_t>(size_of(y.dtype()));
  auto write = [&](std::byte* to, const Tensor* from, int64_t t, int64_t n) {
    if (from)
      std::memcpy(to, static_cast<const std::byte*>(from->raw()) + t * row, n * row);
    else
      std::memset(to, 0, n * row);
  };
  for_each_longer(ctx, jets, C, longer.data<int32_t>(), [&](int64_t b, int64_t t, int64_t n) {
    auto* out = static_cast<std::byte*>(y.raw()) + t * row;
    write(out, first, b, 1);
    write(out + row, x, t - b, n);
  });
}

void split_rows(Context& ctx, const Tensor& y, const Tensor& longer, Tensor* first, Tensor* x) {
  check(ctx, "split_rows", "y", y).rank(2).compute();
  const int64_t jets = check_longer(ctx, "split_rows", longer, y.dim(0)), C = y.dim(1);
  if (first) check(ctx, "split_rows", "first", *first).shape({jets, C}).dtype(y.dtype());
  if (x) check(ctx, "split_rows", "x", *x).shape({y.dim(0) - jets, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("split_rows", 2. * y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::split_rows(ctx, y, longer, first, x);
  const int64_t row = C * static_cast<int64_t>(size_of(y.dtype()));
  for_each_longer(ctx, jets, C, longer.data<int32_t>(), [&](int64_t b, int64_t t, int64_t n) {
    const auto* in = static_cast<const std::byte*>(y.raw()) + t * row;
    if (first) std::memcpy(static_cast<std::byte*>(first->raw()) + b * row, in, row);
    if (x) std::memcpy(static_cast<std::byte*>(x->raw()) + (t - b) * row, in + row, n * row);
  });
}

}  // namespace lightcone::kernels
