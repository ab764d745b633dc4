#include "engine/context.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace lightcone {

namespace {
std::shared_ptr<Allocator> memory_of(Device device) {
  if (device == Device::cpu) return std::make_shared<CpuAllocator>();
  const std::string why = why_no_cuda();
  if (!why.empty()) fail("device", "cuda was asked for, but {}", why);
  if constexpr (built_with_cuda) return cuda::make_allocator();
  return nullptr;
}
}  // namespace

Context::Context(Device device, int threads, uint64_t seed)
    : device_(device), allocator_(memory_of(device)), rng_(seed) {
  set_threads(threads);
  if (device != Device::cpu)
    profiler_.wait_by([memory = allocator_] {
      try {
        memory->synchronize();
      } catch (const Error&) {  // scopes end in destructors; what failed fails the next call, too
      }
    });
}

void Context::refuse_device() const {
  fail("context", "a function that has a kernel for the CPU alone was called on {}; use device=cpu", device_);
}

void Context::set_threads(int threads) {
  if (threads < 0) fail("context", "{} threads; expected a positive number, or 0 for all", threads);
  threads_ = threads ? threads : omp_get_max_threads();
}

Tensor Context::zeros(Shape shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  allocator_->clear(t.raw(), t.bytes());  // all bits zero is zero in every dtype
  return t;
}

Tensor Context::of(Shape shape, DType dtype, std::span<const double> values) {
  if (static_cast<int64_t>(values.size()) != shape.numel())
    fail("context", "{} values for a tensor of shape {}", values.size(), shape);
  Tensor t = empty(shape, dtype);
  dispatch_all(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    auto fill = [&](T* to) {
      std::transform(values.begin(), values.end(), to, [](double v) { return static_cast<T>(v); });
    };
    if (device_ == Device::cpu) return fill(t.data<T>());
    const auto converted = std::make_unique<T[]>(values.size());
    fill(converted.get());
    allocator_->copy_in(t.raw(), converted.get(), t.bytes());
  });
  return t;
}

Context& Context::host() {
  if (device_ == Device::cpu) return *this;
  if (!host_) host_ = std::make_unique<Context>(threads_);
  return *host_;
}

Tensor Context::offsets(std::span<const int32_t> numbers) {
  Tensor t = empty({static_cast<int64_t>(numbers.size())}, DType::i32);
  allocator_->copy_in(t.raw(), numbers.data(), numbers.size_bytes());
  if (device_ != Device::cpu) t.keep_offsets(numbers);
  return t;
}

Context::Reading Context::read(const std::vector<Tensor>& scalars) {
  Reading out;
  std::vector<Allocator::Piece> pieces;
  for (const Tensor& t : scalars) {
    if (t.numel() != 1) fail("context", "a number was to be read from a tensor of shape {}", t.shape());
    if (t.device() != device_) fail("context", "a number on {} was to be read on {}", t.device(), device_);
    out.dtypes_.push_back(t.dtype());
    pieces.push_back({t.raw(), static_cast<size_t>(t.bytes())});
  }
  out.arrive_ = allocator_->start_copy_out(pieces);
  return out;
}

const std::vector<double>& Context::Reading::values() {
  if (!arrive_) return values_;
  const Allocator::Bytes bytes = std::exchange(arrive_, nullptr)();
  const unsigned char* at = bytes.data();
  for (DType dtype : dtypes_)
    dispatch_all(dtype, [&](auto type) {
      typename decltype(type)::type value;
      std::memcpy(&value, at, sizeof value);
      values_.push_back(static_cast<double>(value));
      at += sizeof value;
    });
  return values_;
}

Tensor Context::copy(const Tensor& x) {
  Tensor y = empty(x.shape(), x.dtype());
  Allocator& from = x.memory();
  if (x.device() == Device::cpu) {
    allocator_->copy_in(y.raw(), x.raw(), x.bytes());
  } else if (device_ == Device::cpu) {
    from.copy_out(y.raw(), x.raw(), x.bytes());
  } else {
    if (from.stream() != stream()) from.synchronize();
    allocator_->copy_within(y.raw(), x.raw(), x.bytes());
  }
  return y;
}

}  // namespace lightcone
