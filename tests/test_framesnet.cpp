// Frames networks: numbers of the reference implementation, and what they refuse.
#include <doctest/doctest.h>

#include "engine/fields.h"
#include "engine/safetensors.h"
#include "models/learned_frames.h"
#include "models/random_frames.h"
#include "tests/support/lorentz.h"
#include "tests/support/op_case.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

Json ortho_kwargs() {
  return {{"method", "gramschmidt"},
          {"eps_norm", 1e-15},
          {"eps_reg", 1e-16},
          {"eps_reg_coplanar", 1e-16},
          {"eps_reg_lightlike", 1e-16}};
}

}  // namespace

TEST_CASE("learned frames of given vectors agree with the reference implementation, gradients included") {
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/predictors.safetensors");
  Context ctx;
  int cases = 0;
  for (const auto& name : file.names()) {
    const std::string prefix = "predictor/", suffix = "/vectors";
    if (!name.starts_with(prefix) || !name.ends_with(suffix)) continue;
    const std::string at = name.substr(0, name.size() - suffix.size()) + "/";
    const std::string what = at.substr(prefix.size(), at.size() - prefix.size() - 1);
    CAPTURE(what);
    Json options = {{"type", what.substr(0, what.find('_'))}, {"ortho_kwargs", ortho_kwargs()}};
    if (has(what, "is_globalTrue")) options["is_global"] = true;
    if (has(what, "gamma_max1.5")) options["gamma_max"] = 1.5, options["gamma_hardness"] = 10;
    const LearnedFrames net(ctx, options, 3, DType::f64);
    Tensor ptr = ctx.of({4}, DType::i32, to_array(file.load(ctx, "in/ptr")).values);
    Tape tape(ctx);
    const Var p = tape.variable(file.load(ctx, "in/fourmomenta")), v = tape.variable(file.load(ctx, name));
    Intermediates tracker;
    const Frames frames = net.from_vectors(p, v, ptr, &tracker);
    tape.backward(frames.matrices, file.load(ctx, at + "grad_out"));
    CHECK(relative_error(to_array(frames.matrices.value()), to_array(file.load(ctx, at + "matrices"))) < 1e-9);
    CHECK(relative_error(to_array(tape.gradient(v)), to_array(file.load(ctx, at + "grad_vectors"))) < 1e-9);
    if (file.has(at + "grad_fourmomenta"))
      CHECK(relative_error(to_array(tape.gradient(p)), to_array(file.load(ctx, at + "grad_fourmomenta"))) < 1e-9);
    for (const auto& [key, value] : tracker)
      CHECK(relative_error(to_array(value), to_array(file.load(ctx, at + key))) < 1e-9);
    CHECK(tracker.size() == tape.observations().size());
    ++cases;
  }
  CHECK(cases == 10);
}

TEST_CASE("random transformations agree with the reference implementation") {
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/frames.safetensors");
  Context ctx;
  for (const char* type : {"lorentz", "rotation", "xyrotation", "ztransform"}) {
    CAPTURE(type);
    const std::string at = fmt::format("random/{}/", type);
    const Array expected = to_array(file.load(ctx, at + "out"));
    auto numbers = [&](const std::string& name, int64_t i) {
      std::array<double, 3> out{};
      if (!file.has(at + name)) return out;
      const Array a = to_array(file.load(ctx, at + name));
      const int64_t each = a.shape.numel() / 6;
      for (int64_t k = 0; k < each; ++k) out[k] = a[i * each + k];
      return out;
    };
    // Its rotations about and boosts along z take the last angle for all of a batch.
    const bool last_for_all = type == std::string("xyrotation") || type == std::string("ztransform");
    for (int64_t i = 0; i < 6; ++i) {
      const int64_t from = last_for_all ? 5 : i;
      const auto matrix = random_transform(type, 0.4, numbers("uniform0", from), numbers("normal0", from));
      for (int k = 0; k < 16; ++k) CHECK(matrix[k] == doctest::Approx(expected[16 * i + k]).epsilon(1e-12));
    }
  }
}

TEST_CASE("random frames: one for each jet or token while training, none in evaluation") {
  const std::vector<double> offsets = {0, 3, 7};
  for (bool global : {true, false})
    for (bool reference : {true, false}) {
      Context ctx(1, 3);
      RandomFrames net({{"type", "RandomFrames"}, {"is_global", global}}, reference);
      const Tensor ptr = ctx.of({3}, DType::i32, offsets);
      auto frames_on = [&](Tape& tape) { return net(tape.constant(ctx.zeros({7, 4}, DType::f64)), {}, ptr, nullptr); };
      Tape evaluate(ctx, Tape::Mode::evaluate);
      CHECK(frames_on(evaluate).is_identity());
      Tape tape(ctx);
      const Array m = to_array(frames_on(tape).matrices.value());
      auto same = [&](int64_t a, int64_t b) {
        return std::equal(&m.values[16 * a], &m.values[16 * a] + 16, &m.values[16 * b]);
      };
      CHECK(same(0, 2) == global);
      CHECK(same(3, 6) == global);
      CHECK(same(0, 3) == (global && reference));
      const Array again = to_array(frames_on(tape).matrices.value());
      CHECK(again.values != m.values);
    }
}

TEST_CASE("random frames that start from the rest frame of what comes in") {
  const Array p = momenta(7, 3);
  const std::vector<double> offsets = {0, 3, 3, 7};
  for (bool global : {true, false}) {
    auto matrices = [&](const char* type, std::vector<double> rows) {
      Context ctx(1, 3);
      RandomFrames net({{"type", type}, {"is_global", global}}, false);
      Tape tape(ctx);
      const Tensor ptr = ctx.of({static_cast<int64_t>(rows.size())}, DType::i32, rows);
      return to_array(net(tape.constant(to_tensor(ctx, p, DType::f64)), {}, ptr, nullptr).matrices.value());
    };
    const Array random = matrices("RandomFrames", offsets), both = matrices("COMRandomFrames", offsets);
    for (int64_t t = 0; t < 7; ++t) {
      // From the rest frame, where the sum is (m, 0, 0, 0), the random transformation.
      double sum[4], m2 = 0;
      for (int i = 0; i < 4; ++i) {
        sum[i] = p[4 * (t < 3 ? 0 : 3) + i] + p[4 * (t < 3 ? 1 : 4) + i];
        m2 += (i ? -1 : 1) * sum[i] * sum[i];
      }
      for (int i = 0; i < 4; ++i) {
        double moved = 0;
        for (int j = 0; j < 4; ++j) moved += both[16 * t + 4 * i + j] * sum[j];
        CHECK(moved == doctest::Approx(random[16 * t + 4 * i] * std::sqrt(m2)).epsilon(1e-10));
      }
    }
    CHECK_THROWS_WITH_AS(matrices("COMRandomFrames", {0, 1, 7}),
                         "COMRandomFrames: event 0 has 1 momentum, expected two incoming ones first, as scattering "
                         "events have",
                         Error);
  }
}

TEST_CASE("frames networks refuse what they do not know") {
  Context ctx;
  auto make = [&](const Json& options) { make_framesnet(ctx, options, 3, DType::f32, false); };
  CHECK_THROWS_WITH_AS(
      make({{"type", "LearnedFrames"}}),
      "model: the frames network 'LearnedFrames' is not in this version of lightcone; it has: "
      "IdentityFrames, RandomFrames, COMRandomFrames, LearnedPDFrames, LearnedSO13Frames, LearnedRestFrames, "
      "LearnedSO3Frames, LearnedSO2Frames, LearnedZFrames",
      Error);
  CHECK_THROWS_WITH_AS(make({{"type", "LearnedSO13Frames"}, {"gamma_max", 2.}}),
                       "model: model.framesnet.gamma_max is 2, expected null: only LearnedPDFrames and LearnedZFrames "
                       "limit it",
                       Error);
  CHECK_THROWS_AS(make({{"type", "LearnedPDFrames"}, {"gamma_max", 0.5}}), Error);
  CHECK_THROWS_AS(make({{"type", "LearnedPDFrames"}, {"gammamax", 2.}}), Error);
  CHECK_THROWS_AS(make({{"type", "RandomFrames"}, {"transform_type", "boost"}}), Error);
  CHECK_THROWS_AS(make({{"type", "RandomFrames"}, {"std_eta", 0.}}), Error);
  auto vectors = [&](const Json& options) { make({{"type", "LearnedPDFrames"}, {"equivectors", options}}); };
  CHECK_THROWS_AS(vectors({{"operation", "single"}}), Error);
  CHECK_THROWS_AS(vectors({{"nonlinearity", "relu"}}), Error);
  CHECK_THROWS_AS(vectors({{"hidden_channels", 0}}), Error);
  CHECK_THROWS_AS(vectors({{"num_scalars", 4}}), Error);
  CHECK_THROWS_AS(vectors({{"dropout_prob", 1.}}), Error);
}

TEST_CASE("frames whose pairs were never measured say so") {
  Context ctx;
  const auto net = make_framesnet(ctx, {{"type", "LearnedPDFrames"}}, 0, DType::f64, false);
  Tape tape(ctx);
  const Tensor ptr = ctx.of({2}, DType::i32, std::vector<double>{0, 2}), p = ctx.zeros({2, 4}, DType::f64);
  const Var momenta = tape.constant(p), none = tape.constant(ctx.zeros({2, 0}, DType::f64));
  CHECK_THROWS_WITH_AS(
      (*net)(momenta, none, ptr, nullptr),
      "MLPVectors: mean and spread of the pairs are not known: they are measured on the first training "
      "batch; train the network or load a trained one",
      Error);
}

TEST_CASE("random = true draws the vectors' network anew for every batch, fix_params keeps it; neither trains it") {
  for (const char* option : {"random", "fix_params"}) {
    Context ctx(1, 2);
    const auto net = make_framesnet(ctx, {{"type", "LearnedPDFrames"}, {option, true}}, 2, DType::f64, false);
    std::vector<std::vector<double>> before;
    for (const auto& [name, p] : net->parameters()) {
      CHECK(!p->trainable);
      before.push_back(to_array(p->value).values);
    }
    net->begin_batch(ctx);
    size_t i = 0;
    for (const auto& [name, p] : net->parameters())
      CHECK((to_array(p->value).values == before[i++]) == (option == std::string("fix_params")));
  }
}
