#include "kernels/matmul.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

struct Operands {
  Tensor x, b, residual, pre, y, dy, dx, dw, db;
  std::shared_ptr<kernels::Weights> w;  // reordered once, as in a training step
};

using Call = void (*)(Context&, Operands&);

// x [T, K] w [N, K]^T of `dtype`, multiplied in `products`. `result` is what is held against the same call in f64;
// f64 itself against f32.
void linear_case(Runner& run, const char* name, Call call, Tensor Operands::*result, double count, int64_t T, int64_t K,
                 int64_t N, DType dtype, DType products) {
  Context& ctx = run.context();
  auto operands = [&run, T, K, N](DType dtype, DType products) {
    return Operands{.x = run.normal({T, K}, dtype, 1),
                    .b = run.normal({N}, dtype, 3),
                    .residual = run.normal({T, N}, dtype, 4),
                    .pre = run.normal({T, N}, dtype, 5),
                    .y = run.empty({T, N}, dtype),
                    .dy = run.normal({T, N}, dtype, 6),
                    .dx = run.empty({T, K}, dtype),
                    .dw = run.empty({N, K}, dtype),
                    .db = run.empty({N}, dtype),
                    .w = std::make_shared<kernels::Weights>(run.normal({N, K}, dtype, 2), products)};
  };
  const std::string types = products == dtype ? fmt::format("{}", dtype) : fmt::format("{} in {}", dtype, products);
  run({.name = fmt::format("{} {} T {} K {} N {}", name, types, T, K, N),
       .dtype = products,
       .bytes = static_cast<double>((T * K + T * N) * size_of(dtype)),
       .flops = count * 2. * T * K * N,
       .ceiling = Ceiling::gemm,
       .error =
           [&] {
             Operands o = operands(dtype, products);
             call(ctx, o);
             const DType other = dtype == DType::f64 ? DType::f32 : DType::f64;
             Operands reference = operands(other, other);
             call(ctx, reference);
             return relative_error(o.*result, reference.*result);
           },
       .tolerance = tolerance(products == DType::f64 ? DType::f32 : products),
       .make = [&]() -> std::function<void()> {
         return [o = operands(dtype, products), call, &ctx]() mutable { call(ctx, o); };
       }});
}

void linear(Context& ctx, Operands& o) { kernels::linear(ctx, o.x, *o.w, o.b, o.y); }
void gelu(Context& ctx, Operands& o) { kernels::linear_gelu(ctx, o.x, *o.w, o.b, o.pre, o.y); }
void residual(Context& ctx, Operands& o) { kernels::linear_residual(ctx, o.x, *o.w, o.b, o.residual, o.y); }
void backward(Context& ctx, Operands& o) { kernels::linear_backward(ctx, o.dy, o.x, *o.w, &o.dx, &o.dw, &o.db); }

const Family matmul([](Runner& run) {
  // The transformer's products, a part of a batch as one thread has it and a whole batch; a single jet; small networks.
  for (DType products : {DType::f32, DType::bf16}) {
    for (int64_t T : {900, 7000})
      for (auto [K, N] : {std::pair{7, 128}, {128, 384}, {128, 128}, {128, 1}, {32, 16}}) {
        linear_case(run, "linear", linear, &Operands::y, 1, T, K, N, DType::f32, products);
        linear_case(run, "linear_backward", backward, &Operands::dw, 2, T, K, N, DType::f32, products);
      }
    linear_case(run, "linear_gelu", gelu, &Operands::y, 1, 7000, 128, 512, DType::f32, products);
    linear_case(run, "linear_residual", residual, &Operands::y, 1, 7000, 128, 128, DType::f32, products);
    linear_case(run, "linear", linear, &Operands::y, 1, 50, 128, 384, DType::f32, products);
  }
  linear_case(run, "linear", linear, &Operands::y, 1, 7000, 128, 128, DType::f64, DType::f64);
  linear_case(run, "linear_backward", backward, &Operands::dx, 2, 7000, 128, 128, DType::f64, DType::f64);
  linear_case(run, "linear", linear, &Operands::y, 1, 7000, 128, 128, DType::bf16, DType::bf16);
});

}  // namespace
}  // namespace lightcone::bench
