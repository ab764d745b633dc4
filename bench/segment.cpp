#include "kernels/segment.h"

#include <algorithm>
#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

using kernels::Pool;
using Operands = std::vector<Tensor>;

// Rows of 128 jets.
void pools(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t B = 128, C = 128;
  const std::vector<double> offsets = jet_offsets(B, 55);
  const auto T = static_cast<int64_t>(offsets.back());
  const Tensor ptr = ctx.of({B + 1}, DType::i32, offsets);
  const Tensor longer = kernels::prepend_ptr(ctx, ptr);
  const Shape rows = {T, C}, jets = {B, C};
  // f(jet, first row, row behind the last, column)
  auto each = [&](auto f) {
    for (int64_t b = 0; b < B; ++b)
      for (int64_t c = 0; c < C; ++c) f(b, static_cast<int64_t>(offsets[b]), static_cast<int64_t>(offsets[b + 1]), c);
  };
  auto x = [&run, ptr, dtype](Shape shape) { return Operands{run.normal(shape, dtype, 1), ptr}; };
  auto name = [&](const char* operation) { return fmt::format("{} {} {}", operation, dtype, rows); };

  for (Pool pool : {Pool::sum, Pool::mean}) {
    run({.name = name(pool == Pool::sum ? "segment_sum" : "segment_mean"),
         .dtype = dtype,
         .shape = jets,
         .operands = [&] { return x(rows); },
         .kernel = [&ctx, pool](auto& x, Tensor& y) { kernels::segment_pool(ctx, x[0], x[1], pool, y); },
         .naive =
             [&](const auto& x, auto& y) {
               each([&](int64_t b, int64_t begin, int64_t end, int64_t c) {
                 const double scale = pool == Pool::sum ? 1 : 1. / (end - begin);
                 for (int64_t t = begin; t < end; ++t) y[b * C + c] += scale * x[0][t * C + c];
               });
             },
         .flops = static_cast<double>(T * C)});
  }
  run({.name = name("segment_broadcast"),
       .dtype = dtype,
       .shape = rows,
       .operands = [&] { return x(jets); },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::segment_broadcast(ctx, x[0], x[1], Pool::mean, y); },
       .naive =
           [&](const auto& x, auto& y) {
             each([&](int64_t b, int64_t begin, int64_t end, int64_t c) {
               for (int64_t t = begin; t < end; ++t) y[t * C + c] = x[0][b * C + c] / (end - begin);
             });
           }});
  auto with_argmax = [&] {
    Operands o = x(rows);
    o.push_back(run.empty(jets, DType::i32));
    return o;
  };
  auto largest = [&](const std::vector<double>& x, int64_t begin, int64_t end, int64_t c) {
    int64_t best = begin;
    for (int64_t t = begin; t < end; ++t)
      if (x[t * C + c] > x[best * C + c]) best = t;
    return best;
  };
  run({.name = name("segment_max"),
       .dtype = dtype,
       .shape = jets,
       .operands = with_argmax,
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::segment_max(ctx, x[0], x[1], y, x[2]); },
       .naive =
           [&](const auto& x, auto& y) {
             each([&](int64_t b, int64_t begin, int64_t end, int64_t c) {
               y[b * C + c] = x[0][largest(x[0], begin, end, c) * C + c];
             });
           }});
  run({.name = name("segment_max_backward"),
       .dtype = dtype,
       .shape = rows,
       .operands =
           [&] {
             Operands o = with_argmax();
             Tensor y = run.empty(jets, dtype);
             kernels::segment_max(ctx, o[0], o[1], y, o[2]);
             return Operands{run.normal(jets, dtype, 2), o[2], ptr};
           },
       .kernel = [&ctx](auto& x, Tensor& dx) { kernels::segment_max_backward(ctx, x[0], x[1], x[2], dx); },
       .naive =
           [&](const auto& x, auto& dx) {
             const Tensor forward = converted(ctx, run.normal(rows, dtype, 1), DType::f64);
             const std::vector<double> numbers(forward.span<double>().begin(), forward.span<double>().end());
             each([&](int64_t b, int64_t begin, int64_t end, int64_t c) {
               dx[largest(numbers, begin, end, c) * C + c] = x[0][b * C + c];
             });
           }});
  run({.name = name("prepend_rows"),
       .dtype = dtype,
       .shape = {T + B, C},
       .operands =
           [&] {
             return Operands{run.normal(rows, dtype, 1), run.normal(jets, dtype, 2), longer};
           },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::prepend_rows(ctx, &x[1], &x[0], x[2], y); },
       .naive =
           [&](const auto& x, auto& y) {
             each([&](int64_t b, int64_t begin, int64_t end, int64_t c) {
               y[(begin + b) * C + c] = x[1][b * C + c];
               for (int64_t t = begin; t < end; ++t) y[(t + b + 1) * C + c] = x[0][t * C + c];
             });
           }});
  run({.name = name("split_rows"),
       .dtype = dtype,
       .shape = rows,
       .operands =
           [&] {
             return Operands{run.normal({T + B, C}, dtype, 1), longer, run.empty(jets, dtype)};
           },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::split_rows(ctx, x[0], x[1], &x[2], &y); },
       .naive =
           [&](const auto& x, auto& y) {
             each([&](int64_t b, int64_t begin, int64_t end, int64_t c) {
               for (int64_t t = begin; t < end; ++t) y[t * C + c] = x[0][(t + b + 1) * C + c];
             });
           }});
}

// Sixteen neighbours of each row, anywhere: their features, and back.
void neighbours(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t T = 7000, C = 32, M = 16 * T;
  const Draw draw = Rng(1).draw("bench", M);
  std::vector<double> to(M);
  for (int64_t m = 0; m < M; ++m) to[m] = std::floor(draw.uniform(m) * T);
  const Tensor index = ctx.of({M}, DType::i64, to);
  auto x = [&](int64_t rows) { return Operands{run.normal({rows, C}, dtype, 1), index}; };
  auto row = [&](int64_t i) { return static_cast<int64_t>(to[i / C]) * C + i % C; };
  run({.name = fmt::format("gather_rows {} {}", dtype, Shape{M, C}),
       .dtype = dtype,
       .shape = {M, C},
       .operands = [&] { return x(T); },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::gather_rows(ctx, x[0], x[1], y); },
       .naive =
           [&](const auto& x, auto& y) {
             for (int64_t i = 0; i < M * C; ++i) y[i] = x[0][row(i)];
           }});
  run({.name = fmt::format("scatter_add_rows {} {}", dtype, Shape{M, C}),
       .dtype = dtype,
       .shape = {T, C},
       .operands = [&] { return x(M); },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::scatter_add_rows(ctx, x[0], x[1], y); },
       .naive =
           [&](const auto& x, auto& y) {
             for (int64_t i = 0; i < M * C; ++i) y[row(i)] += x[0][i];
           },
       .flops = static_cast<double>(M * C)});
}

const Family segment([](Runner& run) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    pools(run, dtype);
    neighbours(run, dtype);
  }
});

}  // namespace
}  // namespace lightcone::bench
