#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "engine/rng.h"
#include "kernels/attention_tile.h"

using namespace lightcone;

namespace {
/// The largest error of exp2 in units of the last place of the result, over [low, high].
template <class S>
double worst_ulp(double low, double high, int steps) {
  double worst = 0;
  for (int i = 0; i + lanes<S> <= steps; i += lanes<S>) {
    Vector<S> x;
    for (int64_t l = 0; l < lanes<S>; ++l) x[l] = S(low + (high - low) * (i + l) / steps);
    const Vector<S> y = vector_math::exp2<S>(x);
    for (int64_t l = 0; l < lanes<S>; ++l) {
      const long double exact = std::exp2(static_cast<long double>(x[l]));
      const S nearest = static_cast<S>(exact);
      const double ulp = std::nextafter(nearest, std::numeric_limits<S>::infinity()) - nearest;
      const double error = std::abs(static_cast<double>(y[l] - exact)) / ulp;
      if (!(error <= worst)) worst = error;
    }
  }
  return worst;
}

template <class S>
void check_exp2(S lowest, S highest) {
  CHECK(worst_ulp<S>(lowest, highest, 1 << 18) < 2);
  CHECK(worst_ulp<S>(-1, 1, 1 << 18) < 2);
  constexpr S inf = std::numeric_limits<S>::infinity();
  auto of = [](S x) { return vector_math::exp2<S>(splat(x))[0]; };
  CHECK(of(-inf) == 0);
  CHECK(of(inf) == inf);
  CHECK(std::isnan(of(std::numeric_limits<S>::quiet_NaN())));
  CHECK(of(S(-1e30)) == 0);
  CHECK(of(S(1e30)) == inf);
  for (int n = int(lowest) + 1; n < highest; ++n) CHECK(of(S(n)) == std::ldexp(S(1), n));
}

template <class S, int B>
void check_transpose() {
  alignas(64) S panel[3 * B * lanes<S>], columns[3 * B * lanes<S>], back[3 * B * lanes<S>];
  for (int64_t i = 0; i < 3 * B * lanes<S>; ++i) panel[i] = S(i);
  kernels::tile::to_columns<B>(3, panel, columns);
  for (int64_t block = 0; block < 3; ++block)
    for (int64_t l = 0; l < lanes<S>; ++l)
      for (int64_t d = 0; d < B; ++d)
        CHECK(columns[(block * B + d) * lanes<S> + l] == panel[(block * lanes<S> + l) * B + d]);
  kernels::tile::to_panel<B>(3, columns, back);
  CHECK(std::equal(panel, panel + 3 * B * lanes<S>, back));
}
}  // namespace

TEST_CASE("exp2 in registers") {
  check_exp2<float>(-149, 127.99f);
  check_exp2<double>(-1074, 1023.99);
}

TEST_CASE("transposes in registers") {
  check_transpose<float, 4>();
  check_transpose<float, 8>();
  check_transpose<float, 16>();
  check_transpose<double, 4>();
  check_transpose<double, 16>();
}

namespace {

constexpr int64_t longest = 70;      // several registers, and one element at a time
const int64_t places[] = {0, 1, 3};  // of a row's first element, so that it has any alignment

/// Every number of bf16 with what float has behind it: nothing, the least, just below half, half, just above, the most.
/// Infinities, subnormal numbers, all kinds of NaN and numbers that round to infinity are among them.
std::vector<float> floats() {
  std::vector<float> out;
  for (uint32_t upper = 0; upper < 1u << 16; ++upper)
    for (uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      out.push_back(std::bit_cast<float>(upper << 16 | lower));
  return out;
}

/// Small whole numbers, whose sums no dtype rounds.
template <class T>
std::vector<T> whole_numbers(int64_t n) {
  std::vector<T> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(T(double(i * 5 % 9 - 4)));
  return out;
}

template <class T>
void check_rows() {
  using S = sum_type<T>;
  constexpr int64_t end = longest + 8;
  const std::vector<T> x = whole_numbers<T>(end);
  for (int64_t first : places)
    for (int64_t n = 0; n <= longest; ++n) {
      CAPTURE(first);
      CAPTURE(n);
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < n; ++i)
        sum += double(x[first + i]), squares += double(x[first + i]) * double(x[first + i]);
      const T* row = x.data() + first;
      CHECK(sum_row<S>(n, [&](auto at) { return at(row); }) == sum);
      CHECK(sum_row<S>(n, [&](auto at) { return at(row) * at(row); }) == squares);
      std::vector<T> out(end, T(77.f));
      map_row(n, out.data() + first, [&](auto at) { return at(row) * at(row) - at(row); });
      int64_t wrong = 0;
      for (int64_t i = 0; i < end; ++i) {
        const double v = double(x[i]);
        wrong += double(out[i]) != (i >= first && i < first + n ? v * v - v : 77);
      }
      CHECK(wrong == 0);
    }
}

/// Numbers of different sizes, so that any other order of their sum shows.
template <class T>
void check_order() {
  using S = sum_type<T>;
  const Draw draw = Rng(1).draw("rows", 3 * longest);
  for (int64_t n = 0; n <= longest; ++n) {
    std::vector<S> sums;
    for (int64_t first : places) {
      std::vector<T> x(longest + 8);
      for (int64_t i = 0; i < n; ++i) x[first + i] = T(std::exp(4 * draw.normal(i)));
      sums.push_back(sum_row<S>(n, [&](auto at) { return at(x.data() + first); }));
    }
    CAPTURE(n);
    CHECK(sums == std::vector<S>(std::size(places), sums[0]));
  }
}

}  // namespace

TEST_CASE("float to bf16 in registers is the rounding of single numbers, and back is exact") {
  const std::vector<float> in = floats();
  const auto n = static_cast<int64_t>(in.size());
  std::vector<bf16> out(n);
  convert(n, in.data(), out.data());
  int64_t different = 0;
  for (int64_t i = 0; i < n; ++i) different += out[i].bits != bf16(in[i]).bits;
  CHECK(different == 0);
  std::vector<bf16> all;
  for (uint32_t bits = 0; bits < 1u << 16; ++bits) all.push_back(std::bit_cast<bf16>(static_cast<uint16_t>(bits)));
  std::vector<float> wide(all.size());
  convert(static_cast<int64_t>(all.size()), all.data(), wide.data());
  different = 0;
  for (uint32_t bits = 0; bits < 1u << 16; ++bits) different += std::bit_cast<uint32_t>(wide[bits]) != bits << 16;
  CHECK(different == 0);
}

TEST_CASE("conversions of any length write that many numbers, the same ones at any place") {
  const std::vector<float> all = floats();
  for (int64_t n = 0; n <= longest; ++n)
    for (int64_t first : places)
      // Into the lists of numbers near 0, 1 and infinity.
      for (int64_t start : {0, 6 * 0x3f78, 6 * 0x7f78, 6 * 0xff78}) {
        CAPTURE(n);
        CAPTURE(first);
        const float* in = all.data() + start + first;
        std::vector<bf16> out(longest + 8, std::bit_cast<bf16>(uint16_t{0x1234}));
        convert(n, in, out.data() + first);
        std::vector<float> back(longest + 8, 77);
        convert(n, out.data() + first, back.data() + first);
        int64_t wrong = 0;
        for (int64_t i = 0; i < longest + 8; ++i) {
          const bool inside = i >= first && i < first + n;
          const uint16_t expected = inside ? bf16(in[i - first]).bits : 0x1234;
          wrong += out[i].bits != expected;
          wrong +=
              std::bit_cast<uint32_t>(back[i]) != (inside ? uint32_t{expected} << 16 : std::bit_cast<uint32_t>(77.f));
        }
        CHECK(wrong == 0);
      }
}

TEST_CASE("sums and maps of rows of any length") {
  check_rows<double>();
  check_rows<float>();
  check_rows<bf16>();
}

TEST_CASE("the order of a row's sum depends on its length alone") {
  check_order<double>();
  check_order<float>();
  check_order<bf16>();
}

// Each lane adds n / (2 lanes) numbers and the lanes add up in a tree: that many roundings of at most the sum, while
// one after the other there would be n, here all in the same direction.
TEST_CASE("sums of long rows lose little") {
  auto worst = [](auto zero, int64_t n, double unit) {
    using S = decltype(zero);
    std::vector<S> x(n);
    for (int64_t i = 0; i < n; ++i) x[i] = S(1000.1) + S(i % 7) / 7;
    long double exact = 0;
    for (S v : x) exact += v;
    const S sum = sum_row<S>(n, [&](auto at) { return at(x.data()); });
    CHECK(std::abs(double(sum - exact)) <= (n / (2 * lanes<S>)+8 + n % lanes<S>)*unit * double(exact));
  };
  for (int64_t n : {100, 4096, 100'003}) {
    worst(0.f, n, 0x1p-24);
    worst(0., n, 0x1p-53);
  }
}
