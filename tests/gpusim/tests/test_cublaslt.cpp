#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "lt_fixture.h"

// What cublasLtMatmul computes, against sums in double that are exact: every type, layout and epilogue.

using namespace lt_test;

namespace {

struct Case {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scale = CUDA_R_32F, a = CUDA_R_32F, b = a, c = a, d = a, bias = a;
  bool transpose_a = true, transpose_b = false;
  bool rows_a = false, rows_b = false, rows_d = false;  // row order
  int m = 32, n = 16, k = 48, pad = 0, batch = 1;
  double alpha = 0.75, beta = -0.5;
  bool in_place = false, factors_on_device = false;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  bool broadcast_a = false, broadcast_c = false;  // one A for the batch, one column of C for all
  std::optional<double> scale_a, scale_b, scale_d, scale_aux;
  bool amax = false;
};

bool has(const Case& x, uint32_t bits) { return x.epilogue != CUBLASLT_EPILOGUE_DEFAULT && (x.epilogue & bits); }

double gelu(double x) { return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double gelu_slope(double x) { return (gelu(x + 1e-6) - gelu(x - 1e-6)) / 2e-6; }

/// Largest error of a result of GELU: a bit more than a rounding, beyond which it would be the other formula.
double tolerance(cudaDataType type, double x) {
  const double relative = type == CUDA_R_64F    ? 1e-8
                          : type == CUDA_R_32F  ? 2e-6
                          : type == CUDA_R_16F  ? 1e-3
                          : type == CUDA_R_16BF ? 8e-3
                                                : 0.07;
  return relative * std::fabs(x) + (type == CUDA_R_64F ? 1e-9 : size_of(type) == 1 ? 0.01 : 1e-6);
}

std::vector<uint8_t> factor(cudaDataType type, double x) {
  std::vector<uint8_t> bytes(8);
  put(type, bytes.data(), x);
  return bytes;
}

/// Runs a case and compares all that it writes.
void check(const Case& x) {
  INFO(fmt::format("types {} {} {} {}, epilogue {}", int(x.a), int(x.b), int(x.c), int(x.d), x.epilogue));
  std::mt19937 random(7);
  const bool t = x.transpose_a;
  Matrix a(x.a, t ? x.k : x.m, t ? x.m : x.k, x.pad, x.batch, x.rows_a);
  Matrix b(x.b, x.transpose_b ? x.n : x.k, x.transpose_b ? x.k : x.n, 2 * x.pad, x.batch, x.rows_b);
  Matrix c(x.c, x.m, x.n, x.in_place ? x.pad : 3 * x.pad, x.batch, x.rows_d),
      d(x.d, x.m, x.n, x.pad, x.batch, x.rows_d);
  Matrix aux(x.d, x.m, x.n, (8 - x.m % 8) % 8 + 8, x.batch), bias(x.bias, std::max(x.m, x.n), 1, 0, x.batch);
  const int mask_ld = (x.m + 127) / 128 * 128;
  std::vector<uint8_t> mask(size_t(mask_ld / 8 * x.n * x.batch));
  a.fill(random), b.fill(random), c.fill(random), bias.fill(random, 20), aux.fill(random, 5);
  for (uint8_t& bits : mask) bits = uint8_t(random());
  const bool is_mask = has(x, CUBLASLT_EPILOGUE_RELU | 8), backward = has(x, 8 | 64), with_aux = has(x, 128);
  const bool writes_bias = has(x, 16 | 256 | 512);

  Buffer da(a), db(b), dc(c), dd(d.bytes);
  Buffer dbias = writes_bias ? Buffer(bias.bytes.size()) : Buffer(bias.bytes);
  Buffer daux = is_mask ? Buffer(mask) : Buffer(aux.bytes);
  Buffer sa(float(x.scale_a.value_or(1))), sb(float(x.scale_b.value_or(1))), sd(float(x.scale_d.value_or(1))),
      amax(sizeof(float));
  Buffer saux(float(x.scale_aux.value_or(1))), amax_aux(sizeof(float));
  const auto alpha = factor(x.scale, x.alpha), beta = factor(x.scale, x.beta);
  Buffer dalpha(alpha), dbeta(beta);

  Handle handle;
  Descriptor op(x.compute, x.scale);
  op.set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t(t ? CUBLAS_OP_T : CUBLAS_OP_N));
  op.set(CUBLASLT_MATMUL_DESC_TRANSB, int32_t(x.transpose_b ? CUBLAS_OP_C : CUBLAS_OP_N));
  op.set(CUBLASLT_MATMUL_DESC_EPILOGUE, x.epilogue);
  if (x.factors_on_device) op.set(CUBLASLT_MATMUL_DESC_POINTER_MODE, int32_t(CUBLASLT_POINTER_MODE_DEVICE));
  if (x.scale_a) op.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, sa.get<float>());
  if (x.scale_b) op.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, sb.get<float>());
  if (x.scale_d) op.set(CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, sd.get<float>());
  if (x.scale_aux) op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_POINTER, saux.get<float>());
  if (x.scale_aux) op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_AMAX_POINTER, amax_aux.get<float>());
  if (x.amax) op.set(CUBLASLT_MATMUL_DESC_AMAX_D_POINTER, amax.get<float>());
  if (writes_bias || has(x, CUBLASLT_EPILOGUE_BIAS)) {
    op.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, dbias.get());
    op.set(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, int64_t(bias.stride()));
    op.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(x.bias));
  }
  if (with_aux) {
    op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, daux.get());
    op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t(is_mask ? mask_ld : aux.ld));
    op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, int64_t(is_mask ? mask_ld * x.n : aux.stride()));
  }
  Layout la(a), lb(b), lc(c), ld(d);
  if (x.broadcast_a) la.set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, int64_t{0});
  if (x.broadcast_c) lc.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{0});
  Buffer& source = x.in_place ? dd : dc;
  if (x.in_place) dd = Buffer(c.bytes), d.bytes = c.bytes;
  const auto on = [&](const Buffer& device, const std::vector<uint8_t>& host) {
    return x.factors_on_device ? device.get<const void>() : host.data();
  };
  REQUIRE(cublasLtMatmul(handle, op, on(dalpha, alpha), da.get(), la, db.get(), lb, on(dbeta, beta), source.get(), lc,
                         dd.get(), ld, nullptr, nullptr, 0, nullptr) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(findings().empty());

  const Matrix before = d;
  d.bytes = dd.read<uint8_t>(d.bytes.size());
  Matrix aux_after = aux, bias_after = bias;
  if (with_aux && !is_mask) aux_after.bytes = daux.read<uint8_t>(aux.bytes.size());
  const auto mask_after = is_mask ? daux.read<uint8_t>(mask.size()) : mask;
  std::vector<double> sums(size_t(std::max(x.m, x.n)));
  double largest = 0, largest_aux = 0;
  int wrong = 0;
  const auto same = [&](double got, double expected) { wrong += !(got == expected); };
  for (int batch = 0; batch < x.batch; ++batch) {
    std::fill(sums.begin(), sums.end(), 0);
    for (int j = 0; j < x.n; ++j)
      for (int i = 0; i < x.m; ++i) {
        double sum = 0;
        for (int l = 0; l < x.k; ++l) {
          const int from = x.broadcast_a ? 0 : batch;
          const double left = t ? a(from, l, i) : a(from, i, l);
          const double right = x.transpose_b ? b(batch, j, l) : b(batch, l, j);
          sum += left * right;
          if (has(x, 256) && j == 0) sums[size_t(i)] += left;
          if (has(x, 512) && i == 0) sums[size_t(j)] += right;
        }
        double v =
            x.alpha * x.scale_a.value_or(1) * x.scale_b.value_or(1) * sum + x.beta * c(batch, i, x.broadcast_c ? 0 : j);
        if (has(x, CUBLASLT_EPILOGUE_BIAS)) v += bias(batch, i, 0);
        const size_t bit = size_t(batch * mask_ld * x.n + j * mask_ld + i);
        if (with_aux && !backward && is_mask) same(mask_after[bit / 8] >> (bit % 8) & 1, v > 0);
        if (with_aux && !backward && !is_mask) same(aux_after(batch, i, j), rounded(x.d, v * x.scale_aux.value_or(1)));
        largest_aux = std::fmax(largest_aux, std::fabs(v));
        if (has(x, CUBLASLT_EPILOGUE_RELU)) v = std::fmax(v, 0);
        if (has(x, CUBLASLT_EPILOGUE_GELU)) v = gelu(v);
        if (has(x, 8) && !(mask[bit / 8] >> (bit % 8) & 1)) v = 0;
        if (has(x, 64)) v *= gelu_slope(aux(batch, i, j));
        if (has(x, 16)) sums[size_t(i)] += v;
        largest = std::fmax(largest, std::fabs(v));
        v *= x.scale_d.value_or(1);
        if (has(x, CUBLASLT_EPILOGUE_GELU | 64))
          wrong += !(std::fabs(d(batch, i, j) - v) <= tolerance(x.d, v));
        else
          same(d(batch, i, j), rounded(x.d, v));
      }
    if (writes_bias) {
      const int length = has(x, 512) ? x.n : x.m;
      Buffer& from = dbias;
      std::vector<uint8_t> got(size_t(length * size_of(x.bias)));
      REQUIRE(cudaMemcpy(got.data(), from.get(size_t(batch * bias.stride() * size_of(x.bias))), got.size(),
                         cudaMemcpyDeviceToHost) == cudaSuccess);
      for (int i = 0; i < length; ++i) {
        const double sum = get(x.bias, got.data() + i * size_of(x.bias));
        wrong += !(std::fabs(sum - rounded(x.bias, sums[size_t(i)])) <= (has(x, 64) ? tolerance(x.bias, sum) * 4 : 0));
      }
    }
  }
  CHECK(wrong == 0);
  if (x.amax) CHECK(amax.value() == float(largest));
  if (x.scale_aux) CHECK(amax_aux.value() == float(largest_aux));
  // What lies between D's columns is as it was.
  int touched = 0;
  for (size_t i = 0; i < d.bytes.size(); ++i)
    touched += int(i / size_t(size_of(x.d))) % d.ld >= d.length() && d.bytes[i] != before.bytes[i];
  CHECK(touched == 0);
}

Case of(cublasComputeType_t compute, cudaDataType scale, cudaDataType ab, cudaDataType cd) {
  Case x;
  x.compute = compute, x.scale = scale, x.a = x.b = ab, x.c = x.d = x.bias = cd;
  return x;
}

Case fp8(cudaDataType a, cudaDataType b, cudaDataType c, cudaDataType d) {
  Case x;
  x.a = a, x.b = b, x.c = c, x.d = d, x.bias = c == CUDA_R_32F ? CUDA_R_16BF : c;
  x.scale_a = 0.5, x.scale_b = 4;
  if (size_of(d) == 1) x.scale_d = 0.25, x.amax = true;
  return x;
}

const uint32_t epilogues[] = {
    CUBLASLT_EPILOGUE_RELU,        CUBLASLT_EPILOGUE_BIAS,          CUBLASLT_EPILOGUE_RELU_BIAS,
    CUBLASLT_EPILOGUE_RELU_AUX,    CUBLASLT_EPILOGUE_RELU_AUX_BIAS, CUBLASLT_EPILOGUE_DRELU,
    CUBLASLT_EPILOGUE_DRELU_BGRAD, CUBLASLT_EPILOGUE_GELU,          CUBLASLT_EPILOGUE_GELU_BIAS,
    CUBLASLT_EPILOGUE_GELU_AUX,    CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU,
    CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,        CUBLASLT_EPILOGUE_BGRADB};

}  // namespace

TEST_CASE("cublasLt: every combination of types") {
  check(of(CUBLAS_COMPUTE_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F));
  check(of(CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F));
  check(of(CUBLAS_COMPUTE_32F_PEDANTIC, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F));
  check(of(CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F));
  for (const cudaDataType half : {CUDA_R_16F, CUDA_R_16BF})
    for (const cudaDataType result : {half, CUDA_R_32F}) check(of(CUBLAS_COMPUTE_32F, CUDA_R_32F, half, result));
  Case s32 = of(CUBLAS_COMPUTE_32I, CUDA_R_32I, CUDA_R_8I, CUDA_R_32I);
  s32.alpha = 3, s32.beta = -2;
  check(s32);
  Case s8 = of(CUBLAS_COMPUTE_32I, CUDA_R_32F, CUDA_R_8I, CUDA_R_8I);
  s8.alpha = 2.5;  // ties, and values beyond 127
  check(s8);
}

TEST_CASE("cublasLt: fp8") {
  if (!has_fp8()) return;  // refused: see the rules
  const std::pair<cudaDataType, cudaDataType> inputs[] = {
      {CUDA_R_8F_E4M3, CUDA_R_8F_E4M3}, {CUDA_R_8F_E4M3, CUDA_R_8F_E5M2}, {CUDA_R_8F_E5M2, CUDA_R_8F_E4M3}};
  for (const auto& [a, b] : inputs) {
    for (const cudaDataType result : {CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F}) {
      check(fp8(a, b, result, result));
      Case biased = fp8(a, b, result, result);
      biased.epilogue = CUBLASLT_EPILOGUE_RELU_BIAS;
      check(biased);
    }
    for (const cudaDataType c : {CUDA_R_16BF, CUDA_R_16F})
      for (const cudaDataType d : {CUDA_R_8F_E4M3, CUDA_R_8F_E5M2}) {
        if (d == CUDA_R_8F_E5M2 && a == b) continue;
        Case x = fp8(a, b, c, d);
        check(x);
        x.alpha = -x.alpha, x.beta = -x.beta;  // now the largest magnitude has the other sign
        check(x);
        x.scale_d = 64;  // beyond the largest
        check(x);
        x.scale_d = 0.00390625;  // below the least normal one
        check(x);
        x.batch = 2, x.pad = 16, x.epilogue = CUBLASLT_EPILOGUE_BIAS;
        check(x);
      }
  }
  Case x = fp8(CUDA_R_8F_E4M3, CUDA_R_8F_E4M3, CUDA_R_16BF, CUDA_R_8F_E4M3);
  x.scale_d = {}, x.amax = false, x.scale_aux = 0.125, x.epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  check(x);
}

TEST_CASE("cublasLt: transpositions, orders, leading dimensions, batches") {
  for (const cudaDataType type : {CUDA_R_32F, CUDA_R_16BF, CUDA_R_64F})
    for (int bits = 0; bits < 32; ++bits) {
      const bool f64 = type == CUDA_R_64F;
      Case x = of(f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, f64 ? CUDA_R_64F : CUDA_R_32F, type, type);
      x.transpose_a = bits & 1, x.transpose_b = bits & 2;
      x.rows_a = bits & 4, x.rows_b = bits & 8, x.rows_d = bits & 16;
      x.m = 37, x.n = 9, x.k = 11, x.pad = 3, x.batch = 3;
      check(x);
      x.in_place = true, x.factors_on_device = true, x.pad = 0;
      check(x);
    }
  Case x;
  x.m = x.n = x.k = 1;
  check(x);
  Case broadcast;
  broadcast.batch = 3, broadcast.broadcast_a = broadcast.broadcast_c = true;
  check(broadcast);
  broadcast.broadcast_c = false, broadcast.rows_d = true, broadcast.epilogue = CUBLASLT_EPILOGUE_RELU;
  check(broadcast);
}

TEST_CASE("cublasLt: every epilogue") {
  for (const uint32_t epilogue : epilogues)
    for (const cudaDataType type : {CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F, CUDA_R_64F}) {
      const bool f64 = type == CUDA_R_64F;
      Case x = of(f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, f64 ? CUDA_R_64F : CUDA_R_32F, type, type);
      x.epilogue = epilogue, x.m = 37, x.n = 10, x.k = 8, x.batch = 2;
      if (epilogue & 64) x.alpha = 0.0625, x.beta = 0.03125;
      check(x);
      if (size_of(type) > 2) continue;
      x.c = x.d = x.bias = CUDA_R_32F;
      check(x);
    }
}

TEST_CASE("cublasLt: sums run up k in f32, each step fused, whatever the shape") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const int m = 45, n = 7, k = 1000;
  Matrix a(CUDA_R_32F, m, k), b(CUDA_R_32F, k, n), d(CUDA_R_32F, m, n);
  for (int l = 0; l < k; ++l) {
    for (int i = 0; i < m; ++i) a.set(0, i, l, normal(random));
    for (int j = 0; j < n; ++j) b.set(0, l, j, normal(random));
  }
  Buffer da(a), db(b), dd(d.bytes.size());
  Handle handle;
  Layout la(a), lb(b), ld(d);
  const float one = 1, zero = 0;
  for (const auto compute : {CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32}) {
    Descriptor op(compute, CUDA_R_32F);
    REQUIRE(cublasLtMatmul(handle, op, &one, da.get(), la, db.get(), lb, &zero, nullptr, ld, dd.get(), ld, nullptr,
                           nullptr, 0, nullptr) == CUBLAS_STATUS_SUCCESS);
    d.bytes = dd.read<uint8_t>(d.bytes.size());
    const auto tf32 = [&](double x) {  // 11 bits of mantissa with the leading one
      if (compute == CUBLAS_COMPUTE_32F || x == 0) return float(x);
      const double unit = std::exp2(std::ilogb(x) - 10);
      return float(std::nearbyint(x / unit) * unit);
    };
    int wrong = 0;
    for (int j = 0; j < n; ++j)
      for (int i = 0; i < m; ++i) {
        float sum = 0;
        for (int l = 0; l < k; ++l) sum = std::fma(tf32(a(0, i, l)), tf32(b(0, l, j)), sum);
        wrong += d(0, i, j) != sum;
      }
    CHECK(wrong == 0);
    CHECK(findings().empty());
  }
}

TEST_CASE("cublasLt: host factors are read at the call, device factors when it runs") {
  Matrix a(CUDA_R_32F, 8, 8);
  std::mt19937 random(1);
  a.fill(random);
  Handle handle;
  Layout l(a);
  for (const bool on_device : {false, true}) {
    Buffer da(a), dd(a.bytes.size()), dalpha(1.f), dbeta(0.f);
    Descriptor op(CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (on_device) op.set(CUBLASLT_MATMUL_DESC_POINTER_MODE, int32_t(CUBLASLT_POINTER_MODE_DEVICE));
    float alpha = 1, beta = 0;
    cudaStream_t stream;
    REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
    const float two = 2;
    if (on_device)
      REQUIRE(cudaMemcpyAsync(dalpha.get(), &two, sizeof two, cudaMemcpyHostToDevice, stream) == cudaSuccess);
    // beta is 0, on the host or the device: C, which nobody has written, is not read.
    Buffer dc(a.bytes.size());
    REQUIRE(cublasLtMatmul(handle, op, on_device ? dalpha.get<void>() : &alpha, da.get(), l, da.get(), l,
                           on_device ? dbeta.get<void>() : &beta, dc.get(), l, dd.get(), l, nullptr, nullptr, 0,
                           stream) == CUBLAS_STATUS_SUCCESS);
    alpha = 100, beta = 100;
    CHECK(findings().empty());
    double sum = 0;
    for (int k = 0; k < 8; ++k) sum += a(0, 3, k) * a(0, k, 5);
    CHECK(dd.read<float>(64)[5 * 8 + 3] == float(on_device ? 2 * sum : sum));
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  }
}
