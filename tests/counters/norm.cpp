#include "kernels/norm.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: norms read and write a row once") {
  struct {
    DType in, out;
    int64_t rows, cols;
  } sizes[] = {{DType::f64, DType::f64, 300, 128},  {DType::f32, DType::f32, 500, 128},
               {DType::f32, DType::bf16, 500, 128}, {DType::bf16, DType::bf16, 500, 96},
               {DType::f32, DType::f32, 500, 33},   {DType::f32, DType::f32, 30, 2048}};
  for (const auto& [in, out, T, C] : sizes) {
    const Tensor x = normal({T, C}, in), dy = normal({T, C}, out), add = normal({T, C}, in);
    Tensor y = ctx.empty({T, C}, out), dx = ctx.empty({T, C}, in), rstd = ctx.empty({T}, sum_dtype(in));
    const Kernel all[] = {
        {"layer norm", [&] { kernels::layer_norm(ctx, x, 1e-5, y, rstd); }, {x, y, rstd}},
        {"backward", [&] { kernels::layer_norm_backward(ctx, dy, y, rstd, add, dx); }, {dy, y, rstd, add, dx}},
        {"rms norm", [&] { kernels::rms_norm(ctx, x, 1e-5, y, rstd); }, {x, y, rstd}},
        {"backward", [&] { kernels::rms_norm_backward(ctx, dy, y, rstd, {}, dx); }, {dy, y, rstd, dx}},
    };
    for (const Kernel& k : all) {
      INFO(fmt::format("{} to {}, {} x {}", in, out, T, C));
      check_traffic(ctx, k);
    }
  }
}
