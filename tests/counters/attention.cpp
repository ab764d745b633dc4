#include <cmath>

#include "kernels/attention.h"
#include "tests/counters/counts.h"
#include "tests/counters/jets.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(JetOperands, "counters: attention never stores a pair, and frames are part of loading") {
  using kernels::Products;
  struct Kind {
    DType dtype;
    Products products;
    bool tf32;
    int64_t D;
    const char* reps;
  };
  const int64_t H = 4;
  for (const auto& [dtype, products, tf32, D, reps] : {Kind{DType::f32, Products::exact, false, 16, "4x0n+3x1n"},
                                                       {DType::f32, Products::exact, true, 16, "4x0n+3x1n"},
                                                       {DType::f32, Products::bf16, false, 32, "16x0n+4x1n"},
                                                       {DType::bf16, Products::bf16, false, 16, "4x0n+3x1n"},
                                                       {DType::bf16, Products::exact, false, 64, nullptr}}) {
    ctx.set_tf32(tf32);
    const double scale = 1 / std::sqrt(double(D));
    for (const bool framed : {false, true}) {
      if (framed && !reps) continue;
      const Tensor qkv = normal({T, 3 * H * D}, dtype), dy = normal({T, H * D}, dtype);
      Tensor y = empty({T, H * D}, dtype), lse = empty({T, H}, DType::f32), dqkv = empty({T, 3 * H * D}, dtype);
      auto view = [&, D = D](const Tensor& t, int64_t column) {
        return kernels::head_view(t, kernels::Layout::scalars, column * H * D, H, D);
      };
      kernels::AttentionSegment s{view(qkv, 0), view(qkv, 1), view(qkv, 2), view(y, 0)};
      const kernels::AttentionGradient g{view(dy, 0), view(dqkv, 0), view(dqkv, 1), view(dqkv, 2)};
      std::vector<Tensor> operands = {qkv, y, lse};
      if (framed) {
        s.frames = {normal({T, 4, 4}, DType::f32), TensorReps(reps)};
        operands.push_back(s.frames.matrices);
      }
      auto forward = [&, p = products] { kernels::attention(ctx, {&s, 1}, ptr, ptr, scale, {}, lse, p); };
      auto backward = [&, p = products] {
        kernels::attention_backward(ctx, {&s, 1}, {&g, 1}, ptr, ptr, scale, {}, lse, p);
      };
      INFO(fmt::format("{} {} of {}", dtype, tf32 ? "tf32" : products == Products::bf16 ? "bf16" : "exact", D));
      // Keys and values are read again for each tile of queries: a jet of 100 has two of 64.
      const double more = framed ? 1.3 : 1;
      check_traffic(ctx, {framed ? "attention in frames" : "attention", forward, operands, 1.3 * more, 2.5 * more});
      operands.insert(operands.end(), {dy, dqkv});
      // The gradients of queries and those of keys each read q, k, v and dy, <dy, y> reads dy, too.
      check_traffic(ctx, {framed ? "backward in frames" : "backward", backward, operands, 1.75, 2.8 * more});
    }
  }
}
