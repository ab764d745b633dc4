#include "engine/context.h"

#include <omp.h>

#include <algorithm>
#include <cstring>

namespace lightcone {

Context::Context(int threads, uint64_t seed) : allocator_(std::make_shared<Allocator>()), rng_(seed) {
  set_threads(threads);
}

void Context::set_threads(int threads) {
  if (threads < 0) fail("context", "{} threads; expected a positive number, or 0 for all", threads);
  threads_ = threads ? threads : omp_get_max_threads();
}

Tensor Context::zeros(Shape shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  std::memset(t.raw(), 0, t.bytes());  // all bits zero is zero in every dtype
  return t;
}

Tensor Context::of(Shape shape, DType dtype, std::span<const double> values) {
  if (static_cast<int64_t>(values.size()) != shape.numel())
    fail("context", "{} values for a tensor of shape {}", values.size(), shape);
  Tensor t = empty(shape, dtype);
  dispatch_all(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    std::transform(values.begin(), values.end(), t.data<T>(), [](double v) { return static_cast<T>(v); });
  });
  return t;
}

}  // namespace lightcone
