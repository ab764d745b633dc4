#include "autograd/pair_aggregations.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/support/devices.h"
#include "tests/support/jet_offsets.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

int64_t tokens_of(const Jets& jets) {
  int64_t sum = 0;
  for (int64_t n : jets) sum += n;
  return sum;
}
int64_t pairs_of(const Jets& jets) {
  int64_t sum = 0;
  for (int64_t n : jets) sum += n * n;
  return sum;
}

/// f(jet, its constituents, i, j, row of (i, j), row of (j, i)); i, j count all constituents of the batch.
template <class F>
void each_pair(const Jets& jets, F f) {
  int64_t first = 0, pair = 0;
  for (size_t b = 0; b < jets.size(); ++b) {
    const int64_t n = jets[b];
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        f(static_cast<int64_t>(b), n, first + i, first + j, pair + i * n + j, pair + j * n + i);
    first += n;
    pair += n * n;
  }
}

const Jets ragged = {5, 0, 1, 9, 2};
const std::vector<DType> dtypes = {DType::f64, DType::f32};

}  // namespace

TEST_CASE("pair_pool") {
  for (const Jets& jets : {ragged, Jets{}, Jets{0}, Jets{1}, Jets{40, 3}})
    for (int64_t C : {1, 3, 16, 33, 260}) {
      if (C > 256 && jets.size() == 2) continue;  // columns enough for two tiles, in the small jets
      for (Pool pool : {Pool::sum, Pool::mean})
        check_op({.name = fmt::format("pair_pool of {} jets, {} channels, {}", jets.size(), C,
                                      pool == Pool::sum ? "sum" : "mean"),
                  .inputs = {normal({pairs_of(jets), C}, 1)},
                  .op =
                      [&](auto& x) {
                        const PairPools y = pair_pool(x[0], offsets(x[0].context(), jets), pool);
                        return std::vector{y.tokens, y.jets};
                      },
                  .oracle =
                      [&](const std::vector<Array>& x) {
                        Array tokens = zeros({tokens_of(jets), 3 * C}),
                              totals = zeros({static_cast<int64_t>(jets.size()), 2 * C});
                        each_pair(jets, [&](int64_t b, int64_t n, int64_t i, int64_t j, int64_t ij, int64_t) {
                          const double by = pool == Pool::mean ? static_cast<double>(n) : 1;
                          for (int64_t c = 0; c < C; ++c) {
                            const double v = x[0].at(ij, c);
                            tokens.at(i, c) += v / by;
                            tokens.at(j, C + c) += v / by;
                            totals.at(b, c) += v / (by * by);
                            if (i != j) continue;
                            tokens.at(i, 2 * C + c) = v;
                            totals.at(b, C + c) += v / (by * by);
                          }
                        });
                        return std::vector{tokens, totals};
                      },
                  .dtypes = dtypes});
    }
}

TEST_CASE("pair_combine") {
  for (const Jets& jets : {ragged, Jets{}, Jets{0}, Jets{1}, Jets{40, 3}})
    for (int64_t C : {1, 3, 16, 33})
      for (bool with_pairs : {true, false}) {
        std::vector<Array> inputs{normal({tokens_of(jets), 3 * C}, 1)};
        if (with_pairs) inputs.push_back(normal({pairs_of(jets), 2 * C}, 2));
        check_op({.name = fmt::format("pair_combine of {} jets, {} channels{}", jets.size(), C,
                                      with_pairs ? "" : ", tokens alone"),
                  .inputs = inputs,
                  .op =
                      [&](auto& x) {
                        return std::vector{
                            pair_combine(x.size() > 1 ? x[1] : Var{}, x[0], offsets(x[0].context(), jets))};
                      },
                  .oracle =
                      [&](const std::vector<Array>& x) {
                        Array y = zeros({pairs_of(jets), C});
                        each_pair(jets, [&](int64_t, int64_t, int64_t i, int64_t j, int64_t ij, int64_t ji) {
                          for (int64_t c = 0; c < C; ++c) {
                            y.at(ij, c) = x[0].at(i, c) + x[0].at(j, C + c) + (i == j ? x[0].at(i, 2 * C + c) : 0);
                            if (with_pairs) y.at(ij, c) += x[1].at(ij, c) + x[1].at(ji, C + c);
                          }
                        });
                        return std::vector{y};
                      },
                  .dtypes = dtypes});
      }
}

TEST_CASE("pair_pool and another use of the same pairs: both gradients arrive") {
  check_op({.name = "pair_pool beside a sum",
            .inputs = {normal({pairs_of(ragged), 3}, 1)},
            .op =
                [&](auto& x) {
                  const PairPools y = pair_pool(x[0], offsets(x[0].context(), ragged), Pool::mean);
                  return std::vector{y.tokens, y.jets, x[0]};
                },
            .oracle =
                [&](const std::vector<Array>& x) {
                  Context ctx(1);
                  Tape tape(ctx);
                  const PairPools y =
                      pair_pool(tape.constant(to_tensor(ctx, x[0], DType::f64)), offsets(ctx, ragged), Pool::mean);
                  return std::vector{to_array(y.tokens.value()), to_array(y.jets.value()), x[0]};
                },
            .dtypes = dtypes});
}

TEST_CASE("aggregation_matrices") {
  const int64_t in = 3, out = 4, M = 5;
  // Two matrices; map 2 has no place.
  const std::vector<MatrixOfMaps> layout = {{2, 1, {3, 0}}, {1, 3, {4, -1, 1}}};
  for (bool factorised : {false, true})
    for (bool multipliers : {false, true})
      for (bool scale : {false, true}) {
        std::vector<Array> inputs;
        if (factorised)
          inputs = {normal({in, M}, 1), normal({out, M}, 2), normal({in, out}, 3), normal({in, out}, 4)};
        else
          inputs = {normal({in, out, M}, 1)};
        if (multipliers) inputs.push_back(normal({M}, 5));
        if (scale) inputs.push_back(normal({in}, 6));
        check_op({.name = fmt::format("aggregation_matrices {} {} {}", factorised, multipliers, scale),
                  .inputs = inputs,
                  .op =
                      [&](auto& x) {
                        AggregationParameters k;
                        size_t next = factorised ? 4 : 1;
                        if (factorised)
                          k.c00 = x[0], k.c01 = x[1], k.c10 = x[2], k.c11 = x[3];
                        else
                          k.direct = x[0];
                        if (multipliers) k.multipliers = x[next++];
                        if (scale) k.scale = x[next++];
                        return aggregation_matrices(k, layout);
                      },
                  .oracle =
                      [&](const std::vector<Array>& x) {
                        // The tensor [in, out, M] as it lies in memory, then read as [out, in, M].
                        std::vector<double> k(in * out * M);
                        size_t next = factorised ? 4 : 1;
                        for (int64_t c = 0; c < in; ++c)
                          for (int64_t o = 0; o < out; ++o)
                            for (int64_t m = 0; m < M; ++m)
                              k[(c * out + o) * M + m] =
                                  factorised ? x[0].at(c, m) * x[2].at(c, o) + x[1].at(o, m) * x[3].at(c, o)
                                             : x[0][(c * out + o) * M + m];
                        const Array* f = multipliers ? &x[next++] : nullptr;
                        const Array* s = scale ? &x[next++] : nullptr;
                        std::vector<Array> y;
                        for (const MatrixOfMaps& l : layout) {
                          y.push_back(zeros({l.rows * out, l.columns * in}));
                          for (int64_t r = 0; r < l.rows; ++r)
                            for (int64_t q = 0; q < l.columns; ++q)
                              for (int64_t o = 0; o < out; ++o)
                                for (int64_t c = 0; c < in; ++c) {
                                  const int m = l.maps[r * l.columns + q];
                                  if (m >= 0)
                                    y.back().at(r * out + o, q * in + c) =
                                        k[(o * in + c) * M + m] * (f ? (*f)[m] : 1) * (s ? (*s)[c] : 1);
                                }
                        }
                        return y;
                      },
                  .dtypes = dtypes});
      }
}

TEST_CASE("aggregation_matrices of very many maps") {
  const int64_t M = 131;  // more than the parameters of a CUDA kernel hold
  MatrixOfMaps layout{M, 1, {}};
  for (int64_t m = 0; m < M; ++m) layout.maps.push_back(static_cast<int>((m + 7) % M));
  check_op({.name = "aggregation_matrices",
            .inputs = {normal({1, 2, M}, 1), normal({M}, 2)},
            .op =
                [&](auto& x) {
                  AggregationParameters k;
                  k.direct = x[0], k.multipliers = x[1];
                  return aggregation_matrices(k, {layout});
                },
            .oracle =
                [&](const std::vector<Array>& x) {
                  Array y = zeros({2 * M, 1});
                  for (int64_t row = 0; row < 2 * M; ++row) {
                    const int64_t m = (row / 2 + 7) % M;
                    y[row] = x[0][row % 2 * M + m] * x[1][m];
                  }
                  return std::vector{y};
                },
            .dtypes = dtypes});
}

TEST_CASE("pairs of other jets, NaN among them, change no bit") {
  for (Device device : devices()) {
    Context ctx(device, 2);
    Tape tape(ctx, Tape::Mode::evaluate);
    auto results = [&](const Array& x) {
      const PairPools y = pair_pool(tape.constant(to_tensor(ctx, x, DType::f32)), offsets(ctx, {6, 4}), Pool::mean);
      return to_array(pair_combine({}, y.tokens, offsets(ctx, {6, 4})).value());
    };
    Array x = normal({52, 5}, 1);
    const Array before = results(x);
    x.at(0, 0) = std::numeric_limits<double>::quiet_NaN();
    const Array after = results(x);
    CHECK(std::isnan(after[0]));
    for (int64_t i = 36 * 5; i < 52 * 5; ++i) CHECK(after[i] == before[i]);
  }
}

TEST_CASE("pair aggregations refuse what does not fit") {
  Context ctx(1);
  Tape tape(ctx);
  auto var = [&](Shape shape, DType dtype = DType::f64) { return tape.constant(ctx.zeros(shape, dtype)); };
  const Tensor ptr = offsets(ctx, {2, 3});
  CHECK_THROWS_WITH_AS(pair_pool(var({12, 2}), ptr, Pool::sum),
                       "pair_pool: x has 12 rows, expected 13, one for each pair", Error);
  CHECK_THROWS_WITH_AS(pair_pool(var({13, 2}, DType::bf16), ptr, Pool::sum),
                       "pair_pool: x is bf16, expected f64 or f32", Error);
  CHECK_THROWS_WITH_AS(pair_combine({}, var({5, 4}), ptr),
                       "pair_combine: tokens has 4 columns, expected a multiple of three", Error);
  CHECK_THROWS_WITH_AS(pair_combine(var({13, 3}), var({5, 6}), ptr),
                       "pair_combine: ab has shape [13, 3], expected [13, 4]", Error);
  CHECK_THROWS_WITH_AS(pair_combine({}, var({6, 6}), ptr), "pair_combine: tokens has shape [6, 6], expected [5, 6]",
                       Error);
  AggregationParameters k;
  CHECK_THROWS_AS(aggregation_matrices(k, {{1, 1, {0}}}), Error);
  k.direct = var({2, 3, 2});
  CHECK_THROWS_WITH_AS(aggregation_matrices(k, {{1, 2, {0, 2}}}),
                       "aggregation_matrices: layout 0 asks for map 2, expected one of 2 that has no place yet", Error);
  CHECK_THROWS_WITH_AS(aggregation_matrices(k, {{1, 2, {0, 0}}}),
                       "aggregation_matrices: layout 0 asks for map 0, expected one of 2 that has no place yet", Error);
  k.scale = var({3});
  CHECK_THROWS_WITH_AS(aggregation_matrices(k, {{1, 1, {0}}}),
                       "aggregation_matrices: scale has shape [3], expected [2]", Error);
}
