#include "kernels/matmul.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

struct Operands {
  Tensor x, w, b, residual, pre, y, dy, dx, dw, db;
};

using Call = void (*)(Context&, Operands&);

// x [T, K] w [N, K]^T, operands in `dtype`, results in `out`. `result` is what is held against the same call in f64,
// where another implementation (ours, not oneDNN's) runs; f64 itself against f32.
void linear_case(Runner& run, const char* name, Call call, Tensor Operands::*result, double products, int64_t T,
                 int64_t K, int64_t N, DType dtype, DType out) {
  Context& ctx = run.context();
  auto operands = [&run, T, K, N](DType dtype, DType out) {
    return Operands{.x = run.normal({T, K}, dtype, 1),
                    .w = run.normal({N, K}, dtype, 2),
                    .b = run.normal({N}, out, 3),
                    .residual = run.normal({T, N}, out, 4),
                    .pre = run.normal({T, N}, out, 5),
                    .y = run.empty({T, N}, out),
                    .dy = run.normal({T, N}, out, 6),
                    .dx = run.empty({T, K}, out),
                    .dw = run.empty({N, K}, out),
                    .db = run.empty({N}, out)};
  };
  const std::string types = out == dtype ? fmt::format("{}", dtype) : fmt::format("{}>{}", dtype, out);
  run({.name = fmt::format("{} {} T {} K {} N {}", name, types, T, K, N),
       .dtype = dtype,
       .bytes = static_cast<double>(T * K * size_of(dtype) + T * N * size_of(out)),
       .flops = products * 2. * T * K * N,
       .ceiling = Ceiling::gemm,
       .error =
           [&] {
             Operands o = operands(dtype, out);
             call(ctx, o);
             const DType other = dtype == DType::f64 ? DType::f32 : DType::f64;
             Operands reference = operands(other, other);
             reference.x = converted(ctx, o.x, other);
             reference.w = converted(ctx, o.w, other);
             call(ctx, reference);
             return relative_error(o.*result, reference.*result);
           },
       .tolerance = tolerance(dtype == DType::f64 ? DType::f32 : dtype),
       .make = [&]() -> std::function<void()> {
         return [o = operands(dtype, out), call, &ctx]() mutable { call(ctx, o); };
       }});
}

void linear(Context& ctx, Operands& o) { kernels::linear(ctx, o.x, o.w, o.b, o.y); }
void gelu(Context& ctx, Operands& o) { kernels::linear_gelu(ctx, o.x, o.w, o.b, o.pre, o.y); }
void residual(Context& ctx, Operands& o) { kernels::linear_residual(ctx, o.x, o.w, o.b, o.residual, o.y); }
void backward(Context& ctx, Operands& o) { kernels::linear_backward(ctx, o.dy, o.x, o.w, &o.dx, &o.dw, &o.db); }
void gelu_backward(Context& ctx, Operands& o) {
  kernels::linear_gelu_backward(ctx, o.dy, o.pre, o.x, o.w, &o.dx, &o.dw, &o.db);
}

const Family matmul([](Runner& run) {
  // The transformer's products, a batch of 128 jets; a single jet; the small networks.
  const int64_t T = 7000;
  for (auto [dtype, out] : {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::f32}}) {
    for (auto [K, N] : {std::pair{7, 128}, {128, 384}, {128, 128}, {128, 512}, {512, 128}, {128, 1}, {32, 16}}) {
      linear_case(run, "linear", linear, &Operands::y, 1, T, K, N, dtype, out);
      linear_case(run, "linear_backward", backward, &Operands::dw, 2, T, K, N, dtype, out);
    }
    linear_case(run, "linear_gelu", gelu, &Operands::y, 1, T, 128, 512, dtype, out);
    linear_case(run, "linear_gelu_backward", gelu_backward, &Operands::dx, 2, T, 128, 512, dtype, out);
    linear_case(run, "linear_residual", residual, &Operands::y, 1, T, 512, 128, dtype, out);
    linear_case(run, "linear", linear, &Operands::y, 1, 50, 128, 384, dtype, out);
  }
  linear_case(run, "linear", linear, &Operands::y, 1, T, 128, 128, DType::f64, DType::f64);
  linear_case(run, "linear_backward", backward, &Operands::dx, 2, T, 128, 128, DType::f64, DType::f64);
  linear_case(run, "linear", linear, &Operands::y, 1, T, 128, 128, DType::bf16, DType::bf16);
});

}  // namespace
}  // namespace lightcone::bench
