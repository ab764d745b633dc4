#include <doctest/doctest.h>

#include <cmath>

#include "autograd/optim/ema.h"
#include "engine/safetensors.h"
#include "tests/support/bits.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

Tensor load(Context& ctx, const Safetensors& file, const std::string& name) {
  Context cpu(1);
  return ctx.copy(file.load(cpu, name));
}

Tensor shadow_of(const Ema& ema, const std::string& name) { return ema.state_dict().tensors.at(name); }
}  // namespace

TEST_CASE("ema: 40 updates agree with torch_ema's") {
  for (Device device : devices())
    for (const char* dtype : {"f64", "f32"}) {
      Context ctx(device, 2);
      const Safetensors file(fmt::format("{}/tests/golden/optim/clip_ema_{}.safetensors", LIGHTCONE_SOURCE_DIR, dtype));
      const double tolerance = std::string(dtype) == "f64" ? 1e-15 : 1e-7;
      for (const auto& [text, decay] : {std::pair{"0.3", 0.3}, {"0.9", 0.9}, {"0.999", 0.999}}) {
        const Tensor values = load(ctx, file, fmt::format("in/ema{}/params", text));
        const Tensor expected = load(ctx, file, fmt::format("out/ema{}/shadow", text));
        Parameter p;
        p.value = values.narrow(0, 1);
        Ema ema(ctx, {{"w", &p}}, decay);
        for (int64_t n = 0; n <= 40; ++n) {
          p.value = values.narrow(n, 1);
          if (n > 0) ema.update();
          const Array a = to_array(shadow_of(ema, "w")), b = to_array(expected.narrow(n, 1));
          double error = 0;
          for (size_t i = 0; i < a.values.size(); ++i)
            if (!(std::abs(a.values[i] - b.values[i]) <= error)) error = std::abs(a.values[i] - b.values[i]);
          INFO(dtype << " decay " << text << " update " << n << ": off by " << error);
          CHECK(error <= tolerance);
        }
        CHECK(ema.updates() == 40);
      }
    }
}

TEST_CASE("ema: average() swaps in the shadow and back, also when an exception passes") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Parameter p;
    p.value = ctx.of({2}, DType::f32, std::vector<double>{1, 2});
    Ema ema(ctx, {{"p", &p}}, 0.5);
    p.value = ctx.of({2}, DType::f32, std::vector<double>{3, 2});
    ema.update();  // decay 2/11: the shadow is 1 + 9/11 * 2
    auto first = [&] { return to_array(p.value)[0]; };
    const float average = static_cast<float>(1 + 18. / 11);
    {
      const auto averaged = ema.average();
      CHECK(first() == doctest::Approx(average));
      CHECK_THROWS_WITH_AS(ema.update(), "ema: update while the averaged parameters are in place", Error);
      CHECK_THROWS_AS(ema.average(), Error);
      CHECK_THROWS_AS(ema.state_dict(), Error);
    }
    CHECK(first() == 3);
    CHECK(ema.updates() == 1);
    try {
      const auto averaged = ema.average();
      throw Error("validation failed");
    } catch (const Error&) {
    }
    CHECK(first() == 3);
    CHECK(to_array(shadow_of(ema, "p"))[0] == doctest::Approx(average));
  }
}

TEST_CASE("ema: saved and loaded, a run has the same bits; for any number of threads") {
  for (Device device : devices()) {
    std::vector<Array> results;
    for (int threads : {1, 2, 5}) {
      Context ctx(device, threads);
      const int64_t large = device == Device::cuda ? 1100 : 50000;
      std::vector<Parameter> p(3);
      for (size_t i = 0; i < 3; ++i)
        p[i].value = to_tensor(ctx, normal({i == 1 ? large : 7, 2}, i), i == 2 ? DType::f64 : DType::f32);
      p[0].rows = {6, 5, 4, 3, 2, 1, 0};
      const std::vector<Named<Parameter>> all = {{"a", &p[0]}, {"b", &p[1]}, {"c", &p[2]}};
      Ema straight(ctx, all, 0.99), before(ctx, all, 0.99);
      std::unique_ptr<Ema> after;
      for (uint64_t n = 0; n < 12; ++n) {
        for (size_t i = 0; i < 3; ++i)
          p[i].value = to_tensor(ctx, normal(p[i].value.shape(), 10 + 3 * n + i), p[i].value.dtype());
        if (n == 5) {
          after = std::make_unique<Ema>(ctx, all, 0.99);
          after->load_state_dict(before.state_dict());
        }
        straight.update();
        (n < 5 ? before : *after).update();
      }
      const State x = straight.state_dict(), y = after->state_dict();
      CHECK(x.numbers == y.numbers);
      for (const auto& [name, t] : x.tensors) CHECK_MESSAGE(same_bits(t, y.tensors.at(name)), name);
      // The state has the row order of the reference, row 0 there being our row 6.
      const auto averaged = straight.average();
      CHECK(to_array(x.tensors.at("a"))[0] == to_array(p[0].value)[12]);
      results.push_back(to_array(p[1].value));
      CHECK(results.back().values == results[0].values);
    }
  }
}

TEST_CASE("ema: a bad decay or state is named") {
  Context ctx(1);
  Parameter p;
  p.value = ctx.zeros({2}, DType::f32);
  for (double decay : {-0.1, 1.1, double(NAN)}) CHECK_THROWS_AS(Ema(ctx, {{"p", &p}}, decay), Error);
  CHECK_THROWS_WITH_AS(Ema(ctx, {{"p", &p}, {"p2", &p}}, 0.9), "ema: parameter p2 is in the list twice", Error);
  Ema ema(ctx, {{"p", &p}}, 0.9);
  State s = ema.state_dict();
  s.numbers["num_updates"] = -1;
  CHECK_THROWS_AS(ema.load_state_dict(s), Error);
  s.numbers["num_updates"] = 3;
  s.tensors["p"] = ctx.zeros({3}, DType::f32);
  CHECK_THROWS_WITH_AS(ema.load_state_dict(s), "ema: saved p has shape [3], expected [2]", Error);
  s.tensors.erase("p");
  CHECK_THROWS_AS(ema.load_state_dict(s), Error);
  CHECK(ema.updates() == 0);
  Ema empty(ctx, {}, 0.9);
  empty.update();
}
