#include "engine/tensor.h"

#include <vector>

namespace lightcone {

struct Tensor::Storage {
  std::shared_ptr<Allocator> allocator;
  Allocator::Block block;
  std::vector<int32_t> offsets;  // of a tensor on a GPU that was made from these
  Storage(std::shared_ptr<Allocator> a, size_t bytes) : allocator(std::move(a)), block(allocator->allocate(bytes)) {}
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage() { allocator->release(block); }
};

Tensor::Tensor(std::shared_ptr<Allocator> allocator, Shape shape, DType dtype)
    : storage_(std::make_shared<Storage>(std::move(allocator), shape.numel() * size_of(dtype))),
      data_(storage_->block.data),
      shape_(shape),
      dtype_(dtype),
      device_(storage_->allocator->device()) {}

Allocator& Tensor::memory() const {
  if (!storage_) throw Error("tensor: it is not there");
  return *storage_->allocator;
}

std::span<const int32_t> Tensor::offsets() const {
  require(DType::i32);
  if (rank() != 1) fail("tensor", "row offsets were asked for of a tensor of shape {}", shape_);
  if (device_ == Device::cpu) return {static_cast<const int32_t*>(data_), static_cast<size_t>(dim(0))};
  if (data_ != storage_->block.data || storage_->offsets.size() != static_cast<size_t>(dim(0)))
    fail("tensor", "row offsets on {} are made by Context::offsets()", device_);
  return storage_->offsets;
}

void Tensor::keep_offsets(std::span<const int32_t> numbers) {
  storage_->offsets.assign(numbers.begin(), numbers.end());
}

double Tensor::item() const {
  if (numel() != 1) fail("tensor", "item() of a tensor of shape {}", shape_);
  return dispatch_all(dtype_, [&](auto t) {
    typename decltype(t)::type value;
    memory().copy_out(&value, data_, sizeof value);
    return static_cast<double>(value);
  });
}

Tensor Tensor::reshape(Shape shape) const {
  if (shape.numel() != shape_.numel()) fail("reshape", "{} has another number of elements than {}", shape, shape_);
  Tensor out = *this;
  out.shape_ = shape;
  return out;
}

Tensor Tensor::narrow(int64_t begin, int64_t count) const {
  if (rank() == 0 || begin < 0 || count < 0 || begin > dim(0) || count > dim(0) - begin)
    fail("narrow", "{} rows from {} on of a tensor of shape {}", count, begin, shape_);
  Tensor out = *this;
  out.shape_[0] = count;
  const int64_t row = dim(0) ? shape_.numel() / dim(0) : 0;
  out.data_ = static_cast<char*>(data_) + begin * row * static_cast<int64_t>(size_of(dtype_));
  return out;
}

}  // namespace lightcone
