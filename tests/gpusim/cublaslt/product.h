#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

namespace gpusim::lt {

// The product of two packed matrices. Every sum runs over k from 0 up, in the accumulator's type, each step one fused
// multiply-add (wrapping for integers): the same for any shape, so that a result does not depend on the blocking.

inline constexpr int64_t panel_rows = 32, panel_cols = 4;

inline int64_t panels(int64_t count, int64_t width) { return (count + width - 1) / width; }

/// A matrix in panels of `width` rows, each stored column by column; rows beyond the last are 0.
template <class T>
class Packed {
 public:
  Packed(int64_t rows, int64_t k, int64_t width)
      : k_(k), width_(width), data_(size_t(panels(rows, width) * width * k)) {}

  T* panel(int64_t p) { return data_.data() + p * width_ * k_; }
  const T* panel(int64_t p) const { return data_.data() + p * width_ * k_; }
  std::vector<T>& data() { return data_; }

  /// Fills it by load(row, column, along rows?, count, to), which reads a line of the source; `along_rows` tells in
  /// which direction that has its elements side by side.
  template <class Load>
  void fill(int64_t rows, bool along_rows, const Load& load) {
    std::vector<T> line(size_t(along_rows ? rows : k_));
    for (int64_t j = 0; j < (along_rows ? k_ : rows); ++j) {
      load(along_rows ? 0 : j, along_rows ? j : 0, along_rows, int64_t(line.size()), line.data());
      if (along_rows)
        for (int64_t i = 0; i < rows; ++i) panel(i / width_)[j * width_ + i % width_] = line[size_t(i)];
      else
        for (int64_t l = 0; l < k_; ++l) panel(j / width_)[l * width_ + j % width_] = line[size_t(l)];
    }
  }

 private:
  int64_t k_, width_;
  std::vector<T> data_;
};

inline double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }
inline float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline int32_t multiply_add(int32_t a, int32_t b, int32_t c) {
  return int32_t(uint32_t(a) * uint32_t(b) + uint32_t(c));
}

/// sums[column][row], columns `ld` apart, of as many panels as a and b have.
template <class T>
void multiply(const Packed<T>& a, const Packed<T>& b, int64_t m, int64_t n, int64_t k, T* sums, int64_t ld) {
  for (int64_t p = 0; p < panels(m, panel_rows); ++p)
    for (int64_t q = 0; q < panels(n, panel_cols); ++q) {
      const T* __restrict x = a.panel(p);
      const T* __restrict y = b.panel(q);
      T sum[panel_cols][panel_rows] = {};
      for (int64_t l = 0; l < k; ++l, x += panel_rows, y += panel_cols)
        for (int64_t j = 0; j < panel_cols; ++j)
          for (int64_t i = 0; i < panel_rows; ++i) sum[j][i] = multiply_add(x[i], y[j], sum[j][i]);
      for (int64_t j = 0; j < panel_cols; ++j)
        for (int64_t i = 0; i < panel_rows; ++i) sums[(q * panel_cols + j) * ld + p * panel_rows + i] = sum[j][i];
    }
}

}  // namespace gpusim::lt
