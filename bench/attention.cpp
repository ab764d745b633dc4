#include "kernels/attention.h"

#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

using namespace kernels;

/// y of the formula in attention.h, in f64, pair by pair.
Tensor naive(Context& ctx, const Tensor& qkv, const std::vector<double>& ptr, int64_t H, int64_t D) {
  const Tensor x = converted(ctx, qkv, DType::f64);
  Tensor y = ctx.zeros({x.dim(0), H * D}, DType::f64);
  auto at = [&](int64_t t, int64_t which, int64_t h) { return x.data<double>() + (t * 3 + which) * H * D + h * D; };
  std::vector<double> p;
  for (size_t b = 0; b + 1 < ptr.size(); ++b)
    for (int64_t t = ptr[b]; t < ptr[b + 1]; ++t)
      for (int64_t h = 0; h < H; ++h) {
        double sum = 0;
        p.clear();
        for (int64_t j = ptr[b]; j < ptr[b + 1]; ++j) {
          double s = 0;
          for (int64_t d = 0; d < D; ++d) s += at(t, 0, h)[d] * at(j, 1, h)[d];
          sum += p.emplace_back(std::exp(s / std::sqrt(double(D))));
        }
        for (int64_t j = ptr[b]; j < ptr[b + 1]; ++j)
          for (int64_t d = 0; d < D; ++d) y.data<double>()[(t * H + h) * D + d] += p[j - ptr[b]] / sum * at(j, 2, h)[d];
      }
  return y;
}

const Family attention_family([](Runner& run) {
  struct Size {
    int64_t jets, mean, heads, head_dim;
  };
  struct Kind {
    DType dtype;
    Products products;
  };
  // The last sizes are the heads of the networks with 10 and 1 thousand parameters.
  for (auto [dtype, products] :
       {Kind{DType::f32, Products::exact}, {DType::f32, Products::bf16}, {DType::bf16, Products::exact}})
    for (const Size& n : {Size{128, 55, 8, 16}, Size{512, 30, 16, 8}, Size{1, 50, 8, 16}, Size{1, 1000, 8, 16},
                          Size{128, 55, 4, 8}, Size{128, 55, 1, 4}}) {
      if (products == Products::bf16 && n.head_dim <= largest_exact_head) continue;
      const DType operand = products == Products::bf16 ? DType::bf16 : dtype;  // of the products
      Context& ctx = run.context();
      const std::vector<double> ptr = jet_offsets(n.jets, n.mean);
      const int64_t T = ptr.back(), columns = n.heads * n.head_dim;
      double pairs = 0;
      for (size_t b = 0; b + 1 < ptr.size(); ++b) pairs += n.heads * std::pow(ptr[b + 1] - ptr[b], 2);
      const Tensor jets = ctx.of({n.jets + 1}, DType::i32, ptr);
      const double scale = 1 / std::sqrt(double(n.head_dim)), bytes = double(T) * columns * size_of(dtype);
      struct Operands {
        Tensor qkv, y, lse, dy, dqkv;
      };
      auto operands = [&] {
        return Operands{run.normal({T, 3 * columns}, dtype, 1), run.empty({T, columns}, dtype),
                        run.empty({T, n.heads}, sum_dtype(dtype)), run.normal({T, columns}, dtype, 2),
                        run.empty({T, 3 * columns}, dtype)};
      };
      auto view = [n, columns](const Tensor& t, int64_t which) {
        return head_view(t, Layout::scalars, which * columns, n.heads, n.head_dim);
      };
      auto segment = [view](Operands& o) {
        return AttentionSegment{view(o.qkv, 0), view(o.qkv, 1), view(o.qkv, 2), view(o.y, 0)};
      };
      auto forward = [&ctx, segment, jets, scale, products = products](Operands& o) {
        const AttentionSegment s = segment(o);
        attention(ctx, {&s, 1}, jets, jets, scale, {}, o.lse, o.y.dtype() == DType::f32 ? products : Products::exact);
      };
      auto backward = [&ctx, segment, view, jets, scale, products = products](Operands& o) {
        const AttentionSegment s = segment(o);
        const AttentionGradient g{view(o.dy, 0), view(o.dqkv, 0), view(o.dqkv, 1), view(o.dqkv, 2)};
        attention_backward(ctx, {&s, 1}, {&g, 1}, jets, jets, scale, {}, o.lse,
                           o.y.dtype() == DType::f32 ? products : Products::exact);
      };
      const std::string size =
          fmt::format("{}{} {} jets of {}, {} heads of {}", dtype,
                      products == Products::bf16 ? " by bf16 products" : "", n.jets, n.mean, n.heads, n.head_dim);
      run({.name = "attention " + size,
           .dtype = operand,
           .bytes = 4 * bytes,
           .flops = 4 * pairs * n.head_dim,
           .ceiling = Ceiling::gemm,
           .error =
               [&] {
                 Operands o = operands();
                 forward(o);
                 return relative_error(o.y, naive(ctx, o.qkv, ptr, n.heads, n.head_dim));
               },
           .tolerance = tolerance(operand),
           .make = [&]() -> std::function<void()> { return [o = operands(), forward]() mutable { forward(o); }; }});
      run({.name = "attention_backward " + size,
           .dtype = operand,
           .bytes = 8 * bytes,
           .flops = 10 * pairs * n.head_dim,
           .ceiling = Ceiling::gemm,
           // The gradients against those in f64 of the same rounded numbers, which the tests hold against differences.
           .error =
               [&] {
                 Operands o = operands();
                 forward(o);
                 backward(o);
                 Operands exact{converted(ctx, o.qkv, DType::f64), run.empty({T, columns}, DType::f64),
                                run.empty({T, n.heads}, DType::f64), converted(ctx, o.dy, DType::f64),
                                run.empty({T, 3 * columns}, DType::f64)};
                 forward(exact);
                 backward(exact);
                 return relative_error(o.dqkv, exact.dqkv);
               },
           .tolerance = tolerance(operand),
           .make = [&]() -> std::function<void()> {
             Operands o = operands();
             forward(o);  // y and lse
             return [o, backward]() mutable { backward(o); };
           }});
    }
});

}  // namespace
}  // namespace lightcone::bench
