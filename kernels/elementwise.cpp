#include "kernels/elementwise.h"

#include <cstring>

#include "engine/check.h"
#include "engine/threads.h"

namespace lightcone::kernels {

namespace cpu {
constexpr int64_t grain = 16384;

template <class T>
void add(Context& ctx, int64_t n, const T* a, const T* b, T* y) {
  using Sum = sum_type<T>;
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = T(Sum(a[i]) + Sum(b[i]));
  });
}

template <class From, class To>
void cast(Context& ctx, int64_t n, const From* x, To* y) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if constexpr (std::is_same_v<To, bool>)
        y[i] = x[i] != From{};
      else
        y[i] = static_cast<To>(x[i]);
    }
  });
}
}  // namespace cpu

void add(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y) {
  check("add", "a", a).compute();
  check("add", "b", b).like(a);
  check("add", "y", y).like(a);
  const auto scope = ctx.profiler().scope("add", 3. * a.bytes(), a.numel());
  dispatch_compute("add", a.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::add<T>(ctx, a.numel(), a.data<T>(), b.data<T>(), y.data<T>());
  });
}

void cast(Context& ctx, const Tensor& x, Tensor& y) {
  check("cast", "y", y).shape(x.shape());
  const auto scope = ctx.profiler().scope("cast", x.bytes() + y.bytes());
  if (x.dtype() == y.dtype()) {
    if (x.raw() != y.raw()) std::memcpy(y.raw(), x.raw(), x.bytes());
    return;
  }
  dispatch_all(x.dtype(), [&](auto from) {
    dispatch_all(y.dtype(), [&](auto to) {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      cpu::cast(ctx, x.numel(), x.data<From>(), y.data<To>());
    });
  });
}

}  // namespace lightcone::kernels
