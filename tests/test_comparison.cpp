#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "experiments/comparison.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

constexpr double NaN = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();

// What `use` makes a Comparison print.
template <class F>
std::string printed(bool all, F&& use) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  Comparison comparison(all, out);
  use(comparison);
  std::fclose(out);
  std::string result(text, size);
  std::free(text);
  return result;
}

}  // namespace

TEST_CASE("comparison: the error is relative to the largest number, or to the scale that is given") {
  const std::string text = printed(true, [](Comparison& c) {
    CHECK(c.compare("a", {1, 2.5}, {1, 2}, 1) == 0.25);
    CHECK(c.compare("b", {1, 2.5}, {1, 2}, 1, 50) == 0.01);
    CHECK(c.compare("c", {0.5}, {0}, 1) == 0.5);
    CHECK(c.compare("d", {}, {}, 1) == 0);
    CHECK(c.misses() == 0);
    CHECK(c.compare("e", {1, 2.5}, {1, 2}, 0.24) == 0.25);
    CHECK(c.misses() == 1);
    CHECK(c.quantities() == 5);
  });
  CHECK(has(text, "2.5e-01   2.4e-01  MISS\n"));
  CHECK(has(text, "1.0e-02   1.0e+00  ok\n"));
}

TEST_CASE("comparison: no number that is not finite agrees with anything, at any place") {
  for (double bad : {NaN, inf, -inf})
    for (size_t place : {0, 1, 2}) {
      std::vector<double> fine{1, 2, 3}, wrong = fine;
      wrong[place] = bad;
      printed(false, [&](Comparison& c) {
        CHECK(std::isnan(c.compare("ours", wrong, fine, inf)));
        CHECK(std::isnan(c.compare("theirs", fine, wrong, inf)));
        CHECK(std::isnan(c.compare("both", wrong, wrong, inf)));
        CHECK(c.misses() == 3);
      });
    }
  printed(false, [](Comparison& c) {
    CHECK(std::isnan(c.compare("count", {1, 2}, {1}, 1)));
    CHECK(c.misses() == 1);
  });
  CHECK(largest_of({NaN, -3, 2, -inf}) == 3);
  CHECK(largest_of({NaN}) == 0);
  CHECK(worse(1, 2) == 2);
  CHECK(std::isnan(worse(NaN, 2)));
  CHECK(std::isnan(worse(2, NaN)));
}

TEST_CASE("comparison: a gradient that agrees is silent unless all are asked for") {
  const auto use = [](Comparison& c) {
    c.compare("grad/good", {1}, {1}, 1e-9);
    c.compare("grad/bad", {1}, {2}, 1e-9);
  };
  CHECK(!has(printed(false, use), "grad/good"));
  CHECK(has(printed(false, use), "grad/bad"));
  CHECK(has(printed(true, use), "grad/good"));
}

TEST_CASE("comparison: control characters are printed as text") {
  CHECK(printable("a\n\t\x1b[2J\x7f") == "a\\n\\t\\x1b[2J\\x7f");
  CHECK(printable("\xc2\x9b"
                  "1m") == "\\x9b1m");
  CHECK(printable("größe ×") == "größe ×");
  CHECK(printable(std::string("a\0b", 3)) == "a\\x00b");
  const std::string text = printed(false, [](Comparison& c) {
    c.miss("na\nme", "text\x1b");
    c.note("na\nme", "text\x1b");
  });
  CHECK(lines(text) == 2);
  CHECK(!has(text, "\x1b"));
}
