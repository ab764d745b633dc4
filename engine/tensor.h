#pragma once
#include <memory>
#include <span>

#include "engine/allocator.h"
#include "engine/dtype.h"
#include "engine/shape.h"

namespace lightcone {

/// A contiguous row-major array: shape, dtype, device, and a share in its storage. Copies and views share the storage;
/// nothing copies elements but kernels and Context::copy(). reshape() and narrow() (along the leading axis) are the
/// only views.
class Tensor {
 public:
  Tensor() = default;  ///< defined() is false, no elements
  /// Uninitialised memory from `allocator`, which the storage keeps alive.
  Tensor(std::shared_ptr<Allocator> allocator, Shape shape, DType dtype);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int axis) const { return shape_[axis]; }  ///< negative axes count from the back
  int64_t numel() const { return defined() ? shape_.numel() : 0; }
  int64_t bytes() const { return numel() * static_cast<int64_t>(size_of(dtype_)); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  /// On a GPU the addresses from here to data() are that device's.
  void* raw() { return data_; }
  const void* raw() const { return data_; }
  /// Throws Error if T is not the dtype.
  template <class T>
  T* data() {
    require(dtype_of<T>);
    return static_cast<T*>(data_);
  }
  template <class T>
  const T* data() const {
    require(dtype_of<T>);
    return static_cast<const T*>(data_);
  }
  /// The elements, for the CPU to read and write: throws Error on a GPU.
  template <class T>
  std::span<T> span() {
    require_cpu();
    return {data<T>(), static_cast<size_t>(numel())};
  }
  template <class T>
  std::span<const T> span() const {
    require_cpu();
    return {data<T>(), static_cast<size_t>(numel())};
  }
  /// The numbers of row offsets (i32, one axis), on every device without waiting for it: those that Context::offsets()
  /// was given. Throws Error for another tensor.
  std::span<const int32_t> offsets() const;
  /// The only element, as double. Throws Error if there is not exactly one. On a GPU it waits for all work before it.
  double item() const;

  /// The same elements in another shape. Throws Error if the count differs.
  Tensor reshape(Shape shape) const;
  /// Entries [begin, begin + count) of the leading axis. Throws Error outside of it.
  Tensor narrow(int64_t begin, int64_t count) const;

  /// True if no other Tensor shares the storage, so that it may be overwritten.
  bool unique() const { return storage_.use_count() == 1; }
  /// Where the storage is from. Throws Error if there is none.
  Allocator& memory() const;

 private:
  friend class Context;
  struct Storage;
  void keep_offsets(std::span<const int32_t> numbers);
  void require(DType dtype) const {
    if (dtype != dtype_) fail("tensor", "asked for {} elements of a {} tensor", dtype, dtype_);
  }
  void require_cpu() const {
    if (device_ != Device::cpu) fail("tensor", "elements on {} were asked for, copy them to the CPU first", device_);
  }
  std::shared_ptr<Storage> storage_;
  void* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
};

}  // namespace lightcone
