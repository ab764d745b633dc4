#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/optim/clip.h"
#include "engine/safetensors.h"
#include "kernels/optimizer.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

Tensor load(Context& ctx, const Safetensors& file, const std::string& name) {
  Context cpu(1);
  return ctx.copy(file.load(cpu, name));
}

constexpr double infinite = std::numeric_limits<double>::infinity();
const std::vector<std::string> names = {"net.w", "net.b", "framesnet.w"};

}  // namespace

TEST_CASE("clip: norms, clipped gradients and the experiments' order agree with PyTorch's") {
  for (Device device : devices())
    for (const char* dtype : {"f64", "f32"}) {
      const Safetensors file(fmt::format("{}/tests/golden/optim/clip_ema_{}.safetensors", LIGHTCONE_SOURCE_DIR, dtype));
      Context ctx(device, 2);
      // PyTorch's f32 norms are sums in f32, whose error is relative.
      const double tolerance = std::string(dtype) == "f64" ? 1e-13 : 1e-6;
      for (const std::string scale : {"1e-06", "0.05", "1", "100"}) {
        std::vector<Parameter> parameters(3);
        std::vector<Named<Parameter>> all;
        for (size_t i = 0; i < 3; ++i) all.push_back({names[i], &parameters[i]});
        const std::span frames(all.begin() + 2, 1);
        auto reset = [&] {
          for (auto& [name, p] : all) p->grad = load(ctx, file, "in/scale" + scale + "/" + name);
        };
        auto compare = [&](const std::string& what) {
          for (auto& [name, p] : all) {
            INFO(dtype << " scale " << scale << " " << what << " " << name);
            CHECK(largest_difference(p->grad, load(ctx, file, "out/scale" + scale + "/" + what + "/" + name)) <=
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
          close(clip_gradient_norm(ctx, all, max_norm).item(),
                load(ctx, file, "out/scale" + scale + "/" + what + "/total_norm").item());
          compare(what);
        }
        reset();
        clip_gradient_value(ctx, all, 0.1);
        compare("value0.1");

        reset();
        const std::string what = "value0.5_norm1_framesnet0.05";
        const Array norms = to_array(load(ctx, file, "out/scale" + scale + "/" + what + "/norms"));
        clip_gradient_value(ctx, all, 0.5);
        close(clip_gradient_norm(ctx, all, 1).item(), norms[0]);
        close(clip_gradient_norm(ctx, frames, 0.05).item(), norms[1]);
        compare(what);
      }
    }
}

TEST_CASE("clip: the same bits for any number of threads, over tensors of all sizes") {
  for (Device device : devices()) {
    std::vector<double> norms;
    std::vector<Array> clipped;
    for (int threads : {1, 2, 5}) {
      Context ctx(device, threads);
      ctx.allocator().set_guard(true);
      std::vector<Tensor> gradients;
      double squares = 0;
      // Some end where a chunk of the kernel ends: 16384 elements on the CPU, 2048 (f64) or 4096 on a GPU.
      for (int64_t n : {4, 0, 16380, 16384, 16383, 1, 70000, 0, 5}) {
        const DType dtype = n % 2 ? DType::f64 : DType::f32;
        gradients.push_back(to_tensor(ctx, normal({n}, 7 + static_cast<uint64_t>(n)), dtype));
        for (double g : to_array(gradients.back()).values) squares += g * g;
      }
      Tensor norm = ctx.empty({1}, DType::f64);
      kernels::gradient_norm(ctx, gradients, norm);
      norms.push_back(norm.item());
      CHECK(norms.back() == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
      kernels::clip_by_norm(ctx, gradients, 1, norm);
      kernels::gradient_norm(ctx, gradients, norm);
      CHECK(norm.item() == doctest::Approx(1).epsilon(1e-6));
      clipped.push_back(to_array(gradients[6]));
      CHECK(norms.back() == norms[0]);
      CHECK(clipped.back().values == clipped[0].values);
      CHECK(ctx.allocator().guard_violations() == 0);
    }
  }
}

TEST_CASE("clip: more tensors than a launch takes, and ones that no word of 16 bytes can reach") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Array all = normal({3000}, 1);
    all[2999] = 0;
    const Tensor x = to_tensor(ctx, all, DType::f32);
    std::vector<Tensor> gradients;
    for (int64_t i = 0; i < 299; ++i) gradients.push_back(x.narrow(10 * i, 10));
    gradients.push_back(x.narrow(2990, 9));
    Tensor norm = ctx.empty({1}, DType::f64);
    kernels::gradient_norm(ctx, gradients, norm);
    double squares = 0;
    for (double g : to_array(x).values) squares += g * g;
    CHECK(norm.item() == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
    kernels::clip_by_norm(ctx, gradients, 2 * norm.item(), norm);  // nothing to do
    kernels::clip_by_norm(ctx, gradients, 0.5 * norm.item(), norm);
    kernels::clip_by_value(ctx, gradients, 0.7);
    for (double& g : all.values) g = std::clamp(0.5 * g, -0.7, 0.7);
    CHECK(largest_difference(to_array(x), all) <= 1e-6);
  }
}

TEST_CASE("clip: NaN and infinite norms do as in PyTorch, and the norm tells") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Parameter p, q, none;
    const std::vector<Named<Parameter>> all = {{"p", &p}, {"q", &q}, {"none", &none}};
    auto set = [&](double bad) {
      p.grad = ctx.of({3}, DType::f32, std::vector<double>{1, bad, -2});
      q.grad = ctx.of({1}, DType::f64, std::vector<double>{5});
    };
    auto value = [&](int i) { return to_array(p.grad)[i]; };

    set(NAN);
    CHECK(std::isnan(gradient_norm(ctx, all).item()));
    CHECK(value(0) == 1);
    CHECK(std::isnan(clip_gradient_norm(ctx, all, 1).item()));
    for (int i = 0; i < 3; ++i) CHECK(std::isnan(value(i)));
    CHECK(std::isnan(q.grad.item()));

    set(infinite);
    CHECK(clip_gradient_norm(ctx, all, 1).item() == infinite);
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
    CHECK(clip_gradient_norm(ctx, {}, 1).item() == 0);
    Tensor f32 = ctx.empty({1}, DType::f32);
    CHECK_THROWS_WITH_AS(kernels::gradient_norm(ctx, {}, f32), "gradient_norm: norm is f32, expected f64", Error);
    CHECK_THROWS_WITH_AS(kernels::clip_by_norm(ctx, {}, 1, ctx.zeros({2}, DType::f64)),
                         "clip_by_norm: norm has shape [2], expected [1]", Error);
  }
}

TEST_CASE("clip: a gradient that two parameters share is scaled once") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Parameter p, q;
    p.grad = q.grad = ctx.of({2}, DType::f64, std::vector<double>{3, 4});
    const std::vector<Named<Parameter>> all = {{"p", &p}, {"q", &q}};
    const double norm = clip_gradient_norm(ctx, all, 1).item();
    CHECK(norm == doctest::Approx(std::sqrt(50.)));
    for (const Tensor& g : {p.grad, q.grad}) CHECK(to_array(g)[0] == doctest::Approx(3 / norm).epsilon(1e-5));
  }
}
