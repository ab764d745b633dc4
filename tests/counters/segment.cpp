#include "kernels/segment.h"
#include "tests/counters/counts.h"
#include "tests/counters/jets.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(JetOperands, "counters: rows of jets move once") {
  using kernels::Pool;
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const int64_t C = 128;
    const Tensor x = normal({T, C}, dtype), of_jets = normal({B, C}, dtype), longer = kernels::prepend_ptr(ctx, ptr);
    Tensor y = empty({B, C}, dtype), argmax = empty({B, C}, DType::i32), rows = empty({T, C}, dtype),
           more = empty({T + B, C}, dtype), first = empty({B, C}, dtype);
    std::vector<double> permuted(T);
    for (int64_t i = 0; i < T; ++i) permuted[i] = static_cast<double>(i * 7 % T);
    const Tensor index = ctx.of({T}, DType::i64, permuted);
    const Kernel all[] = {
        {"pool", [&] { kernels::segment_pool(ctx, x, ptr, Pool::mean, y); }, {x, y}},
        {"broadcast", [&] { kernels::segment_broadcast(ctx, of_jets, ptr, Pool::sum, rows); }, {of_jets, rows}},
        {"max", [&] { kernels::segment_max(ctx, x, ptr, y, argmax); }, {x, y, argmax}},
        {"max backward",
         [&] { kernels::segment_max_backward(ctx, of_jets, argmax, ptr, rows); },
         {of_jets, argmax, rows}},
        {"prepend rows", [&] { kernels::prepend_rows(ctx, &of_jets, &x, longer, more); }, {of_jets, x, more}},
        {"split rows", [&] { kernels::split_rows(ctx, more, longer, &first, &rows); }, {more, first, rows}},
        {"gather rows", [&] { kernels::gather_rows(ctx, x, index, rows); }, {x, rows, index}},
        {"scatter rows", [&] { kernels::scatter_add_rows(ctx, x, index, rows); }, {x, rows, index}},
    };
    for (const Kernel& k : all) {
      INFO(fmt::format("{}", dtype));
      check_traffic(ctx, k);
    }
  }
}
