#include <doctest/doctest.h>

#include <cmath>

#include "engine/fields.h"
#include "engine/safetensors.h"
#include "models/embedding.h"
#include "tests/support/lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
struct Batch {
  Array fourmomenta, scalars;
  std::vector<int32_t> ptr;
};

Batch some_jets(std::vector<int64_t> counts, int64_t S = 2) {
  Batch batch;
  batch.ptr = {0};
  for (int64_t n : counts) batch.ptr.push_back(batch.ptr.back() + static_cast<int32_t>(n));
  batch.fourmomenta = momenta(batch.ptr.back(), 1, 0.14);
  batch.scalars = normal({batch.ptr.back(), S}, 2);
  return batch;
}

Tensor ptr_of(Context& ctx, const std::vector<int32_t>& ptr) {
  return ctx.of({static_cast<int64_t>(ptr.size())}, DType::i32, std::vector<double>(ptr.begin(), ptr.end()));
}

Embedding embed(Context& ctx, const EmbeddingConfig& config, const Batch& batch, DType momentum = DType::f64,
                DType network = DType::f64, EmbeddingParts parts = {}) {
  return embed_jets(ctx, config, to_tensor(ctx, batch.fourmomenta, momentum), to_tensor(ctx, batch.scalars, momentum),
                    ptr_of(ctx, batch.ptr), network, parts);
}

std::vector<Array> arrays(const Embedding& e) {
  return {to_array(e.fourmomenta), to_array(e.scalars), to_array(e.is_spurion), to_array(e.tagging_features),
          to_array(e.batch),       to_array(e.ptr),     to_array(e.jets)};
}

// Rows t of `a` where by[t] is `value`.
Array rows(const Array& a, const Array& by, double value) {
  Array out = {a.shape, {}};
  out.shape[0] = std::count(by.values.begin(), by.values.end(), value);
  const int64_t C = a.shape.rank() == 2 ? a.shape[1] : 1;
  for (int64_t t = 0; t < a.shape[0]; ++t)
    if (by[t] == value) out.values.insert(out.values.end(), &a.values[C * t], &a.values[C * t] + C);
  return out;
}

}  // namespace

// Whole tagging models of the reference implementation: what their embedding got and gave, f64 throughout. The metadata
// hold the configuration of each.
TEST_CASE("embedding: every tagging model of the reference") {
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/tagging/embedding.safetensors");
  Context ctx(2);
  int models = 0;
  for (const auto& [model, text] : file.metadata()) {
    CAPTURE(model);
    EmbeddingConfig config;
    read_fields(Json::parse(text), config, "data");
    auto load = [&](const char* name) { return file.load(ctx, model + "/" + name); };
    const Embedding e = embed_jets(ctx, config, load("in/fourmomenta"), load("in/scalars"), load("in/ptr"), DType::f64);
    auto expected = [&](const char* name) { return to_array(load(("out/embedding_" + std::string(name)).c_str())); };
    CHECK(to_array(e.ptr).values == expected("ptr").values);
    CHECK(to_array(e.batch).values == expected("batch").values);
    CHECK(to_array(e.is_spurion).values == expected("is_spurion").values);
    CHECK(to_array(e.scalars).shape == expected("scalars").shape);
    CHECK(to_array(e.scalars).values == expected("scalars").values);
    CHECK(relative_error(to_array(e.fourmomenta), expected("fourmomenta")) <= 1e-9);
    const Array features = expected("tagging_features");
    double rest = 0;
    if (config.boost_jet) {
      // A jet at rest has eta_j = pz_j / 1e-5 (the bound on |p|), and its pz_j is nothing but the rounding of the boost
      // and the sum: 1e-13 GeV become 1e-8 in deta, and four times that in the last feature. So the features are first
      // compared given the reference's boosted momenta, and then with the rounding that either side happens to have.
      Batch boosted{rows(expected("fourmomenta"), expected("is_spurion"), 0), to_array(load("in/scalars")), {}};
      for (double row : to_array(load("in/ptr")).values) boosted.ptr.push_back(static_cast<int32_t>(row));
      EmbeddingConfig features_only = config;
      features_only.boost_jet = false;
      features_only.mass_reg.reset();
      const Embedding given = embed(ctx, features_only, boosted);
      CHECK(relative_error(to_array(given.tagging_features), features) <= 1e-9);
      const Array ours = to_array(e.jets), theirs = to_array(given.jets);
      for (int64_t b = 0; b < ours.shape[0]; ++b) {
        CHECK(std::abs(ours.at(b, 3)) <= 1e-10 * ours.at(b, 0));
        rest = std::max(rest, 4 * std::abs(ours.at(b, 3) - theirs.at(b, 3)) / 1e-5);
      }
    }
    double largest = 0;
    for (double v : features.values) largest = std::max(largest, std::abs(v));
    CHECK(relative_error(to_array(e.tagging_features), features) <= 1e-9 + (largest > 0 ? rest / largest : 0));
    ++models;
  }
  CHECK(models == 63);
}

TEST_CASE("embedding: crop, spurions in front, mass regulator") {
  Context ctx;
  EmbeddingConfig config;
  config.max_particles = 2;
  config.spurion_scale = 3;
  Batch batch = some_jets({3, 1}, 1);
  batch.fourmomenta.values = {5, 3, 0, 4, 9, 1, 2, 2, 7, 0, 0, 0, 2, 0, 2, 0};
  const auto e = arrays(embed(ctx, config, batch));
  const double m2 = 25e-6, beam = std::sqrt(9 + m2);
  CHECK(e[0].values == std::vector<double>{beam, 0, 0, 3, beam, 0, 0, -3, 3, 0, 0, 0, std::sqrt(25 + m2), 3, 0, 4,
                                           9,    1, 2, 2,  // the third one is cut
                                           beam, 0, 0, 3, beam, 0, 0, -3, 3, 0, 0, 0, std::sqrt(4 + m2),  0, 2, 0});
  const Array& s = batch.scalars;
  CHECK(e[1].values == std::vector<double>{0, 0, 0, s[0], s[1], 0, 0, 0, s[3]});
  CHECK(e[2].values == std::vector<double>{1, 1, 1, 0, 0, 1, 1, 1, 0});
  CHECK(e[4].values == std::vector<double>{0, 0, 0, 0, 0, 1, 1, 1, 1});
  CHECK(e[5].values == std::vector<double>{0, 5, 9});
  CHECK(e[6].values == std::vector<double>{9 + std::sqrt(25 + m2), 4, 2, 6, std::sqrt(4 + m2), 0, 2, 0});
}

TEST_CASE("embedding: spurions") {
  auto of = [](std::optional<std::string> kind, bool two, bool time, double scale = 1) {
    EmbeddingConfig config;
    config.beam_reference = kind;
    config.two_beams = two;
    config.add_time_reference = time;
    config.spurion_scale = scale;
    return spurions(config);
  };
  using List = std::vector<FourMomentum>;
  CHECK(of("lightlike", true, true) == List{{1, 0, 0, 1}, {1, 0, 0, -1}, {1, 0, 0, 0}});
  CHECK(of("timelike", false, true, 2) == List{{2 * std::sqrt(2.0), 0, 0, 2}, {2, 0, 0, 0}});
  CHECK(of("spacelike", true, false) == List{{0, 0, 0, 1}, {0, 0, 0, -1}});
  CHECK(of("all", true, false) == List{{1, 0, 0, 1}, {1, 0, 1, 0}, {1, 1, 0, 0}});
  CHECK(of(std::nullopt, true, true) == List{{1, 0, 0, 0}});
  CHECK(of(std::nullopt, true, false).empty());
}

TEST_CASE("embedding: in the rest frame of the jet") {
  Context ctx;
  EmbeddingConfig lab, rest;
  rest.boost_jet = true;
  const Batch batch = some_jets({7, 2, 33});
  const auto a = arrays(embed(ctx, lab, batch)), b = arrays(embed(ctx, rest, batch));
  auto product = [](const Array& p, int64_t t, int64_t u) {
    return p.at(t, 0) * p.at(u, 0) - p.at(t, 1) * p.at(u, 1) - p.at(t, 2) * p.at(u, 2) - p.at(t, 3) * p.at(u, 3);
  };
  for (int64_t j = 0; j < 3; ++j) {
    for (int c = 1; c < 4; ++c) CHECK(std::abs(b[6].at(j, c)) < 1e-12 * b[6].at(j, 0));
    CHECK(b[6].at(j, 0) == doctest::Approx(std::sqrt(product(a[6], j, j))).epsilon(1e-12));
  }
  // Spurions go along: products with tokens of the same jet stay.
  for (int64_t t = 0; t < a[0].shape[0]; ++t) {
    const auto first = static_cast<int64_t>(a[5][static_cast<int64_t>(a[4][t])]);
    const double before = product(a[0], t, first);
    CHECK(std::abs(product(b[0], t, first) - before) <= 1e-12 * (1 + std::abs(before)) + 1e-12);
  }
}

TEST_CASE("embedding: parts that are left out change nothing else") {
  Context ctx;
  EmbeddingConfig config;
  config.boost_jet = true;
  const Batch batch = some_jets({7, 1, 12});
  const auto all = arrays(embed(ctx, config, batch));
  const auto tokens = arrays(embed(ctx, config, batch, DType::f64, DType::f64, {.spurions = false}));
  for (int k : {0, 1, 2, 3, 4}) CHECK(tokens[k].values == rows(all[k], all[2], 0).values);
  CHECK(tokens[5].values == std::vector<double>{0, 7, 8, 20});
  CHECK(tokens[6].values == all[6].values);
  const auto plain = arrays(embed(ctx, config, batch, DType::f64, DType::f64, {.tagging_features = false}));
  for (int k : {0, 1, 2, 4, 5, 6}) CHECK(plain[k].values == all[k].values);
  CHECK(plain[3].shape == Shape{29, 0});
}

TEST_CASE("embedding: dtypes") {
  Context ctx;
  EmbeddingConfig config;
  const Batch batch = some_jets({7, 1, 12});
  const auto exact = arrays(embed(ctx, config, batch));
  for (DType network : {DType::f32, DType::bf16}) {
    const Embedding e = embed(ctx, config, batch, DType::f64, network);
    CHECK(e.fourmomenta.dtype() == DType::f64);
    CHECK(e.scalars.dtype() == network);
    CHECK(to_array(e.fourmomenta).values == exact[0].values);
    CHECK(to_array(e.scalars).values == to_array(to_tensor(ctx, exact[1], network)).values);
    CHECK(to_array(e.tagging_features).values == to_array(to_tensor(ctx, exact[3], network)).values);
  }
  const Embedding e = embed(ctx, config, batch, DType::f32, DType::f32);
  CHECK(e.fourmomenta.dtype() == DType::f32);
  CHECK(relative_error(to_array(e.fourmomenta), exact[0]) < tolerance(DType::f32));
  CHECK(relative_error(to_array(e.tagging_features), exact[3]) < tolerance(DType::f32));
  CHECK(config.momentum_dtype() == DType::f64);
}

TEST_CASE("embedding: sizes, and the same bits for any number of threads") {
  EmbeddingConfig config;
  config.boost_jet = true;
  for (const std::vector<int64_t>& counts :
       {std::vector<int64_t>{}, {1}, {31, 1, 33}, std::vector<int64_t>(65, 3), {200, 1, 64, 65, 63}})
    for (int64_t S : {0, 1, 5}) {
      std::vector<std::vector<Array>> results;
      for (int threads : {1, 2, 3}) {
        Context ctx(threads);
        ctx.allocator().set_guard(true);
        results.push_back(arrays(embed(ctx, config, some_jets(counts, S))));
        CHECK(ctx.allocator().guard_violations() == 0);
      }
      for (size_t k = 0; k < results[0].size(); ++k) {
        CHECK(results[0][k].values == results[1][k].values);  // false if anything was left unwritten: that is NaN
        CHECK(results[0][k].values == results[2][k].values);
      }
      CHECK(results[0][5].shape == Shape{static_cast<int64_t>(counts.size()) + 1});
    }
}

TEST_CASE("embedding refuses bad configurations") {
  auto reject = [](const char* json, const char* message) {
    EmbeddingConfig config;
    read_fields(Json::parse(json), config, "data");
    CHECK_THROWS_WITH_AS(config.validate(), message, Error);
  };
  reject(R"({"beam_reference":"xyplane"})",
         "beam_reference: unknown kind 'xyplane'; expected lightlike, timelike, spacelike, all or null");
  reject(R"({"tagging_features":"some"})",
         "tagging_features: unknown selection 'some'; expected all, zinvariant, so3invariant or null");
  reject(R"({"mass_reg":-1})", "mass_reg: -1 GeV; expected a mass of 0 or more, or null for no regulator");
  reject(R"({"max_particles":0})", "max_particles: 0; expected 1 or more, or null for all");
  EmbeddingConfig config;
  config.spurion_scale = NAN;
  CHECK_THROWS_WITH_AS(config.validate(), "spurion_scale: nan; expected a finite number", Error);
}

TEST_CASE("embedding refuses bad batches") {
  Context ctx;
  const EmbeddingConfig config;
  auto reject = [&](std::vector<int32_t> ptr, const char* message) {
    Batch batch = some_jets({9});
    batch.ptr = ptr;
    CHECK_THROWS_WITH_AS(embed(ctx, config, batch), message, Error);
  };
  reject({0, 4, 4, 9}, "embed_jets: jet 1 has no constituents; leave such jets out of the batch");
  reject({0, 5, 4, 9}, "embed_jets: ptr falls from 5 to 4 at jet 1");
  reject({0, 8}, "embed_jets: ptr ends at 8, but fourmomenta has 9 rows");
  reject({0, 20, 9}, "embed_jets: ptr falls from 20 to 9 at jet 1");
  reject({1, 9}, "embed_jets: ptr starts at 1, expected 0");
  reject({}, "embed_jets: ptr is empty, expected one entry more than there are jets");
  const Tensor p = ctx.zeros({9, 4}, DType::f64), s = ctx.zeros({9, 0}, DType::f32), ptr = ptr_of(ctx, {0, 9});
  auto run = [&](const Tensor& p, const Tensor& s, const Tensor& ptr, DType network = DType::f32) {
    embed_jets(ctx, config, p, s, ptr, network);
  };
  CHECK_THROWS_WITH_AS(run(ctx.zeros({9, 3}, DType::f64), s, ptr),
                       "embed_jets: fourmomenta has shape [9, 3], expected 4 entries along the last axis", Error);
  CHECK_THROWS_WITH_AS(run(ctx.zeros({9, 4}, DType::bf16), s, ptr),
                       "embed_jets: fourmomenta is bf16, expected f64 or f32", Error);
  CHECK_THROWS_WITH_AS(run(p, ctx.zeros({8, 2}, DType::f32), ptr),
                       "embed_jets: scalars has shape [8, 2], expected [9, 2]", Error);
  CHECK_THROWS_WITH_AS(run(p, s, ctx.zeros({2}, DType::i64)), "embed_jets: ptr is i64, expected i32", Error);
  CHECK_THROWS_WITH_AS(run(p, s, ptr, DType::f16), "embed_jets: dtype f16 is not supported, expected f64, f32 or bf16",
                       Error);
}
