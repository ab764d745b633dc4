// Matrix products by cuBLASLt, on every device that has it.
#include "engine/cublaslt.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

/// One matrix per batch as it is stored, rows `gap` elements apart. Multiples of 1/8 between -2 and 2: every dtype
/// holds them, and every sum of their products is exact.
struct Stored {
  int64_t rows, cols, step, stride;
  Array values;
  Stored(int64_t rows, int64_t cols, int64_t batches, int64_t gap, uint64_t seed)
      : rows(rows),
        cols(cols),
        step(cols + gap),
        stride(rows * step + gap),
        values(uniform({batches * stride}, seed, -2, 2)) {
    for (double& v : values.values) v = std::round(8 * v) / 8;
  }
  double& at(int64_t batch, int64_t row, int64_t col) { return values[batch * stride + row * step + col]; }
  cuda::Factor factor(const Tensor& t, bool transposed, const float* scale = nullptr) const {
    return {t.raw(), transposed, step, stride, scale};
  }
};

/// A product of these types and sizes: that of the GPU, and by its definition.
struct Case {
  DType factors, result;
  int64_t M, N, K;
  bool a_transposed = false, b_transposed = false;
  int64_t batches = 1, gap = 0;
  bool bias = false, add = false, in_place = false, scaled = false;
  cuda::Product::Varies varies = cuda::Product::Varies::rows;
};

/// There without a build for CUDA, too, where no test calls it.
void multiply(Context& ctx, const cuda::Product& p) {
  if constexpr (built_with_cuda) cuda::multiply(ctx, "test", p);
}

void check(Context& ctx, const Case& x) {
  INFO(name_of(x.factors), " to ", name_of(x.result), ", transposed ", x.a_transposed, x.b_transposed, ", ", x.batches,
       " batches, gap ", x.gap, ", bias ", x.bias, ", add ", x.add, ", in place ", x.in_place);
  auto stored = [&](int64_t rows, int64_t cols, bool transposed, uint64_t seed) {
    return Stored(transposed ? cols : rows, transposed ? rows : cols, x.batches, x.gap, seed);
  };
  Stored a = stored(x.M, x.K, x.a_transposed, 1), b = stored(x.K, x.N, x.b_transposed, 2),
         c = stored(x.M, x.N, false, 3), add = stored(x.M, x.N, false, 4);
  Array bias = Stored(1, x.N, 1, 0, 5).values;
  // The bias of a product of fp8 is bf16 whatever the result is.
  const DType of_bias = x.factors == DType::fp8_e4m3 ? DType::bf16 : x.result;
  const Tensor ta = to_tensor(ctx, a.values, x.factors), tb = to_tensor(ctx, b.values, x.factors),
               tbias = to_tensor(ctx, bias, of_bias), tadd = to_tensor(ctx, add.values, x.result);
  Tensor tc = to_tensor(ctx, c.values, x.result), scales = ctx.of({2}, DType::f32, std::vector<double>{0.5, 4});
  const float* scale = x.scaled ? scales.data<float>() : nullptr;
  multiply(ctx, {.M = x.M,
                 .N = x.N,
                 .K = x.K,
                 .factors = x.factors,
                 .result = x.result,
                 .a = a.factor(ta, x.a_transposed, scale),
                 .b = b.factor(tb, x.b_transposed, scale ? scale + 1 : nullptr),
                 .c = tc.raw(),
                 .c_step = c.step,
                 .c_stride = c.stride,
                 .bias = x.bias ? tbias.raw() : nullptr,
                 .add = x.in_place ? tc.raw()
                        : x.add    ? tadd.raw()
                                   : nullptr,
                 .batches = x.batches,
                 .varies = x.varies});
  Array expected = c.values;  // between rows and batches nothing changes
  for (int64_t n = 0; n < x.batches; ++n)
    for (int64_t i = 0; i < x.M; ++i)
      for (int64_t j = 0; j < x.N; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < x.K; ++k)
          sum += (x.a_transposed ? a.at(n, k, i) : a.at(n, i, k)) * (x.b_transposed ? b.at(n, j, k) : b.at(n, k, j));
        if (x.scaled) sum *= 0.5 * 4;
        if (x.bias) sum += bias[j];
        if (x.add || x.in_place) sum += (x.in_place ? c : add).at(n, i, j);
        expected[n * c.stride + i * c.step + j] = sum;
      }
  Context cpu(1);
  CHECK(to_array(tc).values == to_array(to_tensor(cpu, expected, x.result)).values);
}

constexpr cuda::Product::Varies varieties[] = {cuda::Product::Varies::rows, cuda::Product::Varies::terms};

/// Whether a GPU multiplies fp8.
bool has_fp8() {
  const std::string gpu = gpu_text();
  return !gpu.empty() && std::stod(gpu.substr(gpu.rfind(' '))) >= 8.9;
}

}  // namespace

// Every dtype, in rows with gaps, in batches, with what is added.
TEST_CASE("products: sums of products") {
  for (Device device : devices()) {
    if (device == Device::cpu) continue;
    Context ctx(device, 1);
    for (auto [factors, result] : {std::pair{DType::f64, DType::f64}, std::pair{DType::f32, DType::f32},
                                   std::pair{DType::bf16, DType::f32}, std::pair{DType::bf16, DType::bf16}})
      for (int transposed = 0; transposed < 4; ++transposed)
        for (auto [batches, gap] : {std::pair{1, 0}, {1, 3}, {3, 0}, {3, 5}})
          for (int added = 0; added < 4; ++added)
            for (auto varies : varieties)
              check(ctx, {.factors = factors,
                          .result = result,
                          .M = 5,
                          .N = 7,
                          .K = 9,
                          .a_transposed = (transposed & 1) != 0,
                          .b_transposed = (transposed & 2) != 0,
                          .batches = batches,
                          .gap = gap,
                          .bias = added == 1 || added == 3,
                          .add = added == 2,
                          .in_place = added == 3,
                          .varies = varies});
  }
}

TEST_CASE("products: fp8, whose elements may have a scale") {
  for (Device device : devices()) {
    if (device == Device::cpu || !has_fp8()) continue;
    Context ctx(device, 1);
    for (DType result : {DType::f32, DType::bf16})
      for (auto [batches, gap] : {std::pair{1, 0}, {1, 16}, {3, 16}})
        for (int added = 0; added < 4; ++added)
          for (bool scaled : {false, true})
            check(ctx, {.factors = DType::fp8_e4m3,
                        .result = result,
                        .M = 16,
                        .N = 48,
                        .K = 32,
                        .b_transposed = true,
                        .batches = batches,
                        .gap = gap,
                        .bias = added == 1 || added == 3,
                        .add = added == 2,
                        .in_place = added == 3,
                        .scaled = scaled});
  }
}

TEST_CASE("products: tf32 rounds factors where the Context allows it") {
  for (Device device : devices()) {
    if (device == Device::cpu) continue;
    Context ctx(device, 1);
    const double x = 1 + 0x1p-12;  // tf32 keeps 10 bits behind the point
    const int64_t n = 16;
    const Tensor a = ctx.of({n, n}, DType::f32, std::vector<double>(n * n, x));
    Tensor c = ctx.empty({n, n}, DType::f32);
    for (bool tf32 : {false, true, false}) {
      ctx.set_tf32(tf32);
      multiply(ctx, {.M = n,
                     .N = n,
                     .K = n,
                     .factors = DType::f32,
                     .result = DType::f32,
                     .a = {a.raw()},
                     .b = {a.raw(), true},
                     .c = c.raw()});
      // x^2 = 1 + 2^-11 + 2^-24, whose sums in f32 lose less than 1e-6.
      for (double y : to_array(c).values) CHECK(std::abs(y / n - (tf32 ? 1 : x * x)) <= (tf32 ? 0 : 1e-6));
    }
  }
}

TEST_CASE("products: without rows, columns or batches nothing is done") {
  for (Device device : devices()) {
    if (device == Device::cpu) continue;
    Context ctx(device, 1);
    for (int none = 0; none < 3; ++none)
      check(ctx, {.factors = DType::f32,
                  .result = DType::f32,
                  .M = none == 0 ? 0 : 3,
                  .N = none == 1 ? 0 : 4,
                  .K = 5,
                  .batches = none == 2 ? 0 : 2,
                  .gap = 1});
  }
}
