#include "bench/ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>

#include "engine/threads.h"
#include "kernels/amx.h"

namespace lightcone::bench {
namespace {

template <class F>
double best_seconds(int runs, F&& f) {
  f();
  double best = 1e300;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// Multiply-adds of vector registers that depend on nothing but themselves.
template <class T>
double vector_peak(Context& ctx, int64_t steps) {
  constexpr int lanes = 64 / sizeof(T), chains = 16;
  using Vector [[gnu::vector_size(64)]] = T;
  std::vector<T> sink(ctx.threads());
  const double seconds = best_seconds(5, [&] {
    parallel_chunks(ctx, ctx.threads(), 1, [&](int64_t chunk, int64_t, int64_t) {
      Vector sums[chains];
      for (int i = 0; i < chains; ++i) sums[i] = Vector{} + T(i);  // different, or the compiler computes one
      Vector factor = {}, term = {};
      factor += T(0.5);
      term += T(1) / static_cast<T>(chunk + 1);
      for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 16
        for (Vector& v : sums) v = v * factor + term;
      }
      for (const Vector& v : sums)
        for (int lane = 0; lane < lanes; ++lane) sink[chunk] += v[lane];
    });
  });
  return 2. * lanes * chains * static_cast<double>(steps) * ctx.threads() / seconds;
}

// Products of AMX tiles; without AMX the kernels multiply bf16 in f32, and so does this.
double bf16_peak(Context& ctx, int64_t steps) {
#if defined(__AMX_BF16__)
  if (amx_available()) {
    const double seconds = best_seconds(5, [&] {
      parallel_chunks(ctx, ctx.threads(), 1, [&](int64_t, int64_t, int64_t) {
        constexpr AmxTiles::Shape whole{16, 64};
        const AmxTiles tiles({whole, whole, whole, whole, whole, whole, whole, whole});
        for (int64_t s = 0; s < steps; ++s) {
          _tile_dpbf16ps(0, 4, 6);
          _tile_dpbf16ps(1, 4, 7);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      });
    });
    return 4. * 2 * 16 * 16 * 32 * static_cast<double>(steps) * ctx.threads() / seconds;
  }
#endif
  return vector_peak<float>(ctx, steps);
}

}  // namespace

int64_t last_level_cache() {
  int64_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/size", index));
    int64_t size = 0;
    char unit = 0;
    if (file >> size >> unit) largest = std::max(largest, size * (unit == 'M' ? int64_t{1} << 20 : 1024));
  }
  return largest ? largest : int64_t{32} << 20;
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

double copy_bandwidth(Context& ctx, int64_t bytes) {
  Tensor from = ctx.zeros({bytes}, DType::i8), to = ctx.zeros({bytes}, DType::i8);
  const double seconds = best_seconds(5, [&] {
    parallel_chunks(ctx, bytes, int64_t{4} << 20, [&](int64_t, int64_t begin, int64_t end) {
      std::memcpy(to.data<int8_t>() + begin, from.data<int8_t>() + begin, end - begin);
    });
  });
  return 2. * bytes / seconds;
}

double gemm_peak(Context& ctx, DType dtype, bool quick) {
  const int64_t steps = quick ? 10'000 : 1'000'000;
  if (dtype == DType::f64) return vector_peak<double>(ctx, steps);
  if (dtype == DType::bf16) return bf16_peak(ctx, steps);
  // f32 goes through the same tiles, six products for one.
  return amx_available() ? bf16_peak(ctx, steps) / 6 : vector_peak<float>(ctx, steps);
}

}  // namespace lightcone::bench
