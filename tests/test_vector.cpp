#include <doctest/doctest.h>

#include <cmath>
#include <limits>

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
