// Ten thousand random sizes, layouts and options against the oracles. To see one of them again, alone:
//   LIGHTCONE_CASE=1234 build/lightcone_tests -sf='*test_random_ops.cpp'
// and for other ones: LIGHTCONE_CASE=10001-50000. Of those, one in ten thousand may be a tensor so small that all of
// its gradient cancels, and fail by that.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "tests/support/random_ops.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Family {
  const char* name;
  RandomOp make;
};
const Family families[] = {
    {"elementwise", random_elementwise}, {"matmul", random_matmul},   {"norm", random_norm},
    {"softmax", random_softmax},         {"reduce", random_reduce},   {"loss", random_loss},
    {"attention", random_attention},     {"segment", random_segment}, {"minkowski", random_minkowski},
    {"optimizer", random_optimizer},     {"random", random_random}};

OpCase make(uint64_t number) {
  Choice c(number);
  const Family& family = families[number % std::size(families)];
  OpCase out = family.make(c);
  out.narrowed = c.chance(0.4);
  std::string shapes;
  for (const Array& a : out.inputs) shapes += fmt::format(" {}", a.shape);
  out.name =
      fmt::format("case {} ({}{}): {} of{}", number, family.name, out.narrowed ? ", narrowed" : "", out.name, shapes);
  return out;
}

// The same case in those of its dtypes that are in the list.
OpCase in(OpCase c, const std::vector<DType>& dtypes) {
  std::erase_if(c.dtypes, [&](DType d) { return std::find(dtypes.begin(), dtypes.end(), d) == dtypes.end(); });
  return c;
}

// bf16 keeps 8 bits of a result, and backward functions read results: of 1 - tanh² near saturation nothing is left.
// Among many elements the largest one counts; in a small tensor it may be such a one, so that has no gradient here.
OpCase low_precision(OpCase c) {
  for (const Array& a : c.inputs) c.differentiable &= a.shape.numel() == 0 || a.shape.numel() >= 32;
  return in(std::move(c), {DType::bf16});
}

}  // namespace

TEST_CASE("random operations agree with their oracles") {
  unsigned long first = 1, last = 10'000;
  if (const char* wanted = std::getenv("LIGHTCONE_CASE"))
    if (std::sscanf(wanted, "%lu-%lu", &first, &last) == 1) last = first;
  MESSAGE("cases ", first, " to ", last);
  std::map<std::string, int> done;
  for (uint64_t number = first; number <= last; ++number) {
    const OpCase c = make(number);
    INFO(c.name);
    for (const OpCase& part : {in(c, {DType::f64, DType::f32}), low_precision(c)}) {
      std::vector<std::string> faults;
      CHECK_NOTHROW(faults = find_faults(part));
      for (const std::string& fault : faults) FAIL_CHECK(fault);
    }
    ++done[families[number % std::size(families)].name];
  }
  if (last - first >= 10'000 - 1) CHECK(done.size() == std::size(families));
}

TEST_CASE("the same number makes the same case") {
  for (uint64_t number : {1, 2, 6, 7, 4711}) {
    const OpCase a = make(number), b = make(number);
    CHECK(a.name == b.name);
    REQUIRE(a.inputs.size() == b.inputs.size());
    for (size_t i = 0; i < a.inputs.size(); ++i) CHECK(a.inputs[i].values == b.inputs[i].values);
  }
  CHECK(make(1).name != make(1 + std::size(families)).name);
}
