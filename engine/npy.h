#pragma once
#include <memory>

#include "engine/context.h"
#include "engine/file.h"

namespace lightcone {

/// NumPy's array format, versions 1 to 3, little endian: f8 f4 f2 i1 i4 i8 b1. (Unsigned and 2-byte integers, complex
/// numbers, records and pickled objects give an Error.) Opening reads the header and checks that the data has the size
/// which the shape needs; read() then streams it.
class NpyReader {
 public:
  explicit NpyReader(std::unique_ptr<Source> source);
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }

  /// The next values, in row-major order. Throws Error if T is not dtype(), or for an array in Fortran order.
  template <class T>
  void read(std::span<T> values) {
    if (dtype_of<T> != dtype_) fail(where(), "asked for {} values of a {} array", dtype_of<T>, dtype_);
    read(values.data(), values.size());
  }
  /// The whole array; one in Fortran order is transposed. To be called instead of read().
  Tensor load(Context& ctx);
  std::string where() const { return source_->where(); }

 private:
  void read(void* to, size_t values);
  void read_elements(void* to, size_t values);
  std::unique_ptr<Source> source_;
  Shape shape_;
  DType dtype_;
  bool fortran_ = false;
};

Tensor load_npy(Context& ctx, const Path& path);
/// Writes version 1, atomically. Throws Error for bf16 and fp8, which NumPy lacks.
void save_npy(const Path& path, const Tensor& tensor);
/// The bytes before the elements.
std::string npy_header(const Tensor& tensor);

}  // namespace lightcone
