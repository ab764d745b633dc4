#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>

#include "engine/error.h"

namespace lightcone {

/// Up to six extents; rank 0 is a scalar with one element.
class Shape {
 public:
  static constexpr int max_rank = 6;
  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) {
    for (int64_t e : extents) append(e);
  }
  int rank() const { return rank_; }
  /// Negative axes count from the back.
  int64_t operator[](int axis) const { return extents_[axis < 0 ? rank_ + axis : axis]; }
  int64_t& operator[](int axis) { return extents_[axis < 0 ? rank_ + axis : axis]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= extents_[i];
    return n;
  }
  void append(int64_t extent) {
    if (rank_ == max_rank) throw Error("shape: more than 6 axes");
    if (extent < 0) fail("shape", "axis {} has negative extent {}", rank_, extent);
    extents_[rank_++] = extent;
  }
  const int64_t* begin() const { return extents_.data(); }
  const int64_t* end() const { return extents_.data() + rank_; }
  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, max_rank> extents_{};
  int rank_ = 0;
};

}  // namespace lightcone

template <>
struct fmt::formatter<lightcone::Shape> : fmt::formatter<std::string_view> {
  auto format(const lightcone::Shape& s, format_context& ctx) const {
    std::string text = "[";
    for (int i = 0; i < s.rank(); ++i) text += (i ? ", " : "") + std::to_string(s[i]);
    return fmt::formatter<std::string_view>::format(text + "]", ctx);
  }
};
