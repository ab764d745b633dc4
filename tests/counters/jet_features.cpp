#include "kernels/jet_features.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: jet features read and write a constituent once") {
  const int64_t T = 2000;
  const auto all = kernels::TaggingFeatures::all;
  for (DType dtype : {DType::f64, DType::f32})
    for (DType out : {DType::f32, DType::bf16}) {
      INFO(fmt::format("{} of {}", out, dtype));
      const Tensor p = normal({T, 4}, dtype), jet = normal({T, 4}, dtype), dy = normal({T, 7}, out);
      Tensor y = ctx.empty({T, 7}, out), dp = ctx.empty({T, 4}, dtype), dj = ctx.empty({T, 4}, dtype);
      const Kernel kernels_[] = {
          {"features", [&] { kernels::jet_features(ctx, all, p, jet, y); }, {p, jet, y}},
          {"backward", [&] { kernels::jet_features_backward(ctx, all, dy, p, jet, &dp, &dj); }, {dy, p, jet, dp, dj}},
      };
      for (const Kernel& k : kernels_) check_traffic(ctx, k);
    }
}
