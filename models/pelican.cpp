#include "models/pelican.h"

#include <cmath>
#include <limits>

#include "autograd/checkpoint.h"
#include "autograd/elementwise.h"
#include "autograd/matmul.h"
#include "autograd/norm.h"
#include "autograd/random.h"
#include "autograd/segment.h"
#include "models/linear.h"

namespace lightcone {

namespace {

Unary activation(const std::string& name) {
  for (const auto& [text, f] : {std::pair{"leaky_relu", Unary::leaky_relu},
                                {"relu", Unary::relu},
                                {"gelu", Unary::gelu},
                                {"tanh", Unary::tanh},
                                {"sigmoid", Unary::sigmoid},
                                {"silu", Unary::silu}})
    if (name == text) return f;
  fail("PELICAN", "activation has no option '{}'; all: leaky_relu, relu, gelu, tanh, sigmoid, silu", name);
}

Pool pool(const std::string& name) {
  if (name == "mean") return Pool::mean;
  if (name == "sum") return Pool::sum;
  fail("PELICAN", "aggr has no option '{}'; all: mean, sum", name);
}

int64_t inner_channels(const PELICANConfig& c) {
  return static_cast<int64_t>(c.increase_hidden_channels * static_cast<double>(c.hidden_channels));
}

const PELICANConfig& checked(const PELICANConfig& c) {
  auto between = [](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most)
      fail("PELICAN", "{} is {}, expected a number from {} to {}", name, value, least, most);
  };
  between("in_channels_rank2", c.in_channels_rank2, 0, 10'000);
  between("in_channels_rank1", c.in_channels_rank1.value_or(0), 0, 10'000);
  between("in_channels_rank0", c.in_channels_rank0, 0, 10'000);
  between("out_rank", c.out_rank, 0, 2);
  between("out_channels", c.out_channels.value_or(0), 1, 10'000);
  between("num_blocks", c.num_blocks, 0, 10'000);
  between("hidden_channels", c.hidden_channels, 1, 10'000);
  if (!(c.increase_hidden_channels > 0 && c.increase_hidden_channels <= 100) || inner_channels(c) < 1)
    fail("PELICAN", "increase_hidden_channels is {}, expected a number up to 100 that leaves a channel of {}",
         c.increase_hidden_channels, c.hidden_channels);
  if (c.in_channels_rank2 + c.in_channels_rank1.value_or(0) + c.in_channels_rank0 == 0)
    fail("PELICAN", "has no input: in_channels_rank2, in_channels_rank1 and in_channels_rank0 are 0");
  if (c.dropout_prob && !(*c.dropout_prob >= 0 && *c.dropout_prob < 1))
    fail("PELICAN", "dropout_prob is {}, expected a number in [0, 1)", *c.dropout_prob);
  activation(c.activation);
  pool(c.aggr);
  return c;
}

// The maps in the reference's order, as matrices: of x (A, B), of tokens (rows u, v, w; columns r, c, d) and of jets
// (columns G, D); of constituents or jets as input, their own numbers and their pool.
constexpr int none = -1;
const MatrixOfMaps of_pairs = {2, 1, {0, 1}};
const MatrixOfMaps tokens_to_pairs = {3, 3, {9, 7, 3, 10, 8, 4, 6, 5, 2}};
const MatrixOfMaps jets_to_pairs = {3, 2, {13, 11, none, none, 14, 12}};
const MatrixOfMaps tokens_to_tokens = {1, 3, {1, 2, 0}}, jets_to_tokens = {1, 2, {3, 4}}, jets_to_jets = {1, 2, {0, 1}};
const MatrixOfMaps constituents_to_pairs = {3, 1, {1, 2, 0}}, pool_to_pairs = {3, 1, {4, none, 3}};
const MatrixOfMaps totals_to_pairs = {3, 1, {0, none, 1}};

Var product(const Var& x, const Var& w) { return linear(x, w, Var{}); }

}  // namespace

struct PELICAN::Aggregator : Module {
  enum class Kind { pairs_to_jets, pairs_to_tokens, pairs_to_pairs, tokens_to_pairs, jets_to_pairs };
  Kind kind;
  Pool over;
  Parameter map_multipliers, coeffs_direct, coeffs00, coeffs01, coeffs10, coeffs11;

  Aggregator(Context& ctx, const PELICANConfig& c, Kind kind, int64_t in, int64_t out, DType dtype)
      : kind(kind), over(pool(c.aggr)) {
    const int64_t M = kind == Kind::pairs_to_pairs                                     ? 15
                      : kind == Kind::pairs_to_tokens || kind == Kind::tokens_to_pairs ? 5
                                                                                       : 2;
    if (c.map_multipliers) {
      map_multipliers.value = ctx.of({M}, dtype, std::vector<double>(M, 1));
      add("map_multipliers", map_multipliers);
    }
    // torch's kaiming_uniform_, whose fan is that of the axes behind the first.
    auto draw = [&](const char* name, Parameter& p, Shape shape, double variance) {
      const double fan = static_cast<double>(shape.numel()) / static_cast<double>(shape[0]);
      p.value = uniform_init(ctx, shape, dtype, std::sqrt(3 * variance / fan));
      add(name, p);
    };
    if (c.factorize) {
      draw("coeffs00", coeffs00, {in, M}, 1);
      draw("coeffs01", coeffs01, {out, M}, 1);
      draw("coeffs10", coeffs10, {in, out}, 1);
      draw("coeffs11", coeffs11, {in, out}, 1);
    } else {
      draw("coeffs_direct", coeffs_direct, {in, out, M}, 2);
    }
  }

  std::vector<Var> matrices(Tape& tape, const Var& scale, const std::vector<MatrixOfMaps>& layout) {
    auto var = [&](Parameter& p) { return p.value.defined() ? tape.parameter(p) : Var{}; };
    return aggregation_matrices(
        {var(coeffs_direct), var(coeffs00), var(coeffs01), var(coeffs10), var(coeffs11), var(map_multipliers), scale},
        layout);
  }

  /// `scale` [in]: factors of the input's channels, or Var{}.
  Var operator()(const Var& x, const Tensor& ptr, const Var& scale = {}) {
    Tape& tape = x.tape();
    switch (kind) {
      case Kind::pairs_to_pairs: {
        const auto w = matrices(tape, scale, {of_pairs, tokens_to_pairs, jets_to_pairs});
        const Var ab = product(x, w[0]);
        const PairPools pools = pair_pool(x, ptr, over);
        return pair_combine(ab, add_jets(product(pools.tokens, w[1]), product(pools.jets, w[2]), ptr), ptr);
      }
      case Kind::pairs_to_tokens: {
        const auto w = matrices(tape, scale, {tokens_to_tokens, jets_to_tokens});
        const PairPools pools = pair_pool(x, ptr, over);
        return add_jets(product(pools.tokens, w[0]), product(pools.jets, w[1]), ptr);
      }
      case Kind::pairs_to_jets:
        return product(pair_pool(x, ptr, over).jets, matrices(tape, scale, {jets_to_jets})[0]);
      case Kind::tokens_to_pairs: {
        const auto w = matrices(tape, scale, {constituents_to_pairs, pool_to_pairs});
        const Var pooled = over == Pool::mean ? segment_mean(x, ptr) : segment_sum(x, ptr);
        return pair_combine({}, add_jets(product(x, w[0]), product(pooled, w[1]), ptr), ptr);
      }
      default:
        return pair_combine({}, segment_broadcast(product(x, matrices(tape, scale, {totals_to_pairs})[0]), ptr), ptr);
    }
  }

  static Var add_jets(const Var& tokens, const Var& jets, const Tensor& ptr) {
    return lightcone::add(tokens, segment_broadcast(jets, ptr));
  }
};

struct PELICAN::Block : Module {
  Linear linear;
  struct Norm : Module {
    Parameter weight;
    explicit Norm(Tensor ones) {
      weight.value = std::move(ones);
      add("weight", weight);
    }
  } norm;
  Aggregator aggregator;
  Unary f;
  double p;

  Block(Context& ctx, const PELICANConfig& c, DType dtype)
      : linear(ctx, c.hidden_channels, inner_channels(c), dtype),
        norm(ctx.of({inner_channels(c)}, dtype, std::vector<double>(inner_channels(c), 1))),
        aggregator(ctx, c, Aggregator::Kind::pairs_to_pairs, inner_channels(c), c.hidden_channels, dtype),
        f(activation(c.activation)),
        p(c.dropout_prob.value_or(0)) {
    // torch.nn.ModuleList(linear, activation, norm, dropout)
    add("mlp.0", linear);
    add("mlp.2", norm);
    add("aggregator", aggregator);
  }

  // The norm's weights are factors of channels, which the aggregation's matrices take up.
  Var operator()(const Var& x, const Tensor& ptr) {
    const double eps =
        x.dtype() == DType::f64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
    const Var h = dropout(rms_norm(unary(f, linear(x)), eps), p);
    return unary(f, aggregator(h, ptr, x.tape().parameter(norm.weight)));
  }
};

PELICAN::PELICAN(Context& ctx, const PELICANConfig& config, DType dtype) : config_(checked(config)) {
  using Kind = Aggregator::Kind;
  auto aggregator = [&](const char* name, std::unique_ptr<Aggregator>& place, Kind kind, int64_t in, int64_t out) {
    if (in == 0) return;
    place = std::make_unique<Aggregator>(ctx, config, kind, in, out, dtype);
    add(name, *place);
  };
  const int64_t rank1 = config.in_channels_rank1.value_or(0), rank0 = config.in_channels_rank0;
  const int64_t hidden = config.hidden_channels;
  aggregator("in_aggregator_rank1", in_aggregator_rank1_, Kind::tokens_to_pairs, rank1, rank1);
  aggregator("in_aggregator_rank0", in_aggregator_rank0_, Kind::jets_to_pairs, rank0, rank0);
  aggregator("in_aggregator_rank2", in_aggregator_rank2_, Kind::pairs_to_pairs,
             config.in_channels_rank2 + rank1 + rank0, hidden);
  for (int64_t b = 0; b < config.num_blocks; ++b) {
    blocks_.push_back(std::make_unique<Block>(ctx, config, dtype));
    add("blocks." + std::to_string(b), *blocks_.back());
  }
  const Kind out[] = {Kind::pairs_to_jets, Kind::pairs_to_tokens, Kind::pairs_to_pairs};
  aggregator("out_aggregator", out_aggregator_, out[config.out_rank], hidden, *config.out_channels);
}

PELICAN::~PELICAN() = default;

Var PELICAN::operator()(const Var& pairs, const Var& constituents, const Var& jets, const Tensor& ptr) {
  std::vector<Var> parts;
  if (config_.in_channels_rank2) parts.push_back(pairs);
  if (in_aggregator_rank1_) parts.push_back((*in_aggregator_rank1_)(constituents, ptr));
  if (in_aggregator_rank0_) parts.push_back((*in_aggregator_rank0_)(jets, ptr));
  Var x = (*in_aggregator_rank2_)(parts.size() == 1 ? parts[0] : concat(parts), ptr);
  for (auto& block : blocks_) {
    auto run = [&block = *block, ptr](const Var& x) { return block(x, ptr); };
    x = config_.checkpoint_blocks ? checkpoint(x, run) : run(x);
  }
  return (*out_aggregator_)(x, ptr);
}

}  // namespace lightcone
