// What kernels move, by gpusim's counts, against what they must: every operand once.
#include <doctest/doctest.h>

#include "kernels/elementwise.h"
#include "kernels/norm.h"
#include "kernels/optimizer.h"
#include "kernels/reduce.h"
#include "tests/counters/counts.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

/// A kernel and what it must read and write; `most` times as much is allowed.
struct Kernel {
  std::string name;
  std::function<void()> run;
  std::vector<Tensor> operands;
  double most = 1.2;
};

void check_traffic(Context& ctx, const Kernel& k) {
  const Counts c = count(ctx, k.run);
  const double least = bytes(k.operands);
  INFO(k.name << ": " << c.launches << " launches move " << c.dram_read << " + " << c.dram_written << " bytes for "
              << least << ", " << c.traffic() / least << " times as much");
  CHECK(c.traffic() <= k.most * least);
  CHECK(c.traffic() >= 0.99 * least);  // else `operands` are more than it needs
  CHECK(c.local_requests == 0);
  CHECK(c.bank_conflicts <= 0.05 * c.shared_wavefronts);
}

struct Operands {
  Context ctx{Device::cuda, 1};
  uint64_t seed = 0;
  Tensor normal(Shape shape, DType dtype) { return to_tensor(ctx, test::normal(shape, ++seed), dtype); }
};

}  // namespace

TEST_CASE_FIXTURE(Operands, "counters: elementwise kernels move their operands once, in whole sectors") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16})
    for (int64_t n : {65536, 65537}) {
      const Tensor a = normal({n}, dtype), b = normal({n}, dtype);
      Tensor y = ctx.empty({n}, dtype), other = ctx.empty({n}, dtype == DType::f32 ? DType::bf16 : DType::f32);
      using kernels::Unary;
      const Kernel all[] = {
          {"add", [&] { kernels::add(ctx, a, b, y); }, {a, b, y}},
          {"scale", [&] { kernels::scale(ctx, a, 2, y); }, {a, y}},
          {"gelu", [&] { kernels::unary(ctx, Unary::gelu, a, y); }, {a, y}},
          {"gelu backward", [&] { kernels::unary_backward(ctx, Unary::gelu, a, b, y); }, {a, b, y}},
          {"cast", [&] { kernels::cast(ctx, a, other); }, {a, other}},
      };
      for (const Kernel& k : all) {
        INFO(fmt::format("{}, {} elements", dtype, n));
        check_traffic(ctx, k);
        if (n % 2) continue;
        const Counts c = count(ctx, k.run);
        CHECK(32 * (c.load_sectors + c.store_sectors) == bytes(k.operands));
      }
    }
}

TEST_CASE_FIXTURE(Operands, "counters: rows and columns move once") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const int64_t T = 700;
    const Tensor x = normal({T, 128}, dtype), row = normal({128}, dtype), dy = normal({T, 96}, dtype);
    Tensor y = ctx.empty({T, 128}, dtype), left = ctx.empty({T, 96}, dtype), right = ctx.empty({T, 32}, dtype);
    Tensor sums = ctx.empty({T}, dtype), columns = ctx.empty({128}, dtype);
    const std::vector<Tensor> parts = {left, right};
    const Kernel all[] = {
        {"add_row", [&] { kernels::add_row(ctx, x, row, y); }, {x, row, y}},
        {"slice", [&] { kernels::slice(ctx, x, 32, left); }, {left, left}},
        {"slice backward", [&] { kernels::slice_backward(ctx, dy, 32, y); }, {dy, dy}},
        {"slice", [&] { kernels::slice(ctx, x, 0, right); }, {right, right}},
        {"concat", [&] { kernels::concat(ctx, parts, y); }, {left, right, y}},
        {"sum of rows", [&] { kernels::sum(ctx, x, kernels::Over::last, 1, sums); }, {x, sums}},
        {"sum of rows backward", [&] { kernels::sum_backward(ctx, sums, kernels::Over::last, 1, y); }, {sums, y}},
        {"sum of columns", [&] { kernels::sum(ctx, x, kernels::Over::leading, 1, columns); }, {x, columns}},
        {"largest of rows", [&] { kernels::max_last(ctx, x, sums); }, {x, sums}},
    };
    for (const Kernel& k : all) {
      INFO(fmt::format("{}", dtype));
      check_traffic(ctx, k);
    }
  }
}

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

TEST_CASE_FIXTURE(Operands, "counters: an optimiser's step is one launch that moves each tensor once") {
  for (DType dtype : {DType::f64, DType::f32}) {
    std::vector<Tensor> values, gradients, m, v, slow;
    std::vector<kernels::ParameterStep> steps;
    for (int64_t i = 0; i < 100; ++i) {
      const Shape shape = i % 4 ? Shape{128} : Shape{40, 128};
      values.push_back(normal(shape, dtype));
      gradients.push_back(normal(shape, dtype));
      m.push_back(normal(shape, dtype));
      v.push_back(ctx.zeros(shape, dtype));
      slow.push_back(normal(shape, dtype));
      steps.push_back({values.back(), gradients.back(), m.back(), v.back(), 1, 1e-3, 0.1});
    }
    Tensor norm = ctx.empty({1}, DType::f64);
    kernels::gradient_norm(ctx, gradients, norm);
    auto all = [](std::vector<std::vector<Tensor>> lists) {
      std::vector<Tensor> out;
      for (const auto& list : lists) out.insert(out.end(), list.begin(), list.end());
      return out;
    };
    using kernels::UpdateRule;
    const Kernel kernels_[] = {
        {"adamw", [&] { kernels::optimizer_step(ctx, UpdateRule::adamw, steps, {}); },
         all({values, gradients, m, v, values, m, v})},
        {"lion", [&] { kernels::optimizer_step(ctx, UpdateRule::lion, steps, {}); },
         all({values, gradients, m, values, m})},
        {"lookahead", [&] { kernels::lookahead(ctx, values, slow, 0.5); }, all({values, slow, values, slow})},
        {"ema", [&] { kernels::ema_update(ctx, values, slow, 0.5); }, all({values, slow, slow})},
        {"clip by value", [&] { kernels::clip_by_value(ctx, gradients, 1); }, all({gradients, gradients})},
        {"clip by norm", [&] { kernels::clip_by_norm(ctx, gradients, 1e-3, norm); }, all({gradients, gradients})},
        {"gradient norm", [&] { kernels::gradient_norm(ctx, gradients, norm); }, gradients},
    };
    for (const Kernel& k : kernels_) {
      INFO(fmt::format("{}", dtype));
      check_traffic(ctx, k);
      CHECK(count(ctx, k.run).launches == (k.name == "gradient norm" ? 2 : 1));
    }
    kernels::gradient_norm(ctx, gradients, norm);
    CHECK(count(ctx, [&] { kernels::clip_by_norm(ctx, gradients, 1e9, norm); }).dram_written == 0);
  }
}
