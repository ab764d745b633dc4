#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "autograd/optim/clip.h"
#include "engine/safetensors.h"
#include "kernels/optimizer.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
constexpr double infinite = std::numeric_limits<double>::infinity();
const std::vector<std::string> names = {"net.w", "net.b", "framesnet.w"};

}  // namespace

TEST_CASE("clip: norms, clipped gradients and the experiments' order agree with PyTorch's") {
  Context ctx(2);
  for (const char* dtype : {"f64", "f32"}) {
    const Safetensors file(fmt::format("{}/tests/golden/optim/clip_ema_{}.safetensors", LIGHTCONE_SOURCE_DIR, dtype));
    // PyTorch's f32 norms are sums in f32, whose error is relative.
    const double tolerance = std::string(dtype) == "f64" ? 1e-13 : 1e-6;
    for (const std::string scale : {"1e-06", "0.05", "1", "100"}) {
      std::vector<Parameter> parameters(3);
      std::vector<Named<Parameter>> all;
      for (size_t i = 0; i < 3; ++i) all.push_back({names[i], &parameters[i]});
      const std::span frames(all.begin() + 2, 1);
      auto reset = [&] {
        for (auto& [name, p] : all) p->grad = file.load(ctx, "in/scale" + scale + "/" + name);
      };
      auto compare = [&](const std::string& what) {
        for (auto& [name, p] : all) {
          INFO(dtype << " scale " << scale << " " << what << " " << name);
          CHECK(largest_difference(p->grad, file.load(ctx, "out/scale" + scale + "/" + what + "/" + name)) <=
                tolerance);
        }
      };
      auto close = [&](double norm, double expected) {
        INFO(dtype << " scale " << scale << ": norm " << norm << ", expected " << expected);
        CHECK(std::abs(norm - expected) <= tolerance * std::max(1e-6, expected));
      };
      for (const auto& [text, max_norm] : {std::pair{"0.1", 0.1}, {"1", 1.}, {"inf", infinite}}) {
        reset();
        const std::string what = std::string("norm") + text;
        close(clip_gradient_norm(ctx, all, max_norm),
              file.load(ctx, "out/scale" + scale + "/" + what + "/total_norm").item());
        compare(what);
      }
      reset();
      clip_gradient_value(ctx, all, 0.1);
      compare("value0.1");

      reset();
      const std::string what = "value0.5_norm1_framesnet0.05";
      const Array norms = to_array(file.load(ctx, "out/scale" + scale + "/" + what + "/norms"));
      clip_gradient_value(ctx, all, 0.5);
      close(clip_gradient_norm(ctx, all, 1), norms[0]);
      close(clip_gradient_norm(ctx, frames, 0.05), norms[1]);
      compare(what);
    }
  }
}

TEST_CASE("clip: the same bits for any number of threads, over tensors of all sizes") {
  std::vector<double> norms;
  std::vector<Array> clipped;
  for (int threads : {1, 2, 5}) {
    Context ctx(threads);
    ctx.allocator().set_guard(true);
    std::vector<Tensor> gradients;
    double squares = 0;
    // Some end where a chunk of the kernel ends.
    for (int64_t n : {4, 0, 16380, 16384, 16383, 1, 70000, 0, 5}) {
      const DType dtype = n % 2 ? DType::f64 : DType::f32;
      gradients.push_back(to_tensor(ctx, normal({n}, 7 + static_cast<uint64_t>(n)), dtype));
      for (double g : to_array(gradients.back()).values) squares += g * g;
    }
    norms.push_back(kernels::gradient_norm(ctx, gradients));
    CHECK(norms.back() == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
    kernels::clip_by_norm(ctx, gradients, 1, norms.back());
    CHECK(kernels::gradient_norm(ctx, gradients) == doctest::Approx(1).epsilon(1e-6));
    clipped.push_back(to_array(gradients[6]));
    CHECK(norms.back() == norms[0]);
    CHECK(clipped.back().values == clipped[0].values);
    CHECK(ctx.allocator().guard_violations() == 0);
  }
}

TEST_CASE("clip: NaN and infinite norms do as in PyTorch, and the norm tells") {
  Context ctx(1);
  Parameter p, q, none;
  const std::vector<Named<Parameter>> all = {{"p", &p}, {"q", &q}, {"none", &none}};
  auto set = [&](double bad) {
    p.grad = ctx.of({3}, DType::f32, std::vector<double>{1, bad, -2});
    q.grad = ctx.of({1}, DType::f64, std::vector<double>{5});
  };
  auto value = [&](int i) { return static_cast<double>(p.grad.data<float>()[i]); };

  set(NAN);
  CHECK(std::isnan(gradient_norm(ctx, all)));
  CHECK(value(0) == 1);
  CHECK(std::isnan(clip_gradient_norm(ctx, all, 1)));
  for (int i = 0; i < 3; ++i) CHECK(std::isnan(value(i)));
  CHECK(std::isnan(q.grad.item()));

  set(infinite);
  CHECK(clip_gradient_norm(ctx, all, 1) == infinite);
  CHECK(value(0) == 0);
  CHECK(std::isnan(value(1)));
  CHECK(q.grad.item() == 0);

  set(NAN);
  clip_gradient_value(ctx, all, 1.5);
  CHECK(value(0) == 1);
  CHECK(std::isnan(value(1)));
  CHECK(value(2) == -1.5);
  CHECK(q.grad.item() == 1.5);
  CHECK(!none.grad.defined());

  set(1);
  CHECK_THROWS_WITH_AS(clip_gradient_norm(ctx, all, -1),
                       "clip_by_norm: max_norm is -1, expected a number of at least 0", Error);
  CHECK_THROWS_AS(clip_gradient_norm(ctx, all, NAN), Error);
  CHECK_THROWS_WITH_AS(clip_gradient_value(ctx, all, NAN),
                       "clip_by_value: limit is nan, expected a number of at least 0", Error);
  CHECK(clip_gradient_norm(ctx, {}, 1) == 0);
}

TEST_CASE("clip: a gradient that two parameters share is scaled once") {
  Context ctx(1);
  Parameter p, q;
  p.grad = q.grad = ctx.of({2}, DType::f64, std::vector<double>{3, 4});
  const std::vector<Named<Parameter>> all = {{"p", &p}, {"q", &q}};
  const double norm = clip_gradient_norm(ctx, all, 1);
  CHECK(norm == doctest::Approx(std::sqrt(50.)));
  for (const Tensor& g : {p.grad, q.grad}) CHECK(g.data<double>()[0] == doctest::Approx(3 / norm).epsilon(1e-5));
}
