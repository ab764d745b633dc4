#pragma once
#include <initializer_list>

#include "tests/support/op_case.h"

namespace lightcone::test {

/// The choices of one random case, all of them from its number.
class Choice {
 public:
  explicit Choice(uint64_t number)
      : number_(number), draw_(Rng(number).draw("choices", 1 << 20)), large_(chance(0.03)) {}
  bool large() const { return large_; }                ///< a few are large enough for several chunks
  uint64_t seed() { return number_ * 64 + ++seeds_; }  ///< another one for each array of the case
  double real(double low, double high) { return low + (high - low) * draw_.uniform53(used_++); }
  int64_t integer(int64_t low, int64_t high) { return low + static_cast<int64_t>(real(0, 1) * (high - low + 1)); }
  bool chance(double p) { return real(0, 1) < p; }
  template <class T>
  T of(std::initializer_list<T> list) {
    return list.begin()[integer(0, static_cast<int64_t>(list.size()) - 1)];
  }
  /// An extent of at least `least`: often the smallest, or beside a power of two, where vectors and blocks end.
  int64_t extent(int64_t most, int64_t least = 0) {
    const double kind = real(0, 1);
    const int64_t power = of<int64_t>({4, 8, 16, 32, 64}) + integer(-1, 1);
    return kind < 0.08 ? least : kind < 0.2 ? least + 1 : kind < 0.5 && power <= most ? power : integer(least, most);
  }
  /// One to four axes with at most about `most` elements; the last one of at least `last`.
  Shape shape(int64_t most = 400, int64_t last = 0);
  /// Lengths of jets, with empty ones and single tokens among them, as row offsets.
  std::vector<double> offsets(int64_t least_length = 0);
  Array normal(Shape shape, double scale = 1) { return test::normal(shape, seed(), scale); }
  /// Around 1, so that no sum of them cancels.
  Array positive(Shape shape) { return test::uniform(shape, seed(), 0.5, 1.5); }

 private:
  uint64_t number_, seeds_ = 0;
  Draw draw_;
  int64_t used_ = 0;
  bool large_;
};

/// A function with its oracle at a random size, one per family of kernels.
using RandomOp = OpCase (*)(Choice&);
OpCase random_elementwise(Choice& c);
OpCase random_matmul(Choice& c);
OpCase random_norm(Choice& c);
OpCase random_softmax(Choice& c);
OpCase random_reduce(Choice& c);
OpCase random_loss(Choice& c);
OpCase random_attention(Choice& c);
OpCase random_segment(Choice& c);
OpCase random_minkowski(Choice& c);
OpCase random_optimizer(Choice& c);
OpCase random_random(Choice& c);

}  // namespace lightcone::test
