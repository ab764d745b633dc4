// What predicts the vectors of learned frames: L-GATr and PELICAN beside the perceptron of pairs.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "engine/fields.h"
#include "models/equivectors.h"
#include "tests/support/jet_offsets.h"
#include "tests/support/lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Network {
  Json options;
  int64_t scalars = 2;
  DType dtype = DType::f64;
  bool reference_behaviour = false;
  uint64_t seed = 4;

  std::unique_ptr<Equivectors> make(Context& ctx) const {
    auto net = make_equivectors(ctx, options, 3, scalars, dtype, reference_behaviour);
    net->standardise(ctx, to_tensor(ctx, momenta(9, 3), DType::f64), offsets(ctx, {5, 4}));
    return net;
  }
  Array operator()(const Jets& jets, const Array& p, const Array& s) const {
    Context ctx(2, seed);
    Tape tape(ctx, Tape::Mode::evaluate);
    return to_array((*make(ctx))(tape.constant(to_tensor(ctx, p, DType::f64)), tape.constant(to_tensor(ctx, s, dtype)),
                                 offsets(ctx, jets))
                        .value());
  }
};

Json merged(Json a, const Json& b) {
  a.merge_patch(b);
  return a;
}

/// Both networks, with the options that change something.
std::vector<Json> networks() {
  std::vector<Json> all = {{{"type", "MLPVectors"}}};
  const Json lgatr = {{"type", "LGATrVectors"}, {"net", {{"hidden_s_channels", 6}}}},
             pelican = {{"type", "PELICANVectors"}, {"net", {{"hidden_channels", 6}}}};
  for (const Json& more :
       {Json::object(), Json{{"operation", "diff"}, {"nonlinearity", "exp"}, {"aggr", "mean"}},
        Json{{"nonlinearity", "softplus"}, {"layer_norm", true}}, Json{{"operation", "single"}, {"lgatr_norm", false}},
        Json{{"hidden_mv_channels", 12}, {"hidden_s_channels", 0}}})
    all.push_back(merged(lgatr, more));
  for (const Json& more :
       {Json::object(), Json{{"operation", "diff"}, {"nonlinearity", "exp"}, {"aggr", "mean"}},
        Json{{"nonlinearity", "softplus"}, {"layer_norm", false}, {"fm_norm", false}, {"operation", "single"}},
        Json{{"net", {{"factorize", true}, {"aggr", "sum"}, {"activation", "gelu"}}}},
        Json{{"net", {{"checkpoint_blocks", true}, {"num_blocks", 2}, {"map_multipliers", false}}}}})
    all.push_back(merged(pelican, more));
  return all;
}

bool finite(const Tensor& t) {
  const Array a = to_array(t);
  return std::all_of(a.values.begin(), a.values.end(), [](double v) { return std::isfinite(v); });
}

const Jets jets = {5, 1, 7, 2};
const int64_t T = 15;

}  // namespace

TEST_CASE("equivectors turn and boost with the momenta") {
  const Array p = momenta(T, 1), s = normal({T, 2}, 2);
  for (const Json& options : networks())
    for (bool reference : {false, true}) {
      const Network net{options, 2, DType::f64, reference};
      const Array y = net(jets, p, s);
      CHECK(y.shape == Shape{T, 3, 4});
      for (const Lorentz& lambda : lorentz_transformations(3))
        CHECK_MESSAGE(relative_error(net(jets, transformed(lambda, p), s), transformed(lambda, y)) < 1e-9,
                      options.dump());
    }
}

TEST_CASE("equivectors depend neither on batch mates nor on their order") {
  const Array p = momenta(T, 1), s = normal({T, 2}, 2);
  for (const Json& options : networks())
    for (DType dtype : {DType::f64, DType::f32}) {
      const Network net{options, 2, dtype};
      const Array together = net(jets, p, s);
      int64_t first = 0;
      for (int64_t n : jets) {
        const Array alone = net({n}, {{n, 4}, {p.values.begin() + first * 4, p.values.begin() + (first + n) * 4}},
                                {{n, 2}, {s.values.begin() + first * 2, s.values.begin() + (first + n) * 2}});
        CHECK_MESSAGE(std::equal(alone.values.begin(), alone.values.end(), together.values.begin() + first * 12),
                      options.dump());
        first += n;
      }
    }
}

TEST_CASE("the reference's PELICAN vectors read scalars of other jets, its weights add up over receivers") {
  const Array p = momenta(T, 1);
  Array s = normal({T, 2}, 2);
  Network net{{{"type", "PELICANVectors"}, {"net", {{"hidden_channels", 6}}}}};
  for (bool reference : {true, false}) {
    net.reference_behaviour = reference;
    const Array before = net(jets, p, s);
    Array other = s;
    other.at(2, 0) += 1;  // in the first jet
    const Array after = net(jets, p, other);
    bool changed = false;
    for (int64_t i = 5 * 12; i < T * 12; ++i) changed |= before[i] != after[i];
    CHECK(changed == reference);
  }
  // Without scalars, layer norm and norms of momenta: what is left is the softmax. With "single" and momenta (1, 0, 0,
  // 0), a vector's energy is the sum of its weights.
  Array rest = zeros({T, 4});
  for (int64_t t = 0; t < T; ++t) rest.at(t, 0) = 1;
  for (const char* type : {"PELICANVectors", "LGATrVectors"})
    for (bool reference : {true, false}) {
      Json options = {{"type", type}, {"operation", "single"}, {"layer_norm", false}};
      if (type == std::string("PELICANVectors")) options["fm_norm"] = false;
      const Array y = Network{options, 2, DType::f64, reference}(jets, rest, normal({T, 2}, 2));
      double largest = 0, sum = 0;
      for (int64_t i = 0; i < T * 3; ++i)
        largest = std::max(largest, std::abs(y[4 * i] - 1)), sum += y[4 * i] / (3 * T);
      CHECK(sum == doctest::Approx(1).epsilon(1e-12));
      CHECK((largest < 1e-12) == !reference);
    }
}

TEST_CASE("equivectors of hard jets are finite, and so are their gradients") {
  const std::vector<double> special = {
      5,    3, 0,    4, 5.1, 3,   0, 4,                           // alone
      5,    3, 0,    4, 10,  6,   0, 8,                           // collinear and light-like
      5,    3, 0,    4, 5,   3,   0, 4, 5, 3, 0, 4,               // the same thrice
      0,    0, 0,    0, 1,   0,   0, 2,                           // nothing, space-like
      1e-8, 0, 1e-8, 0, 1e6, 1e6, 0, 0, 5, 0, 0, -5, 5, 0, 0, 5,  // tiny, huge, back to back
  };
  const Array p = {{13, 4}, special}, s = normal({13, 2}, 2);
  for (const Json& options : networks())
    for (bool reference : {false, true})
      for (DType dtype : {DType::f64, DType::f32}) {
        Context ctx(2, 4);
        auto net = Network{options, 2, dtype, reference}.make(ctx);
        Tape tape(ctx);
        const Var x = tape.variable(to_tensor(ctx, p, DType::f64)), v = tape.variable(to_tensor(ctx, s, dtype));
        const Var y = (*net)(x, v, offsets(ctx, {1, 1, 2, 3, 2, 4}));
        CHECK_MESSAGE(finite(y.value()), options.dump());
        tape.backward(y, to_tensor(ctx, normal({13, 3, 4}, 5), DType::f64));
        CHECK_MESSAGE(finite(tape.gradient(x)), options.dump());
        CHECK_MESSAGE(finite(tape.gradient(v)), options.dump());
        for (const auto& [name, parameter] : net->parameters())
          if (parameter->grad.defined()) CHECK_MESSAGE(finite(parameter->grad), options.dump(), name);
      }
}

TEST_CASE("equivectors: gradients are those of central differences") {
  const Jets few = {3, 1, 2};
  std::vector<std::unique_ptr<Equivectors>> keep;  // networks outlive tapes, whose gradients they hold
  for (const Json& options : networks())
    for (bool reference : {false, true})
      check_op({.name = options.dump(),
                .inputs = {momenta(6, 1, 5, 3), normal({6, 2}, 2)},
                .op =
                    [&](auto& x) {
                      Context& ctx = x[0].context();
                      const Rng before = ctx.rng();
                      keep.push_back(Network{options, 2, DType::f64, reference}.make(ctx));
                      ctx.rng() = before;
                      return std::vector{(*keep.back())(x[0], x[1], offsets(ctx, few))};
                    },
                .oracle =
                    [&](const std::vector<Array>& x) {
                      Network net{options, 2, DType::f64, reference};
                      net.seed = 1;
                      return std::vector{net(few, x[0], x[1])};
                    },
                .dtypes = {DType::f64},
                .gradient_tolerance = 1e-5});
}

TEST_CASE("equivectors: under amp the networks of pairs compute in f32 unless asked") {
  const Array p = momenta(T, 1), s = normal({T, 2}, 2);
  for (const char* type : {"LGATrVectors", "PELICANVectors"})
    for (bool use_amp : {false, true}) {
      auto result = [&](bool amp) {
        Context ctx(1, 4);
        Tape tape(ctx, Tape::Mode::evaluate);
        tape.set_amp(amp);
        auto net = Network{{{"type", type}, {"use_amp", use_amp}}, 2, DType::f32}.make(ctx);
        const Array y = to_array((*net)(tape.constant(to_tensor(ctx, p, DType::f64)),
                                        tape.constant(to_tensor(ctx, s, DType::f32)), offsets(ctx, jets))
                                     .value());
        CHECK(tape.amp() == amp);
        return y;
      };
      CHECK(result(false).values == result(true).values);
    }
}

TEST_CASE("equivectors: so do blocks that are computed again in the backward pass") {
  const Array p = momenta(T, 1), s = normal({T, 2}, 2);
  for (const char* type : {"LGATrVectors", "PELICANVectors"}) {
    auto gradients = [&](bool amp) {
      Context ctx(1, 4);
      auto net = Network{{{"type", type}, {"net", {{"checkpoint_blocks", true}}}}, 2, DType::f32}.make(ctx);
      Tape tape(ctx);
      tape.set_amp(amp);
      const Var y = (*net)(tape.constant(to_tensor(ctx, p, DType::f64)), tape.constant(to_tensor(ctx, s, DType::f32)),
                           offsets(ctx, jets));
      tape.backward(y, to_tensor(ctx, normal({T, 3, 4}, 5), DType::f64));
      std::vector<double> all;
      for (const auto& [name, parameter] : net->parameters())
        for (double v : to_array(parameter->grad).values) all.push_back(v);
      return all;
    };
    CHECK(gradients(false) == gradients(true));
  }
}

TEST_CASE("equivectors: an initialisation draws everything again") {
  for (const char* type : {"LGATrVectors", "PELICANVectors"}) {
    Context ctx(1, 4);
    auto net = Network{{{"type", type}}}.make(ctx);
    const auto before = net->state_dict(ctx);
    net->initialise(ctx);
    const auto after = net->state_dict(ctx);
    int changed = 0;
    for (size_t i = 0; i < before.size(); ++i)
      changed += to_array(before[i].second).values != to_array(after[i].second).values;
    CHECK(changed >= 5);
  }
}

TEST_CASE("equivectors refuse what they do not know") {
  Context ctx(1);
  auto make = [&](const Json& options) { make_equivectors(ctx, options, 3, 2, DType::f32, false); };
  CHECK_THROWS_WITH_AS(make({{"type", "EdgeVectors"}}),
                       "model: the equivectors network 'EdgeVectors' is not in this version of lightcone; it has: "
                       "MLPVectors, LGATrVectors, PELICANVectors",
                       Error);
  for (const char* type : {"LGATrVectors", "PELICANVectors"}) {
    auto with = [&](const char* key, const Json& value) { make({{"type", type}, {key, value}}); };
    CHECK_THROWS_AS(with("operation", "times"), Error);
    CHECK_THROWS_AS(with("nonlinearity", "relu"), Error);
    CHECK_THROWS_AS(with("aggr", "max"), Error);
    CHECK_THROWS_AS(with("num_scalars", 3), Error);
    CHECK_THROWS_AS(with("n_vectors", 2), Error);
    CHECK_THROWS_AS(with("hidden_channels", 8), Error);
  }
  CHECK_THROWS_WITH_AS(make({{"type", "LGATrVectors"}, {"hidden_s_channels", -1}}),
                       "model: model.framesnet.equivectors.hidden_s_channels is -1, expected a number from 0 to 10000",
                       Error);
  CHECK_THROWS_AS(make({{"type", "LGATrVectors"}, {"hidden_mv_channels", 0}}), Error);
  CHECK_THROWS_AS(make({{"type", "LGATrVectors"}, {"net", {{"in_mv_channels", 2}}}}), Error);
  CHECK_THROWS_WITH_AS(make({{"type", "PELICANVectors"}, {"net", {{"out_rank", 1}}}}),
                       "model: model.framesnet.equivectors.net.out_rank is 1, expected 2", Error);
  CHECK_THROWS_AS(make({{"type", "PELICANVectors"}, {"operation", "single"}}), Error);
  const auto net = make_equivectors(ctx, {{"type", "PELICANVectors"}}, 3, 0, DType::f64, false);
  Tape tape(ctx);
  CHECK_THROWS_WITH_AS((*net)(tape.constant(ctx.zeros({2, 4}, DType::f64)),
                              tape.constant(ctx.zeros({2, 0}, DType::f64)), offsets(ctx, {2})),
                       doctest::Contains("PELICANVectors: mean and spread of the pairs are not known"), Error);
}
