// The op-case harness itself: each planted fault must be found, and the function without it must pass.
#include <doctest/doctest.h>

#include <cmath>

#include "kernels/elementwise.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

enum class Fault { none, value, last_element, gradient, missing_gradient, nan, overrun, unwritten, threads, history };

int calls = 0;

// y = x^2, by hand, with a fault.
Var square(const Var& x, Fault fault) {
  Context& ctx = x.context();
  Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_compute("square", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T* in = x.value().data<T>();
    T* out = y.data<T>();
    const int64_t n = y.numel();
    for (int64_t i = 0; i < n - (fault == Fault::unwritten); ++i) out[i] = T(double(in[i]) * double(in[i]));
    if (n == 0) return;
    if (fault == Fault::value) out[n / 2] = T(double(out[n / 2]) * 1.1 + 0.1);
    if (fault == Fault::last_element) out[n - 1] = T(0.0f);
    if (fault == Fault::nan) out[n / 2] = T(std::nanf(""));
    if (fault == Fault::overrun) out[n] = T(1.0f);
    if (fault == Fault::threads && ctx.threads() == 2)
      out[0] = T(double(out[0]) * (1 + 1e-2 * (sizeof(T) == 2) + 1e-6 * (sizeof(T) == 4) + 1e-15 * (sizeof(T) == 8)) +
                 1e-14);
    if (fault == Fault::history && ++calls % 2 == 0) out[0] = T(-double(out[0]) * 1e-30);
  });
  return x.tape().record("square", y, {x.slot()},
                         [=, to = x.slot(), value = x.value()](const Tensor& dy, Grads& grads) {
                           if (fault == Fault::missing_gradient) return;
                           Tensor* dx = grads.want(to);
                           if (!dx) return;
                           dispatch_compute("square", dy.dtype(), [&](auto type) {
                             using T = typename decltype(type)::type;
                             for (int64_t i = 0; i < dy.numel(); ++i)
                               dx->data<T>()[i] = T((fault == Fault::gradient && i == 0 ? 1.9 : 2.0) *
                                                    double(value.data<T>()[i]) * double(dy.data<T>()[i]));
                           });
                         });
}

std::vector<std::string> faults(Fault fault, Shape shape = {3, 11}) {
  return find_faults({.name = "square",
                      .inputs = {uniform(shape, 1, 0.5, 1.5)},
                      .op = [fault](auto& x) { return std::vector{square(x[0], fault)}; },
                      .oracle =
                          [](const std::vector<Array>& x) {
                            Array y = x[0];
                            for (double& v : y.values) v *= v;
                            return std::vector{y};
                          }});
}

}  // namespace

TEST_CASE("op case: a right function passes, empty or not") {
  CHECK(faults(Fault::none).empty());
  CHECK(faults(Fault::none, {0, 4}).empty());
  CHECK(faults(Fault::none, {1, 1}).empty());
}

TEST_CASE("op case: every planted fault is found") {
  auto found = [](Fault fault, const char* words) {
    const auto list = faults(fault);
    INFO("looking for: ", words);
    bool hit = false;
    for (const auto& f : list) hit |= f.find(words) != std::string::npos;
    CHECK(hit);
  };
  found(Fault::value, "result 0 is off");
  found(Fault::last_element, "result 0 is off");
  found(Fault::nan, "result 0 is off by inf");
  found(Fault::unwritten, "result 0 is off");
  found(Fault::gradient, "gradient of input 0 at 0");
  found(Fault::missing_gradient, "gradient of input 0");
  found(Fault::overrun, "written outside");
  found(Fault::threads, "differs between 1 and 2 threads");
  found(Fault::history, "result 0 is off");
}

TEST_CASE("relative_error lets nothing through") {
  const double nan = std::nan(""), inf = INFINITY;
  auto error = [](double a, double b) { return relative_error({{1}, {a}}, {{1}, {b}}); };
  CHECK(error(1, 1) == 0);
  CHECK(error(nan, nan) == 0);
  CHECK(error(inf, inf) == 0);
  CHECK(error(nan, 1) == inf);
  CHECK(error(1, nan) == inf);
  CHECK(error(inf, 1) == inf);
  CHECK(error(1.5, 1) == 0.5);
  CHECK(relative_error({{1}, {1}}, {{2}, {1, 1}}) == inf);
}
