#pragma once
#include <library_types.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

// Matrices of any type on the host, and rounding by looking a value up among all that its type has: nothing in common
// with the bit arithmetic of what is tested.

namespace lt_test {

struct Format {
  int mantissa_bits, bias;
  uint32_t largest, infinity, sign;  // codes; without infinity it saturates
};

inline const Format* format_of(cudaDataType type) {
  static const Format f16{10, 15, 0x7bff, 0x7c00, 0x8000}, bf16{7, 127, 0x7f7f, 0x7f80, 0x8000};
  static const Format e4m3{3, 7, 0x7e, 0, 0x80}, e5m2{2, 15, 0x7b, 0, 0x80};
  switch (type) {
    case CUDA_R_16F:
      return &f16;
    case CUDA_R_16BF:
      return &bf16;
    case CUDA_R_8F_E4M3:
      return &e4m3;
    case CUDA_R_8F_E5M2:
      return &e5m2;
    default:
      return nullptr;
  }
}

inline double value_of(const Format& f, uint32_t code) {
  const uint32_t magnitude = code & (f.sign - 1);
  const int exponent = int(magnitude >> f.mantissa_bits);
  const double mantissa = double(magnitude & ((1u << f.mantissa_bits) - 1)) / (1u << f.mantissa_bits);
  const double value = exponent == 0 ? mantissa * std::exp2(1 - f.bias) : (1 + mantissa) * std::exp2(exponent - f.bias);
  if (f.infinity && magnitude >= f.infinity)
    return magnitude == f.infinity ? (code & f.sign ? -INFINITY : INFINITY) : NAN;
  return code & f.sign ? -value : value;
}

inline uint32_t code_of(const Format& f, double x) {
  const uint32_t sign = std::signbit(x) ? f.sign : 0;
  x = std::fabs(x);
  uint32_t below = 0, above = f.largest + 1;  // value_of(below) <= x
  while (above - below > 1) {
    const uint32_t middle = (below + above) / 2;
    (value_of(f, middle) <= x ? below : above) = middle;
  }
  const double low = value_of(f, below);
  // What would come after the largest is as far from it as its predecessor.
  const double high = below == f.largest ? 2 * low - value_of(f, below - 1) : value_of(f, above);
  const bool up = x - low > high - x || (x - low == high - x && (below & 1));
  if (below == f.largest) return sign | (f.infinity && up ? f.infinity : f.largest);
  return sign | (up ? above : below);
}

inline int size_of(cudaDataType type) {
  switch (type) {
    case CUDA_R_64F:
      return 8;
    case CUDA_R_32F:
    case CUDA_R_32I:
      return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return 2;
    default:
      return 1;
  }
}

inline double get(cudaDataType type, const uint8_t* from) {
  const auto as = [&](auto x) {
    std::memcpy(&x, from, sizeof x);
    return x;
  };
  switch (type) {
    case CUDA_R_64F:
      return as(double{});
    case CUDA_R_32F:
      return as(float{});
    case CUDA_R_32I:
      return as(int32_t{});
    case CUDA_R_8I:
      return as(int8_t{});
    default:
      return value_of(*format_of(type), size_of(type) == 2 ? as(uint16_t{}) : as(uint8_t{}));
  }
}

inline void put(cudaDataType type, uint8_t* to, double x) {
  const auto as = [&](auto value) { std::memcpy(to, &value, sizeof value); };
  const auto integer = [&](double least, double most) { return std::fmin(std::fmax(std::nearbyint(x), least), most); };
  switch (type) {
    case CUDA_R_64F:
      return as(x);
    case CUDA_R_32F:
      return as(float(x));
    case CUDA_R_32I:
      return as(int32_t(x));
    case CUDA_R_8I:
      return as(int8_t(integer(-128, 127)));
    default: {
      const uint32_t code = code_of(*format_of(type), x);
      return size_of(type) == 2 ? as(uint16_t(code)) : as(uint8_t(code));
    }
  }
}

/// x as it comes out of a type.
inline double rounded(cudaDataType type, double x) {
  uint8_t bytes[8];
  put(type, bytes, x);
  return get(type, bytes);
}

struct Matrix {
  cudaDataType type = CUDA_R_32F;
  int rows = 0, cols = 0, ld = 0, batch = 1;
  bool row_order = false;
  std::vector<uint8_t> bytes;

  Matrix() = default;
  Matrix(cudaDataType t, int r, int c, int pad = 0, int b = 1, bool by_rows = false)
      : type(t),
        rows(r),
        cols(c),
        ld((by_rows ? c : r) + pad),
        batch(b),
        row_order(by_rows),
        bytes(size_t(stride()) * size_t(b) * size_t(size_of(t)), 0x3c) {}
  int lines() const { return row_order ? rows : cols; }
  int length() const { return row_order ? cols : rows; }
  int stride() const { return ld * lines(); }
  size_t at(int b, int i, int j) const {
    return size_t(b * stride() + (row_order ? i * ld + j : j * ld + i)) * size_t(size_of(type));
  }
  double operator()(int b, int i, int j) const { return get(type, bytes.data() + at(b, i, j)); }
  void set(int b, int i, int j, double x) { put(type, bytes.data() + at(b, i, j), x); }

  /// Multiples of a half, or small integers: their products and sums are exact in f32.
  void fill(std::mt19937& random, int most = 3) {
    std::uniform_int_distribution<int> pick(-most, most);
    const double unit = type == CUDA_R_8I || type == CUDA_R_32I ? 1 : 0.5;
    for (int b = 0; b < batch; ++b)
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < cols; ++j) set(b, i, j, unit * pick(random));
  }
};

}  // namespace lt_test
