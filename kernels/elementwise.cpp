#include "kernels/elementwise.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/elementwise_math.h"

namespace lightcone::kernels {

namespace cpu {
constexpr int64_t grain = 16384;

// y[i] = f(x[i], …) with f on the type of sums.
template <class T, class F, class... In>
void map(Context& ctx, int64_t n, T* y, F f, const In*... x) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    vector_math::map(end - begin, y + begin, f, (x + begin)...);
  });
}

template <class T>
void add_row(Context& ctx, int64_t rows, int64_t cols, const T* x, const T* row, T* y) {
  using Sum = sum_type<T>;
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    for (int64_t c = 0; c < cols; ++c) y[t * cols + c] = T(Sum(x[t * cols + c]) + Sum(row[c]));
  });
}

template <class From, class To>
void cast(Context& ctx, int64_t n, const From* x, To* y) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    if constexpr (elementwise::may_not_fit<To, From>)
      for (int64_t i = begin; i < end; ++i)
        if (!elementwise::fits<To>(x[i]))
          fail("cast", "element {} is {}, which {} cannot hold", i, static_cast<double>(x[i]), dtype_of<To>);
    for (int64_t i = begin; i < end; ++i) y[i] = elementwise::converted<To>(x[i]);
  });
}

// `bytes` of each row, from one place in rows of from_row bytes to one in rows of to_row bytes.
void copy_columns(Context& ctx, int64_t rows, int64_t bytes, const void* from, int64_t from_row, void* to,
                  int64_t to_row) {
  if (bytes == 0) return;
  parallel_chunks(ctx, rows, grain_for(bytes, 8 * grain), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(static_cast<char*>(to) + r * to_row, static_cast<const char*>(from) + r * from_row, bytes);
  });
}
}  // namespace cpu

namespace cuda {  // elementwise.cu
template <class F, class... In>
void map(Context& ctx, const char* where, F f, Tensor& y, const In&... x);
void add_row(Context& ctx, const Tensor& x, const Tensor& row, Tensor& y);
void cast(Context& ctx, const Tensor& x, Tensor& y);
void copy_columns(Context& ctx, const char* where, int64_t rows, int64_t bytes, const void* from, int64_t from_row,
                  void* to, int64_t to_row);
}  // namespace cuda

namespace {

// y = f(x, …) for tensors of one shape and dtype; `inputs` are their names, then y's.
template <class F, class... In>
void map(const char* where, std::array<const char*, sizeof...(In) + 1> names, Context& ctx, Tensor& y, F f,
         const In&... x) {
  size_t i = 0;
  const Tensor& first = std::get<0>(std::tie(x...));
  (check(ctx, where, names[i++], x).like(first), ...);
  check(ctx, where, names[0], first).compute();
  check(ctx, where, names.back(), y).like(first);
  const auto scope = ctx.profiler().scope(where, static_cast<double>(sizeof...(In) + 1) * y.bytes(), y.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::map(ctx, where, f, y, x...);
  dispatch_compute(where, y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::map(ctx, y.numel(), y.data<T>(), f, x.template data<T>()...);
  });
}

const char* name_of(Unary f) {
  static constexpr const char* names[] = {"gelu",       "relu", "silu", "sigmoid", "tanh", "softplus",
                                          "leaky_relu", "exp",  "log",  "sqrt",    "abs",  "square"};
  return names[static_cast<int>(f)];
}

// g(constant f)
template <class G>
void dispatch_unary(Unary f, G&& g) {
  [&]<size_t... i>(std::index_sequence<i...>) {
    ((static_cast<size_t>(f) == i ? g(std::integral_constant<Unary, Unary{i}>{}) : void()), ...);
  }
  (std::make_index_sequence<static_cast<size_t>(Unary::square) + 1>());
}

int64_t row_bytes(const Tensor& t) { return t.dim(-1) * static_cast<int64_t>(size_of(t.dtype())); }

// The number of rows of `part` and `whole`, which agree but for the last axis.
int64_t check_columns(const Context& ctx, const char* where, const char* name, const Tensor& part,
                      const char* whole_name, const Tensor& whole) {
  check(ctx, where, whole_name, whole);
  check(ctx, where, name, part).dtype(whole.dtype());
  bool agree = part.rank() == whole.rank() && part.rank() > 0;
  int64_t rows = 1;
  for (int axis = 0; agree && axis + 1 < part.rank(); ++axis) {
    agree = part.dim(axis) == whole.dim(axis);
    rows *= part.dim(axis);
  }
  if (!agree)
    fail(where, "{} has shape {}, expected that of {} but for the last axis", name, part.shape(), whole.shape());
  return rows;
}

int64_t check_slice(const Context& ctx, const char* where, const char* name, const Tensor& part, int64_t begin,
                    const char* whole_name, const Tensor& whole) {
  const int64_t rows = check_columns(ctx, where, name, part, whole_name, whole);
  if (begin < 0 || part.dim(-1) > whole.dim(-1) - begin)
    fail(where, "columns {} to {} of a tensor of shape {}", begin, begin + part.dim(-1), whole.shape());
  return rows;
}

void copy_columns(Context& ctx, const char* where, int64_t rows, int64_t bytes, const void* from, int64_t from_row,
                  void* to, int64_t to_row) {
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::copy_columns(ctx, where, rows, bytes, from, from_row, to, to_row);
  cpu::copy_columns(ctx, rows, bytes, from, from_row, to, to_row);
}

}  // namespace

void add(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y) {
  map("add", {"a", "b", "y"}, ctx, y, elementwise::Add(), a, b);
}

void subtract(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y) {
  map("subtract", {"a", "b", "y"}, ctx, y, elementwise::Subtract(), a, b);
}

void multiply(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y) {
  map("multiply", {"a", "b", "y"}, ctx, y, elementwise::Multiply(), a, b);
}

void scale(Context& ctx, const Tensor& x, double factor, Tensor& y) {
  map("scale", {"x", "y"}, ctx, y, elementwise::Scale{factor}, x);
}

void add_row(Context& ctx, const Tensor& x, const Tensor& row, Tensor& y) {
  check(ctx, "add_row", "x", x).compute();
  if (x.rank() == 0) throw Error("add_row: x has shape [], expected at least 1 axis");
  check(ctx, "add_row", "row", row).shape({x.dim(-1)}).dtype(x.dtype());
  check(ctx, "add_row", "y", y).like(x);
  if (x.numel() == 0) return;
  const auto scope = ctx.profiler().scope("add_row", 2. * x.bytes(), x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::add_row(ctx, x, row, y);
  dispatch_compute("add_row", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::add_row<T>(ctx, x.numel() / x.dim(-1), x.dim(-1), x.data<T>(), row.data<T>(), y.data<T>());
  });
}

void clamp(Context& ctx, const Tensor& x, double low, double high, Tensor& y) {
  if (!(low <= high)) fail("clamp", "low is {}, high {}; expected low <= high", low, high);
  map("clamp", {"x", "y"}, ctx, y, elementwise::Clamp{low, high}, x);
}

void clamp_backward(Context& ctx, const Tensor& dy, const Tensor& x, double low, double high, Tensor& dx) {
  map("clamp_backward", {"dy", "x", "dx"}, ctx, dx, elementwise::ClampBackward{low, high}, dy, x);
}

void unary(Context& ctx, Unary f, const Tensor& x, Tensor& y) {
  dispatch_unary(f, [&](auto constant) {
    map(name_of(f), {"x", "y"}, ctx, y, elementwise::Value<decltype(constant)::value>(), x);
  });
}

void unary_backward(Context& ctx, Unary f, const Tensor& dy, const Tensor& saved, Tensor& dx) {
  const char* name = backward_reads_result(f) ? "y" : "x";
  dispatch_unary(f, [&](auto constant) {
    map(name_of(f), {"dy", name, "dx"}, ctx, dx, elementwise::TimesDerivative<decltype(constant)::value>(), dy, saved);
  });
}

void cast(Context& ctx, const Tensor& x, Tensor& y) {
  check(ctx, "cast", "x", x);
  check(ctx, "cast", "y", y).shape(x.shape());
  const auto scope = ctx.profiler().scope("cast", x.bytes() + y.bytes());
  if (x.dtype() == y.dtype()) {
    if (x.raw() != y.raw()) ctx.allocator().copy_within(y.raw(), x.raw(), x.bytes());
    return;
  }
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::cast(ctx, x, y);
  dispatch_all(x.dtype(), [&](auto from) {
    dispatch_all(y.dtype(), [&](auto to) {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      cpu::cast(ctx, x.numel(), x.data<From>(), y.data<To>());
    });
  });
}

void concat(Context& ctx, std::span<const Tensor> parts, Tensor& y) {
  check(ctx, "concat", "y", y);
  int64_t columns = 0, rows = 0;
  for (const Tensor& part : parts) {
    rows = check_columns(ctx, "concat", "a part", part, "y", y);
    columns += part.dim(-1);
  }
  if (y.rank() == 0 || columns != y.dim(-1))
    fail("concat", "the parts have {} columns together, y has shape {}", columns, y.shape());
  const auto scope = ctx.profiler().scope("concat", 2. * y.bytes());
  char* to = static_cast<char*>(y.raw());
  for (const Tensor& part : parts) {
    const int64_t bytes = row_bytes(part);
    copy_columns(ctx, "concat", rows, bytes, part.raw(), bytes, to, row_bytes(y));
    to += bytes;
  }
}

void slice(Context& ctx, const Tensor& x, int64_t begin, Tensor& y) {
  const int64_t rows = check_slice(ctx, "slice", "y", y, begin, "x", x);
  const auto scope = ctx.profiler().scope("slice", 2. * y.bytes());
  const char* from = static_cast<const char*>(x.raw()) + begin * static_cast<int64_t>(size_of(x.dtype()));
  copy_columns(ctx, "slice", rows, row_bytes(y), from, row_bytes(x), y.raw(), row_bytes(y));
}

void slice_backward(Context& ctx, const Tensor& dy, int64_t begin, Tensor& dx) {
  const int64_t rows = check_slice(ctx, "slice_backward", "dy", dy, begin, "dx", dx);
  const auto scope = ctx.profiler().scope("slice_backward", dx.bytes() + dy.bytes());
  ctx.allocator().clear(dx.raw(), dx.bytes());  // all bits zero is zero in every dtype
  char* to = static_cast<char*>(dx.raw()) + begin * static_cast<int64_t>(size_of(dx.dtype()));
  copy_columns(ctx, "slice_backward", rows, row_bytes(dy), dy.raw(), row_bytes(dy), to, row_bytes(dx));
}

}  // namespace lightcone::kernels
