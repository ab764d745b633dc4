// What orthonormalisation takes from configurations, and what it refuses.
#include <doctest/doctest.h>

#include "engine/fields.h"
#include "kernels/orthonormal.h"
#include "tests/support/orthonormal.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("orthonormal: options as the configurations write them") {
  OrthoKwargs o;
  CHECK(o.method == "gramschmidt");
  read_fields(Json::parse(R"({"use_float64": true, "method": "cross", "eps_norm": 1e-10, "eps_reg": 1e-16,
                              "eps_reg_coplanar": null, "eps_reg_lightlike": 1e-4, "checks": false})"),
              o, "ortho_kwargs");
  CHECK(o.method == "cross");
  CHECK(*o.eps_norm == 1e-10);
  CHECK(!o.eps_reg_coplanar);
  CHECK(*o.eps_reg_lightlike == 1e-4);
}

TEST_CASE("orthonormal refuses what makes no sense") {
  for (Device device : devices()) {
    Context ctx(device);
    Tape tape(ctx);
    auto of = [&](Shape shape, DType dtype = DType::f64) { return tape.constant(ctx.zeros(shape, dtype)); };
    auto with = [](auto set) {
      OrthoKwargs o;
      set(o);
      return o;
    };
    CHECK_THROWS_WITH_AS(orthonormal_frames(of({3, 4})),
                         "orthonormal_frames: vectors has shape [3, 4], expected 3 axes", Error);
    CHECK_THROWS_WITH_AS(orthonormal_frames(of({5, 2, 4})),
                         "orthonormal_frames: vectors has shape [5, 2, 4], expected [5, 3, 4]", Error);
    CHECK_THROWS_WITH_AS(orthonormal_frames(of({5, 3, 4}, DType::bf16)),
                         "orthonormal_frames: vectors is bf16, expected f64 or f32", Error);
    CHECK_THROWS_WITH_AS(polar_decomposition(of({5, 1, 4}), of({5, 2, 4})),
                         "polar_decomposition: boost has shape [5, 1, 4], expected 2 axes", Error);
    CHECK_THROWS_WITH_AS(polar_decomposition(of({5, 4}), of({4, 2, 4})),
                         "polar_decomposition: references has shape [4, 2, 4], expected [5, 2, 4]", Error);
    CHECK_THROWS_WITH_AS(polar_decomposition(of({5, 4}), of({5, 2, 4}, DType::f32)),
                         "polar_decomposition: references is f32, expected f64", Error);
    CHECK_THROWS_WITH_AS(clamp_boost(of({5, 3}), 2, {}),
                         "lorentz_factors: v has shape [5, 3], expected 4 entries along the last axis", Error);
    CHECK_THROWS_WITH_AS(clamp_boost(of({5, 4}), 0.5, {}),
                         "clamp_boost: gamma_max is 0.5, expected 1 or a number above", Error);
    CHECK_THROWS_WITH_AS(clamp_boost(of({5, 4}), 2, 0.),
                         "clamp_boost: hardness is 0, expected a number above 0, or none for a hard limit", Error);
    CHECK_THROWS_WITH_AS(orthonormal_frames(of({5, 3, 4}), with([](auto& o) { o.method = "svd"; })),
                         "orthonormal_frames: method is \"svd\", expected \"gramschmidt\" or \"cross\"", Error);
    CHECK_THROWS_WITH_AS(orthonormal_frames(of({5, 3, 4}), with([](auto& o) { o.eps_norm = 0; })),
                         "orthonormal_frames: eps_norm is 0, expected a number above 0", Error);
    CHECK_THROWS_WITH_AS(polar_decomposition(of({5, 4}), of({5, 2, 4}), with([](auto& o) { o.eps_reg = -1; })),
                         "polar_decomposition: eps_dependent is -1, expected 0 or a number above", Error);
    CHECK_THROWS_WITH_AS(
        orthonormal_frames(of({5, 3, 4}), with([](auto& o) { o.eps_reg_lightlike = NAN, o.checks = true; })),
        "orthonormal_frames: eps_lightlike is nan, expected 0 or a number above", Error);
    const OrthoKwargs checked = with([](auto& o) { o.eps_reg_lightlike = o.eps_reg_coplanar = 0, o.checks = true; });
    CHECK_THROWS_WITH_AS(orthonormal_frames(of({5, 3, 4}), checked),
                         "orthonormal_frames: 5 of 5 sets of vectors give no Lorentz frame: not exactly one time-like "
                         "vector (`checks` is on)",
                         Error);
    CHECK_THROWS_WITH_AS(polar_decomposition(of({5, 4}), of({5, 2, 4}), checked),
                         "polar_decomposition: 5 of 5 sets of vectors give no Lorentz frame: not exactly one time-like "
                         "vector (`checks` is on)",
                         Error);
    ctx.rng().replace("frames_coplanar", {1, 2, 3});
    CHECK_THROWS_AS(orthonormal_frames(of({5, 3, 4})), Error);
    Tensor frames = ctx.empty({1, 4, 4}, DType::f64), counts = ctx.empty({3}, DType::i64);
    const kernels::FrameNoise noise = {{0, 0, std::make_shared<std::vector<double>>(11)}, {}};
    CHECK_THROWS_WITH_AS(kernels::orthonormal_frames(ctx, {}, noise, ctx.zeros({1, 3, 4}, DType::f64), frames, counts),
                         "orthonormal_frames: 11 recorded numbers in noise.lightlike, 12 are needed", Error);
  }
}
