// PELICAN: numbers of the reference implementation, and all ranks against its definition, map by map.
#include "models/pelican.h"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "engine/fields.h"
#include "engine/safetensors.h"
#include "tests/support/jet_offsets.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

/// Numbers of a pair, [channel].
using Row = std::vector<double>;

/// The network of PELICANConfig for one jet in f64, every map written out.
class Literal {
 public:
  Literal(const PELICANConfig& config, std::map<std::string, Array> state, int64_t N)
      : c_(config), state_(std::move(state)), N_(N) {}

  std::vector<Row> operator()(const std::vector<Row>& pairs, const std::vector<Row>& tokens, const Row& jet) {
    std::vector<Row> x(N_ * N_);
    const auto append = [](std::vector<Row>& to, const std::vector<Row>& more) {
      for (size_t i = 0; i < to.size(); ++i) to[i].insert(to[i].end(), more[i].begin(), more[i].end());
    };
    if (!pairs.empty()) append(x, pairs);
    if (!tokens.empty()) append(x, product("in_aggregator_rank1", maps_of_tokens(tokens), 5));
    if (!jet.empty()) append(x, product("in_aggregator_rank0", maps_of_jet(jet), 2));
    x = product("in_aggregator_rank2", maps_to_pairs(x), 15);
    for (int64_t b = 0; b < c_.num_blocks; ++b) x = block("blocks." + std::to_string(b) + ".", x);
    return product("out_aggregator",
                   c_.out_rank == 0   ? maps_to_jet(x)
                   : c_.out_rank == 1 ? maps_to_tokens(x)
                                      : maps_to_pairs(x),
                   c_.out_rank == 0   ? 2
                   : c_.out_rank == 1 ? 5
                                      : 15);
  }

 private:
  double f(double x) const {
    if (c_.activation == "leaky_relu") return x > 0 ? x : 0.01 * x;
    if (c_.activation == "gelu") return x / 2 * (1 + std::erf(x / std::sqrt(2)));
    return std::tanh(x);
  }
  std::vector<Row> block(const std::string& at, const std::vector<Row>& x) {
    const Array &w = state_.at(at + "mlp.0.weight"), &b = state_.at(at + "mlp.0.bias"),
                &g = state_.at(at + "mlp.2.weight");
    std::vector<Row> h;
    for (const Row& in : x) {
      Row out;
      double squares = 0;
      for (int64_t o = 0; o < w.shape[0]; ++o) {
        double sum = b[o];
        for (int64_t c = 0; c < w.shape[1]; ++c) sum += w.at(o, c) * in[c];
        out.push_back(f(sum));
        squares += out.back() * out.back() / static_cast<double>(w.shape[0]);
      }
      for (size_t o = 0; o < out.size(); ++o) out[o] *= g[o] / std::sqrt(squares + 2.220446049250313e-16);
      h.push_back(out);
    }
    h = product(at + "aggregator", maps_to_pairs(h), 15);
    for (Row& row : h)
      for (double& v : row) v = f(v);
    return h;
  }

  /// Rows [channel, map] times the coefficients.
  std::vector<Row> product(const std::string& name, const std::vector<Row>& x, int64_t M) {
    const bool factorised = state_.contains(name + ".coeffs00");
    const Array& shape = state_.at(name + (factorised ? ".coeffs10" : ".coeffs_direct"));
    const int64_t in = shape.shape[0], out = shape.shape[1];
    Row k(in * out * M);
    for (int64_t c = 0; c < in; ++c)
      for (int64_t o = 0; o < out; ++o)
        for (int64_t m = 0; m < M; ++m) {
          double& v = k[(c * out + o) * M + m];
          if (factorised)
            v = state_.at(name + ".coeffs00").at(c, m) * state_.at(name + ".coeffs10").at(c, o) +
                state_.at(name + ".coeffs01").at(o, m) * state_.at(name + ".coeffs11").at(c, o);
          else
            v = shape[(c * out + o) * M + m];
          if (c_.map_multipliers) v *= state_.at(name + ".map_multipliers")[m];
        }
    std::vector<Row> y;
    for (const Row& row : x) {
      Row to(out);
      for (int64_t o = 0; o < out; ++o)
        for (int64_t q = 0; q < in * M; ++q) to[o] += k[o * in * M + q] * row[q];
      y.push_back(to);
    }
    return y;
  }

  struct Pools {
    std::vector<Row> row, column, diagonal;  // [constituent][channel]
    Row all, trace;
  };
  double share(int64_t count) const { return c_.aggr == "mean" ? 1. / static_cast<double>(count) : 1; }
  Pools pools(const std::vector<Row>& x) const {
    const size_t C = x[0].size();
    Pools p{std::vector<Row>(N_, Row(C)), std::vector<Row>(N_, Row(C)), std::vector<Row>(N_, Row(C)), Row(C), Row(C)};
    for (int64_t i = 0; i < N_; ++i)
      for (int64_t j = 0; j < N_; ++j)
        for (size_t c = 0; c < C; ++c) {
          const double v = x[i * N_ + j][c];
          p.row[i][c] += v * share(N_), p.column[j][c] += v * share(N_), p.all[c] += v * share(N_ * N_);
          if (i == j) p.diagonal[i][c] = v, p.trace[c] += v * share(N_ * N_);
        }
    return p;
  }
  std::vector<Row> maps_to_pairs(const std::vector<Row>& x) const {
    const Pools p = pools(x);
    std::vector<Row> y(N_ * N_);
    for (int64_t i = 0; i < N_; ++i)
      for (int64_t j = 0; j < N_; ++j)
        for (size_t c = 0; c < x[0].size(); ++c) {
          const double d = i == j, xij = x[i * N_ + j][c];
          for (double v : {xij, x[j * N_ + i][c], d * xij, p.diagonal[i][c], p.diagonal[j][c], d * p.column[i][c],
                           d * p.row[j][c], p.column[i][c], p.column[j][c], p.row[i][c], p.row[j][c], p.trace[c],
                           d * p.trace[c], p.all[c], d * p.all[c]})
            y[i * N_ + j].push_back(v);
        }
    return y;
  }
  std::vector<Row> maps_to_tokens(const std::vector<Row>& x) const {
    const Pools p = pools(x);
    std::vector<Row> y(N_);
    for (int64_t i = 0; i < N_; ++i)
      for (size_t c = 0; c < x[0].size(); ++c)
        for (double v : {p.diagonal[i][c], p.row[i][c], p.column[i][c], p.all[c], p.trace[c]}) y[i].push_back(v);
    return y;
  }
  std::vector<Row> maps_to_jet(const std::vector<Row>& x) const {
    const Pools p = pools(x);
    Row y;
    for (size_t c = 0; c < x[0].size(); ++c) y.push_back(p.all[c]), y.push_back(p.trace[c]);
    return {y};
  }
  std::vector<Row> maps_of_tokens(const std::vector<Row>& x) const {
    Row pool(x[0].size());
    for (const Row& row : x)
      for (size_t c = 0; c < row.size(); ++c) pool[c] += row[c] * share(N_);
    std::vector<Row> y(N_ * N_);
    for (int64_t i = 0; i < N_; ++i)
      for (int64_t j = 0; j < N_; ++j)
        for (size_t c = 0; c < x[0].size(); ++c) {
          const double d = i == j;
          for (double v : {d * x[i][c], x[i][c], x[j][c], d * pool[c], pool[c]}) y[i * N_ + j].push_back(v);
        }
    return y;
  }
  std::vector<Row> maps_of_jet(const Row& x) const {
    std::vector<Row> y(N_ * N_);
    for (int64_t i = 0; i < N_; ++i)
      for (int64_t j = 0; j < N_; ++j)
        for (double v : x) y[i * N_ + j].push_back(v), y[i * N_ + j].push_back(v * (i == j));
    return y;
  }

  const PELICANConfig& c_;
  const std::map<std::string, Array> state_;
  const int64_t N_;
};

std::vector<Row> rows_of(const Array& a, int64_t first, int64_t count) {
  std::vector<Row> rows;
  for (int64_t i = 0; i < count && a.shape[1]; ++i) {
    rows.emplace_back();
    for (int64_t c = 0; c < a.shape[1]; ++c) rows.back().push_back(a.at(first + i, c));
  }
  return rows;
}

}  // namespace

TEST_CASE("PELICAN of every rank is what its maps are, one by one") {
  const Jets jets = {4, 1, 6, 2};
  struct Case {
    int64_t rank2, rank1, rank0, out_rank;
    bool factorize, multipliers;
    const char *activation, *aggr;
  };
  for (const Case& k : {Case{1, 0, 0, 0, false, true, "leaky_relu", "mean"},
                        {1, 3, 0, 1, true, true, "gelu", "mean"},
                        {1, 3, 2, 2, false, false, "tanh", "sum"},
                        {0, 2, 2, 0, true, false, "leaky_relu", "sum"},
                        {0, 0, 3, 1, false, true, "tanh", "mean"},
                        {2, 0, 0, 2, true, true, "gelu", "mean"}})
    for (bool checkpoints : {false, true}) {
      CAPTURE(k.out_rank);
      CAPTURE(k.rank1);
      const PELICANConfig config = {.in_channels_rank2 = k.rank2,
                                    .in_channels_rank1 = k.rank1,
                                    .in_channels_rank0 = k.rank0,
                                    .out_rank = k.out_rank,
                                    .out_channels = 3,
                                    .num_blocks = 2,
                                    .hidden_channels = 5,
                                    .increase_hidden_channels = 0.7,
                                    .map_multipliers = k.multipliers,
                                    .factorize = k.factorize,
                                    .activation = k.activation,
                                    .aggr = k.aggr,
                                    .checkpoint_blocks = checkpoints};
      Context ctx(2, 3);
      PELICAN net(ctx, config, DType::f64);
      std::map<std::string, Array> state;
      uint64_t seed = 1;
      for (auto& [name, p] : net.parameters()) {
        // Multipliers and norms start as ones, which hides errors.
        if (p->value.shape().rank() == 1)
          p->value = to_tensor(ctx, uniform(p->value.shape(), ++seed, 0.5, 1.5), DType::f64);
        state[name] = to_array(p->value);
      }
      const Array pairs = normal({57, k.rank2}, 1), tokens = normal({13, k.rank1}, 2), totals = normal({4, k.rank0}, 3);
      Tape tape(ctx);
      const auto var = [&](const Array& a) {
        return a.shape[1] ? tape.variable(to_tensor(ctx, a, DType::f64)) : Var{};
      };
      const Var y = net(var(pairs), var(tokens), var(totals), offsets(ctx, jets));
      const Array ours = to_array(y.value());
      Array expected = zeros(ours.shape);
      int64_t first = 0, pair = 0, at = 0;
      for (size_t b = 0; b < jets.size(); ++b) {
        const int64_t N = jets[b];
        const auto jet = rows_of(totals, static_cast<int64_t>(b), 1);
        for (const Row& row : Literal(config, state, N)(rows_of(pairs, pair, N * N), rows_of(tokens, first, N),
                                                        jet.empty() ? Row{} : jet[0]))
          for (double v : row) expected[at++] = v;
        first += N, pair += N * N;
      }
      CHECK(at == ours.shape.numel());
      CHECK(relative_error(ours, expected) < 1e-12);
      tape.backward(y, to_tensor(ctx, normal(ours.shape, 9), DType::f64));
      for (auto& [name, p] : net.parameters()) {
        CHECK_MESSAGE(p->grad.defined(), name);
      }
    }
}

TEST_CASE("PELICAN agrees with the reference implementation, gradients included") {
  for (const char* name : {"pelican", "pelican_fair"}) {
    CAPTURE(name);
    const Safetensors file(std::string(LIGHTCONE_SOURCE_DIR "/tests/golden/tagging/") + name + ".safetensors");
    Context ctx(2);
    Json options = Json::parse(file.metadata().at("config"))["model"]["net"];
    options.erase("_target_"), options.erase("_partial_");
    PELICANConfig config;
    read_fields(options, config, "net");
    PELICAN net(ctx, config, DType::f64);
    net.load_state_dict(ctx, [&](const std::string& entry) { return file.load(ctx, "param/net." + entry); });
    const Tensor ptr = ctx.of({6}, DType::i32, to_array(file.load(ctx, "out/embedding_ptr")).values);
    Tape tape(ctx);
    const Tensor rank1 = file.load(ctx, "mid/net_in/in_rank1");
    const Var y =
        net(tape.constant(file.load(ctx, "mid/net_in/in_rank2")), rank1.dim(1) ? tape.constant(rank1) : Var{}, {}, ptr);
    Array logits = to_array(file.load(ctx, "out/logits"));
    logits.shape = y.shape();
    CHECK(relative_error(to_array(y.value()), logits) < 1e-9);
    // d (mean binary cross entropy) / d logit
    Array cotangent = to_array(y.value());
    const Array label = to_array(file.load(ctx, "in/label"));
    for (int64_t b = 0; b < 5; ++b) cotangent[b] = (1 / (1 + std::exp(-cotangent[b])) - label[b]) / 5;
    tape.backward(y, to_tensor(ctx, cotangent, DType::f64));
    for (auto& [entry, p] : net.parameters())
      CHECK_MESSAGE(relative_error(to_array(p->grad), to_array(file.load(ctx, "grad/net." + entry))) < 1e-7, entry);
  }
}

TEST_CASE("PELICAN does not know the order of constituents") {
  const PELICANConfig config = {
      .in_channels_rank1 = 2, .out_rank = 1, .out_channels = 3, .num_blocks = 2, .hidden_channels = 5};
  Context ctx(1, 3);
  PELICAN net(ctx, config, DType::f64);
  const int64_t N = 6, order[N] = {3, 0, 5, 1, 4, 2};
  const Array pairs = normal({N * N, 1}, 1), tokens = normal({N, 2}, 2);
  Array moved_pairs = pairs, moved_tokens = tokens;
  for (int64_t i = 0; i < N; ++i) {
    for (int64_t c = 0; c < 2; ++c) moved_tokens.at(i, c) = tokens.at(order[i], c);
    for (int64_t j = 0; j < N; ++j) moved_pairs[i * N + j] = pairs[order[i] * N + order[j]];
  }
  auto result = [&](const Array& x2, const Array& x1) {
    Tape tape(ctx, Tape::Mode::evaluate);
    return to_array(net(tape.constant(to_tensor(ctx, x2, DType::f64)), tape.constant(to_tensor(ctx, x1, DType::f64)),
                        {}, offsets(ctx, {N}))
                        .value());
  };
  const Array y = result(pairs, tokens), moved = result(moved_pairs, moved_tokens);
  for (int64_t i = 0; i < N; ++i)
    for (int64_t c = 0; c < 3; ++c) CHECK(moved.at(i, c) == doctest::Approx(y.at(order[i], c)).epsilon(1e-12));
}

TEST_CASE("PELICAN: dropout acts in training alone, and initial values have the reference's spread") {
  Context ctx(1, 3);
  const PELICANConfig config = {
      .out_rank = 2, .out_channels = 8, .num_blocks = 1, .hidden_channels = 40, .dropout_prob = 0.5};
  PELICAN net(ctx, config, DType::f64);
  auto result = [&](Tape::Mode mode) {
    Tape tape(ctx, mode);
    return to_array(
               net(tape.constant(to_tensor(ctx, normal({9, 1}, 1), DType::f64)), {}, {}, offsets(ctx, {3})).value())
        .values;
  };
  CHECK(result(Tape::Mode::evaluate) == result(Tape::Mode::evaluate));
  CHECK(result(Tape::Mode::train) != result(Tape::Mode::train));
  for (auto& [name, p] : net.parameters()) {
    if (name != "blocks.0.aggregator.coeffs_direct") continue;
    double largest = 0, squares = 0;
    for (double v : to_array(p->value).values)
      largest = std::max(largest, std::abs(v)), squares += v * v / static_cast<double>(p->value.numel());
    CHECK(largest == doctest::Approx(std::sqrt(6. / (40 * 15))).epsilon(1e-2));
    CHECK(squares == doctest::Approx(2. / (40 * 15)).epsilon(3e-2));
  }
}

TEST_CASE("PELICAN refuses what it cannot be") {
  Context ctx(1);
  auto make = [&](const std::function<void(PELICANConfig&)>& spoil) {
    PELICANConfig config = {.out_channels = 1, .num_blocks = 1, .hidden_channels = 4};
    spoil(config);
    PELICAN net(ctx, config, DType::f32);
  };
  CHECK_NOTHROW(make([](auto&) {}));
  CHECK_THROWS_WITH_AS(make([](auto& c) { c.out_rank = 3; }), "PELICAN: out_rank is 3, expected a number from 0 to 2",
                       Error);
  CHECK_THROWS_WITH_AS(make([](auto& c) { c.aggr = "amax"; }), "PELICAN: aggr has no option 'amax'; all: mean, sum",
                       Error);
  CHECK_THROWS_WITH_AS(make([](auto& c) { c.activation = "elu"; }),
                       "PELICAN: activation has no option 'elu'; all: leaky_relu, relu, gelu, tanh, sigmoid, silu",
                       Error);
  CHECK_THROWS_WITH_AS(make([](auto& c) { c.in_channels_rank2 = 0; }),
                       "PELICAN: has no input: in_channels_rank2, in_channels_rank1 and in_channels_rank0 are 0",
                       Error);
  CHECK_THROWS_AS(make([](auto& c) { c.hidden_channels = 0; }), Error);
  CHECK_THROWS_AS(make([](auto& c) { c.increase_hidden_channels = 0.1; }), Error);
  CHECK_THROWS_AS(make([](auto& c) { c.dropout_prob = 1; }), Error);
  CHECK_THROWS_AS(make([](auto& c) { c.out_channels = {}; }), Error);
}
