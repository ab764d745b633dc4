#include "kernels/random.h"

#include "engine/check.h"
#include "engine/threads.h"

namespace lightcone::kernels {

namespace cpu {
constexpr int64_t grain = 16384;  // a multiple of 4

template <class T, class F>
void fill(Context& ctx, int64_t n, T* y, F number) {
  parallel_chunks(ctx, n, grain / 4, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = T(number(i));
  });
}

// philox() for `lanes` counters that follow each other, with the lanes inside so that it vectorises: word w of counter
// k in words[w][k].
constexpr int64_t lanes = 64;
void philox_lanes(const Draw& draw, uint64_t counter, uint32_t (&words)[4][lanes]) {
  auto& [c0, c1, c2, c3] = words;
  for (int64_t k = 0; k < lanes; ++k) {
    c0[k] = static_cast<uint32_t>(counter + k), c1[k] = static_cast<uint32_t>((counter + k) >> 32);
    c2[k] = static_cast<uint32_t>(draw.position), c3[k] = static_cast<uint32_t>(draw.position >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(draw.key), k1 = static_cast<uint32_t>(draw.key >> 32);
  for (int round = 0; round < philox_rounds; ++round) {
#pragma omp simd
    for (int64_t k = 0; k < lanes; ++k) philox_round(c0[k], c1[k], c2[k], c3[k], k0, k1);
    k0 += philox_key_step0;
    k1 += philox_key_step1;
  }
}

template <class T, class Sum = sum_type<T>>
void dropout(Context& ctx, const Draw& draw, double p, int64_t n, const T* x, T* y) {
  const Sum scale = static_cast<Sum>(1 / (1 - p));
  auto keep = [scale](const T& value, bool kept) { return kept ? T(Sum(value) * scale) : T(0); };
  if (draw.recorded) {
    parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = keep(x[i], draw.uniform(i) >= p);
    });
    return;
  }
  // u >= p for u = word / 2^32.
  const auto threshold = static_cast<uint64_t>(std::ceil(p * 0x1p32));
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    uint32_t words[4][lanes];
    bool kept[4 * lanes];
    for (int64_t i = begin; i < end; i += 4 * lanes) {
      philox_lanes(draw, static_cast<uint64_t>(i) / 4, words);
      for (int64_t k = 0; k < lanes; ++k)
        for (int64_t w = 0; w < 4; ++w) kept[4 * k + w] = words[w][k] >= threshold;
      const int64_t count = std::min(4 * lanes, end - i);
      for (int64_t k = 0; k < count; ++k) y[i + k] = keep(x[i + k], kept[k]);
    }
  });
}
}  // namespace cpu

namespace cuda {  // random.cu
void fill(Context& ctx, const char* where, bool normal, const Draw& draw, double base, double factor, Tensor& y);
void dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y);
}  // namespace cuda

static void check_recorded(const char* operation, const Draw& draw, const Tensor& y) {
  if (draw.recorded && static_cast<int64_t>(draw.recorded->size()) < y.numel())
    fail(operation, "{} recorded numbers for {} elements", draw.recorded->size(), y.numel());
}

void fill_uniform(Context& ctx, const Draw& draw, double low, double high, Tensor& y) {
  check(ctx, "fill_uniform", "y", y).compute();
  check_recorded("fill_uniform", draw, y);
  const auto scope = ctx.profiler().scope("fill_uniform", y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::fill(ctx, "fill_uniform", false, draw, low, high - low, y);
  dispatch_compute("fill_uniform", y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::fill(ctx, y.numel(), y.data<T>(), [&](int64_t i) { return low + (high - low) * draw.uniform53(i); });
  });
}

void fill_normal(Context& ctx, const Draw& draw, double mean, double deviation, Tensor& y) {
  check(ctx, "fill_normal", "y", y).compute();
  check_recorded("fill_normal", draw, y);
  const auto scope = ctx.profiler().scope("fill_normal", y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::fill(ctx, "fill_normal", true, draw, mean, deviation, y);
  dispatch_compute("fill_normal", y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::fill(ctx, y.numel(), y.data<T>(), [&](int64_t i) { return mean + deviation * draw.normal(i); });
  });
}

void dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y) {
  check(ctx, "dropout", "x", x).compute();
  check(ctx, "dropout", "y", y).like(x);
  if (!(p >= 0 && p < 1)) fail("dropout", "p is {}, expected 0 <= p < 1", p);
  check_recorded("dropout", draw, x);
  const auto scope = ctx.profiler().scope("dropout", 2. * x.bytes(), x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::dropout(ctx, draw, p, x, y);
  dispatch_compute("dropout", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::dropout(ctx, draw, p, x.numel(), x.data<T>(), y.data<T>());
  });
}

}  // namespace lightcone::kernels
