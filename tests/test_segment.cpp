#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/segment.h"
#include "kernels/segment.h"
#include "tests/support/bits.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
using Values = std::vector<double>;

/// Row offsets or an index.
Tensor integers(Context& ctx, const Values& v, DType dtype = DType::i32) {
  if (dtype == DType::i32) return ctx.offsets(std::vector<int32_t>(v.begin(), v.end()));
  return ctx.of({static_cast<int64_t>(v.size())}, dtype, v);
}

// Jets of 3, 0, 1, 33, 64 and 0 rows.
const Values ptr = {0, 3, 3, 4, 37, 101, 101};
constexpr int64_t jets = 6, rows = 101;

/// y[b] from the column entries of each jet.
template <class F>
auto per_jet(F f) {
  return [f](const std::vector<Array>& x) {
    Array y = zeros({jets, x[0].shape[1]});
    for (int64_t b = 0; b < jets; ++b)
      for (int64_t c = 0; c < x[0].shape[1]; ++c) {
        Values entries;
        for (int64_t t = ptr[b]; t < ptr[b + 1]; ++t) entries.push_back(x[0].at(t, c));
        y.at(b, c) = entries.empty() ? 0 : f(entries);
      }
    return std::vector{y};
  };
}
double sum(const Values& v) {
  double s = 0;
  for (double e : v) s += e;
  return s;
}
}  // namespace

TEST_CASE("segment sum, mean, max and broadcast") {
  for (int64_t C : {1, 31, 64, 130}) {
    auto over_jets = [&](const char* name, Var (*f)(const Var&, const Tensor&), auto oracle, int64_t in_rows = rows) {
      check_op({.name = fmt::format("{} of {} columns", name, C),
                .inputs = {normal({in_rows, C}, 1)},
                .op = [f](auto& x) { return std::vector{f(x[0], integers(x[0].context(), ptr))}; },
                .oracle = oracle});
    };
    over_jets("segment_sum", segment_sum, per_jet(sum));
    over_jets("segment_mean", segment_mean, per_jet([](const Values& v) { return sum(v) / v.size(); }));
    over_jets("segment_max", segment_max, per_jet([](const Values& v) { return *std::ranges::max_element(v); }));
    over_jets(
        "segment_broadcast", segment_broadcast,
        [](const std::vector<Array>& x) {
          Array y = zeros({rows, x[0].shape[1]});
          for (int64_t b = 0; b < jets; ++b)
            for (int64_t t = ptr[b]; t < ptr[b + 1]; ++t)
              for (int64_t c = 0; c < x[0].shape[1]; ++c) y.at(t, c) = x[0].at(b, c);
          return std::vector{y};
        },
        jets);
  }
}

TEST_CASE("segment max takes the first of equals and the first NaN") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 1);
    const Tensor x = ctx.of({6, 2}, DType::f32, Values{1, -inf, 5, -inf, 5, -inf, 2, 3, nan, 4, nan, 9});
    Tensor y = ctx.empty({3, 2}, DType::f32), argmax = ctx.empty({3, 2}, DType::i32);
    kernels::segment_max(ctx, x, integers(ctx, {0, 3, 3, 6}), y, argmax);
    CHECK(to_array(argmax).values == Values{1, 0, -1, -1, 4, 5});
    const Array a = to_array(y);
    CHECK((a[0] == 5 && a[1] == -inf && a[2] == 0 && a[3] == 0 && std::isnan(a[4]) && a[5] == 9));
  }
}

TEST_CASE("segment max among many equals, with a NaN here and there") {
  const int64_t C = 67;
  Array x = uniform({rows, C}, 1, 0, 3);
  const Array bad = uniform({rows, C}, 2, 0, 1);
  for (int64_t i = 0; i < rows * C; ++i) x[i] = bad[i] < 0.01 ? std::nan("") : std::floor(x[i]);
  Values expected;
  for (int64_t b = 0; b < jets; ++b)
    for (int64_t c = 0; c < C; ++c) {
      double best = ptr[b] < ptr[b + 1] ? ptr[b] : -1;
      for (double t = ptr[b]; t < ptr[b + 1]; ++t) {
        const double value = x.at(int64_t(t), c), top = x.at(int64_t(best), c);
        if (value > top || (std::isnan(value) && !std::isnan(top))) best = t;
      }
      expected.push_back(best);
    }
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      INFO(name_of(dtype), " on ", name_of(device));
      Context ctx(device, 1);
      Tensor y = ctx.empty({jets, C}, dtype), argmax = ctx.empty({jets, C}, DType::i32);
      kernels::segment_max(ctx, to_tensor(ctx, x, dtype), integers(ctx, ptr), y, argmax);
      CHECK(to_array(argmax).values == expected);
    }
}

TEST_CASE("a jet's sum does not depend on the jets around it, bit by bit") {
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (int64_t C : {1, 5, 64, 130}) {
        INFO(C, " columns of ", name_of(dtype), " on ", name_of(device));
        Context ctx(device, 1);
        const Tensor x = to_tensor(ctx, normal({rows, C}, 1), dtype);
        Tensor all = ctx.empty({jets, C}, dtype), one = ctx.empty({1, C}, dtype);
        kernels::segment_pool(ctx, x, integers(ctx, ptr), kernels::Pool::mean, all);
        for (int64_t b = 0; b < jets; ++b) {
          const auto begin = static_cast<int64_t>(ptr[b]), n = static_cast<int64_t>(ptr[b + 1]) - begin;
          kernels::segment_pool(ctx, x.narrow(begin, n), integers(ctx, {0, double(n)}), kernels::Pool::mean, one);
          CHECK(same_bits(one, all.narrow(b, 1)));
        }
      }
}

TEST_CASE("gather and scatter of rows") {
  const Values index = {4, 0, 4, 4, 2, 0, 32, 7, 4};
  const int64_t M = index.size(), N = 33;
  for (DType dtype : {DType::i32, DType::i64})
    for (int64_t C : {1, 2, 64, 65}) {
      if (dtype == DType::i64 && C != 65) continue;
      check_op({.name = fmt::format("gather_rows by {} of {} columns", dtype, C),
                .inputs = {normal({N, C}, 1)},
                .op = [=](auto& x) { return std::vector{gather_rows(x[0], integers(x[0].context(), index, dtype))}; },
                .oracle =
                    [=](const std::vector<Array>& x) {
                      Array y = zeros({M, C});
                      for (int64_t m = 0; m < M; ++m)
                        for (int64_t c = 0; c < C; ++c) y.at(m, c) = x[0].at(index[m], c);
                      return std::vector{y};
                    }});
      check_op(
          {.name = fmt::format("scatter_add_rows by {} of {} columns", dtype, C),
           .inputs = {normal({M, C}, 1)},
           .op =
               [=](auto& x) { return std::vector{scatter_add_rows(x[0], integers(x[0].context(), index, dtype), N)}; },
           .oracle =
               [=](const std::vector<Array>& x) {
                 Array y = zeros({N, C});
                 for (int64_t m = 0; m < M; ++m)
                   for (int64_t c = 0; c < C; ++c) y.at(index[m], c) += x[0].at(m, c);
                 return std::vector{y};
               }});
    }
}

TEST_CASE("rows are added in the order of the index") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 2);
    const Tensor x = ctx.of({3, 1}, DType::f32, Values{1e8, -1e8, 1});
    Tensor y = ctx.empty({1, 1}, DType::f32);
    kernels::scatter_add_rows(ctx, x, integers(ctx, {0, 0, 0}), y);
    CHECK(y.item() == 1);  // the other way round, the 1 would be lost
  }
}

TEST_CASE("segment functions of nothing") {
  for (Device device : devices())
    for (int64_t C : {0, 3}) {
      INFO(C, " columns on ", name_of(device));
      Context ctx(device, 1);
      ctx.allocator().set_guard(true);
      const Tensor none = ctx.zeros({0, C}, DType::f32), no_jets = integers(ctx, {0}),
                   empty_jets = integers(ctx, {0, 0, 0});
      Tensor out = ctx.empty({0, C}, DType::f32), y = ctx.empty({2, C}, DType::f32),
             argmax = ctx.empty({2, C}, DType::i32);
      kernels::segment_pool(ctx, none, no_jets, kernels::Pool::mean, out);
      kernels::segment_broadcast(ctx, none, no_jets, kernels::Pool::mean, out);
      kernels::segment_pool(ctx, none, empty_jets, kernels::Pool::mean, y);
      CHECK(to_array(y).values == Values(2 * C, 0));
      kernels::segment_max(ctx, none, empty_jets, y, argmax);
      CHECK(to_array(argmax).values == Values(2 * C, -1));
      kernels::segment_max_backward(ctx, y, argmax, empty_jets, out);
      for (DType dtype : {DType::i32, DType::i64}) {
        kernels::gather_rows(ctx, y, integers(ctx, {}, dtype), out);
        kernels::scatter_add_rows(ctx, none, integers(ctx, {}, dtype), y);
        CHECK(to_array(y).values == Values(2 * C, 0));
        kernels::scatter_add_rows(ctx, none, integers(ctx, {}, dtype), out);
      }
      kernels::prepend_rows(ctx, nullptr, nullptr, kernels::prepend_ptr(ctx, empty_jets), y);
      CHECK(to_array(y).values == Values(2 * C, 0));
      kernels::split_rows(ctx, y, kernels::prepend_ptr(ctx, empty_jets), nullptr, &out);
      kernels::split_rows(ctx, y, kernels::prepend_ptr(ctx, empty_jets), nullptr, nullptr);
    }
}

TEST_CASE("a row in front of every jet") {
  for (int64_t C : {1, 5, 64, 300}) {  // words of 2 to 16 bytes, and more than a block of them
    check_op({.name = fmt::format("prepend_rows of {} columns", C),
              .inputs = {normal({jets, C}, 1), normal({rows, C}, 2)},
              .op =
                  [](auto& x) {
                    Context& ctx = x[0].context();
                    return std::vector{prepend_rows(x[0], x[1], prepend_ptr(ctx, integers(ctx, ptr)))};
                  },
              .oracle =
                  [=](const std::vector<Array>& x) {
                    Array y = zeros({rows + jets, C});
                    int64_t out = 0;
                    auto append = [&](const Array& from, int64_t t) {
                      for (int64_t c = 0; c < C; ++c) y.at(out, c) = from.at(t, c);
                      ++out;
                    };
                    for (int64_t b = 0; b < jets; ++b) {
                      append(x[0], b);
                      for (int64_t t = ptr[b]; t < ptr[b + 1]; ++t) append(x[1], t);
                    }
                    return std::vector{y};
                  }});
    check_op({.name = fmt::format("first_rows and drop_first_rows of {} columns", C),
              .inputs = {normal({7, C}, 1)},
              .op =
                  [](auto& x) {
                    const Tensor longer = integers(x[0].context(), {0, 1, 4, 7});
                    return std::vector{first_rows(x[0], longer), drop_first_rows(x[0], longer)};
                  },
              .oracle =
                  [=](const std::vector<Array>& x) {
                    Array first = zeros({3, C}), rest = zeros({4, C});
                    const int64_t heads[] = {0, 1, 4}, others[] = {2, 3, 5, 6};
                    for (int64_t c = 0; c < C; ++c) {
                      for (int64_t b = 0; b < 3; ++b) first.at(b, c) = x[0].at(heads[b], c);
                      for (int64_t t = 0; t < 4; ++t) rest.at(t, c) = x[0].at(others[t], c);
                    }
                    return std::vector{first, rest};
                  }});
  }
}

TEST_CASE("segment functions refuse bad input") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 1);
    Tape tape(ctx);
    auto x = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
    REFUSED("segment_sum: ptr is i64, expected i32", segment_sum(x({4, 2}), integers(ctx, {0, 4}, DType::i64)));
    REFUSED("segment_sum: ptr has shape [1, 2], expected 1 axes",
            segment_sum(x({4, 2}), ctx.zeros({1, 2}, DType::i32)));
    REFUSED("segment_sum: ptr is empty, expected at least one offset, 0", segment_sum(x({4, 2}), integers(ctx, {})));
    REFUSED("segment_pool: ptr starts at -1, expected 0", segment_sum(x({4, 2}), integers(ctx, {-1, 4})));
    REFUSED("segment_pool: ptr decreases from 4 to 3 at entry 2", segment_mean(x({4, 2}), integers(ctx, {0, 4, 3, 4})));
    REFUSED("segment_max: ptr ends at 5, expected the number of rows, 4",
            segment_max(x({4, 2}), integers(ctx, {0, 5})));
    REFUSED("segment_max: x is i32, expected f64, f32 or bf16",
            segment_max(x({4, 2}, DType::i32), integers(ctx, {0, 4})));
    REFUSED("segment_mean: x has shape [4], expected 2 axes", segment_mean(x({4}), integers(ctx, {0, 4})));
    REFUSED("segment_broadcast: x has shape [2, 3], expected [1, 3]",
            segment_broadcast(x({2, 3}), integers(ctx, {0, 4})));
    REFUSED("gather_rows: index 1 is 4, expected a row of [0, 4)", gather_rows(x({4, 2}), integers(ctx, {0, 4})));
    REFUSED("gather_rows: index 0 is -1, expected a row of [0, 4)", gather_rows(x({4, 2}), integers(ctx, {-1})));
    REFUSED("gather_rows: index is f32, expected i32 or i64", gather_rows(x({4, 2}), integers(ctx, {0}, DType::f32)));
    REFUSED("scatter_add_rows: index 0 is 3, expected a row of [0, 3)",
            scatter_add_rows(x({1, 2}), integers(ctx, {3}), 3));
    REFUSED("scatter_add_rows: x has shape [2, 2], expected [1, 2]",
            scatter_add_rows(x({2, 2}), integers(ctx, {2}), 3));
    REFUSED("prepend_rows: jet 1 is empty, expected a first row in every jet",
            prepend_rows(x({2, 2}), x({3, 2}), integers(ctx, {0, 5, 5})));
    REFUSED("prepend_rows: first has shape [1, 2], expected [2, 2]",
            prepend_rows(x({1, 2}), x({3, 2}), integers(ctx, {0, 4, 5})));
    REFUSED("split_rows: jet 0 is empty, expected a first row in every jet",
            first_rows(x({2, 2}), integers(ctx, {0, 0, 2})));
    REFUSED("drop_first_rows: 3 jets in 2 rows, expected a first row in every jet",
            drop_first_rows(x({2, 2}), integers(ctx, {0, 0, 1, 2})));
    if (device != Device::cpu)
      REFUSED("tensor: row offsets on cuda are made by Context::offsets()",
              gather_rows(x({4, 2}), ctx.zeros({1}, DType::i32)));
  }
#undef REFUSED
}
