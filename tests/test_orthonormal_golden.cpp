#include <doctest/doctest.h>

#include "autograd/minkowski.h"
#include "engine/safetensors.h"
#include "kernels/orthonormal_math.h"
#include "tests/support/orthonormal.h"

// Frames against those of the PyTorch implementation.

using namespace lightcone;
using namespace lightcone::test;

namespace {
namespace math = orthonormal_math;
constexpr double golden_tolerance = 1e-9;

struct Golden {
  Context ctx{1};
  Safetensors file{LIGHTCONE_SOURCE_DIR "/tests/golden/frames/orthonormalisation.safetensors"};
  Array operator()(const std::string& name) { return to_array(file.load(ctx, name)); }
};

// Three-vectors as references of a particle at rest, whose frame is their rotation.
Array at_rest(int64_t T) {
  Array p = zeros({T, 4});
  for (int64_t t = 0; t < T; ++t) p.at(t, 0) = 1;
  return p;
}
Array padded(const Array& v) {
  Array out = zeros({v.shape[0], v.shape[1], 4});
  for (int64_t i = 0; i < v.shape.numel(); ++i) out[i / 3 * 4 + 1 + i % 3] = v[i];
  return out;
}
Array rotation_part(const Array& L) {
  const int64_t rows = L.shape[1];
  Array out = zeros({L.shape[0], rows == 4 ? 3 : rows, 3});
  const int64_t skipped = rows == 4 ? 1 : 0;
  for (int64_t i = 0; i < out.shape.numel(); ++i) {
    const int64_t t = i / (3 * (rows - skipped)), r = i / 3 % (rows - skipped) + skipped;
    out[i] = L[(t * rows + r) * 4 + 1 + i % 3];
  }
  return out;
}
Array rotation_gradient(const Array& g) {
  Array out = zeros({g.shape[0], 4, 4});
  for (int64_t i = 0; i < g.shape.numel(); ++i) out[i / 9 * 16 + 5 + i % 9 / 3 * 4 + i % 3] = g[i];
  return out;
}

}  // namespace

TEST_CASE("orthonormal: the steps against reference numbers") {
  Golden golden;
  const Array v = golden("norm4d/in"), norm = golden("norm4d/out_eps1e-15"), product = golden("cross4/out");
  auto vec = [&](int64_t i) { return math::Vec4{v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]}; };
  auto put = [](Array& a, int64_t i, const math::Vec4& x) {
    a[4 * i] = x.t, a[4 * i + 1] = x.x, a[4 * i + 2] = x.y, a[4 * i + 3] = x.z;
  };
  Array n = zeros(norm.shape), c = zeros(product.shape);
  for (int64_t i = 0; i < 18; ++i) put(n, i, math::Normalised4(vec(i), 1e-15).y);
  for (int64_t t = 0; t < 6; ++t) put(c, t, math::cross(vec(3 * t), vec(3 * t + 1), vec(3 * t + 2)));
  CHECK(relative_error(n, norm) < 1e-12);
  CHECK(relative_error(c, product) < 1e-12);

  Context ctx(1);
  Tape tape(ctx);
  const Var p = tape.variable(to_tensor(ctx, golden("boost/in"), DType::f64)), boost = restframe_boost(p);
  const Array expected = golden("boost/out"), expected_gradient = golden("boost/grad_in");
  Array cotangent = golden("boost/grad_out");
  std::fill(cotangent.values.begin() + 80, cotangent.values.end(), 0.0);  // the gradient is that of the first five
  tape.backward(boost, to_tensor(ctx, cotangent, DType::f64));
  const Array matrices = to_array(boost.value()), gradient = to_array(tape.gradient(p));
  for (int64_t t = 0; t < 6; ++t) {
    CAPTURE(t);
    CHECK(relative_error(row(matrices, t), row(expected, t)) < 1e-12);
    CHECK(relative_error(row(gradient, t), row(expected_gradient, t)) < 1e-12);
  }
}

TEST_CASE("orthonormal: ordinary sets and their gradients against reference numbers") {
  for (Device device : devices()) {
    Golden golden;
    for (std::string method : methods) {
      CAPTURE(method);
      const Outcome four =
          evaluate(device, frames_of(options(method)), {golden("ortho4d/in")}, golden("ortho4d/grad_out"));
      CHECK(relative_error(four.frames, golden("ortho4d/" + method)) < golden_tolerance);
      CHECK(relative_error(four.gradients[0], golden("ortho4d/" + method + "_grad_in")) < golden_tolerance);
      CHECK(four.counts == Counts{0, 0, 0});

      const Outcome three = evaluate(device, polar_of(options(method)), {at_rest(6), padded(golden("ortho3d/in"))},
                                     rotation_gradient(golden("ortho3d/grad_out")));
      CHECK(relative_error(rotation_part(three.frames), golden("ortho3d/" + method)) < golden_tolerance);
      CHECK(relative_error(rotation_part(three.gradients[1]), golden("ortho3d/" + method + "_grad_in")) <
            golden_tolerance);

      const Outcome polar = evaluate(device, polar_of(options(method)),
                                     {golden("polar/boost_vec"), golden("polar/references")}, golden("polar/grad_out"));
      CHECK(relative_error(polar.frames, golden("polar/" + method)) < golden_tolerance);
      CHECK(relative_error(polar.gradients[0], golden("polar/" + method + "_grad_boost")) < golden_tolerance);
      CHECK(relative_error(polar.gradients[1], golden("polar/" + method + "_grad_references")) < golden_tolerance);
      CHECK(polar.counts == Counts{0, 0, 0});
    }
  }
}

TEST_CASE("orthonormal: degenerate sets against reference numbers, with the noise that the reference drew") {
  for (Device device : devices()) {
    Golden golden;
    using Eps = std::optional<double>;
    // Without regularisation: nearly collinear and nearly coplanar sets. One unit in the last place of the input
    // changes the reference's frames by 2e-9 and 9e-8; ten times that is allowed.
    const double sensitivity[] = {2e-9, 9e-8};
    for (std::string method : methods) {
      CAPTURE(method);
      Array plain = evaluate(device, frames_of(options(method, 0.)), {golden("ortho4d_plain/in")}).frames;
      for (int64_t i = 0; i < 32; ++i) plain[i] *= (i / 4 % 4 == 0) == (i % 4 == 0) ? 1 : -1;  // the rows e_k
      for (int64_t t : {0, 1})
        CHECK(relative_error(row(plain, t), row(golden("ortho4d_plain/" + method), t)) < 10 * sensitivity[t]);

      for (auto [name, eps] : {std::pair<std::string, Eps>{"default", {}}, {"1e-16", 1e-16}, {"1e-4", 1e-4}}) {
        CAPTURE(name);
        const std::string four = "ortho4d_hard/" + method + "_" + name;
        const Outcome y =
            evaluate(device, frames_of(options(method, eps)), {golden("ortho4d_hard/in")}, normal({5, 4, 4}, 1),
                     {{"frames_lightlike", golden(four + "_noise_lightlike")},
                      {"frames_coplanar", golden(four + "_noise_coplanar")}});
        CHECK(y.counts[0] == golden(four + "_count")[0]);
        CHECK(y.counts[1] == golden(four + "_count")[1]);
        CHECK(all_finite(y.frames));
        CHECK(all_finite(y.gradients[0]));
        // Noise of 1e-16 leaves light-like vectors (rows 2 and 3) and equal ones (row 4) to the rounding of the last
        // operation: those frames have nothing in common with anyone's.
        for (int64_t t = 0; t < (name == "1e-4" ? 5 : 2); ++t) {
          CAPTURE(t);
          CHECK(relative_error(row(y.frames, t), row(golden(four), t)) <
                (name == "1e-4" ? golden_tolerance : 10 * sensitivity[t]));
        }

        const std::string three = "ortho3d_hard/" + method + "_" + name;
        const Array n0 = golden(three + "_noise0"), n1 = golden(three + "_noise1");
        Array noise = zeros({4, 2, 3});
        for (int64_t i = 0; i < 24; ++i) noise[i] = (i / 3 % 2 ? n1 : n0)[i / 6 * 3 + i % 3];
        const Outcome z =
            evaluate(device, polar_of(options(method, eps)), {at_rest(4), padded(golden("ortho3d_hard/in"))},
                     normal({4, 4, 4}, 2), {{"frames_lightlike", zeros({4, 4})}, {"frames_collinear", noise}});
        CHECK(z.counts[1] == golden(three + "_count")[0]);
        CHECK(all_finite(z.frames));
        CHECK(all_finite(z.gradients[1]));
        for (int64_t t = 0; t < 4; ++t) {
          if (name != "1e-4" && t % 2 == 0) continue;  // exactly collinear
          CAPTURE(t);
          CHECK(relative_error(row(rotation_part(z.frames), t), row(golden(three), t)) < golden_tolerance);
        }
      }
    }
  }
}

TEST_CASE("orthonormal: limits on gamma against reference numbers") {
  for (Device device : devices()) {
    Golden golden;
    struct Case {
      std::string name;
      std::optional<double> gamma_max, hardness;
    };
    for (const Case& c : {Case{"max1.5_hard10", 1.5, 10.},
                          {"max1.5_hardNone", 1.5, {}},
                          {"max3.0_hard2.0", 3., 2.},
                          {"maxNone_hard10", {}, 10.}}) {
      CAPTURE(c.name);
      Context ctx(device, 1);
      Tape tape(ctx);
      const Var v = tape.variable(to_tensor(ctx, golden("clamp_boost/in"), DType::f64));
      const ClampedBoost y = clamp_boost(v, c.gamma_max, c.hardness);
      CHECK(relative_error(to_array(y.boost.value()), golden("clamp_boost/" + c.name)) < golden_tolerance);
      const Array statistics = golden("clamp_boost/" + c.name + "_stats");
      CHECK(y.mean() == doctest::Approx(statistics[0]).epsilon(1e-12));
      CHECK(y.largest() == doctest::Approx(statistics[1]).epsilon(1e-12));
      CHECK(y.above() == statistics[2]);
      CHECK((y.boost.slot().index == v.slot().index) == !c.gamma_max);
      if (!c.gamma_max) continue;
      tape.backward(y.boost, to_tensor(ctx, golden("clamp_boost/grad_out"), DType::f64));
      CHECK(relative_error(to_array(tape.gradient(v)), golden("clamp_boost/" + c.name + "_grad_in")) <
            golden_tolerance);
    }
  }
}
