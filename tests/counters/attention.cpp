#include <cmath>

#include "kernels/attention.h"
#include "tests/counters/counts.h"
#include "tests/counters/jets.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(JetOperands, "counters: attention never stores a pair, and frames are part of loading") {
  const int64_t H = 4, D = 16;
  for (DType dtype : {DType::f32, DType::bf16})
    for (const bool framed : {false, true}) {
      const Tensor qkv = normal({T, 3 * H * D}, dtype);
      Tensor y = empty({T, H * D}, dtype), lse = empty({T, H}, DType::f32);
      auto view = [&](const Tensor& t, int64_t column) {
        return kernels::head_view(t, kernels::Layout::scalars, column * H * D, H, D);
      };
      kernels::AttentionSegment s{view(qkv, 0), view(qkv, 1), view(qkv, 2), view(y, 0)};
      std::vector<Tensor> operands = {qkv, y, lse};
      if (framed) {
        s.frames = {normal({T, 4, 4}, DType::f32), TensorReps("4x0n+3x1n")};
        operands.push_back(s.frames.matrices);
      }
      auto run = [&] { kernels::attention(ctx, {&s, 1}, ptr, ptr, 1 / std::sqrt(double(D)), {}, lse); };
      INFO(fmt::format("{}", dtype));
      // Keys and values are read again for each tile of queries: a jet of 100 has two of 64.
      const double more = framed ? 1.3 : 1;
      check_traffic(ctx, {framed ? "attention in frames" : "attention", run, operands, 1.3 * more, 2.5 * more});
    }
}
