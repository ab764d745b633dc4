#include "kernels/norm.h"
#include "gpusim/table.h"
#include "tests/counters/counts.h"
#include "tests/support/text.h"

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

TEST_CASE_FIXTURE(Operands, "counters: the table has the kernel with its registers and bounds") {
  const Tensor x = normal({500, 128}, DType::f32);
  Tensor y = ctx.empty({500, 128}, DType::f32), rstd = ctx.empty({500}, DType::f32);
  ctx.allocator().synchronize();
  gpusim::take_launches();
  kernels::layer_norm(ctx, x, 1e-5, y, rstd);
  ctx.allocator().synchronize();
  const std::string table = gpusim::kernel_table(gpusim::take_launches(), gpusim::resources());
  INFO(table);
  // One launch; 256 kB in, as many and 500 sums out; bound by memory on all three.
  CHECK(count(table, "norm_kernel<true, Row<32, 4>, float, float, float>\n") == 1);
  CHECK(table.find("0.256      0.258") != table.npos);
  CHECK(count(table, "(DRAM)") == 3);
  CHECK(count(table, " - ") == 1);  // no shared memory, no share of conflicts in it
}
