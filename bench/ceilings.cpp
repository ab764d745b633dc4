#include "bench/ceilings.h"

#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <dnnl.hpp>
#include <fstream>

#include "engine/threads.h"

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

double f32_peak(int64_t n) {
  std::vector<float> a(n * n, 0.5f), b(n * n, 0.25f), c(n * n);
  const double seconds =
      best_seconds(10, [&] { dnnl_sgemm('N', 'N', n, n, n, 1.f, a.data(), n, b.data(), n, 0.f, c.data(), n); });
  return 2. * n * n * n / seconds;
}

double bf16_peak(int64_t n) {
  using Memory = dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const Memory::desc any({n, n}, Memory::data_type::bf16, Memory::format_tag::any);
  const Memory::desc result({n, n}, Memory::data_type::f32, Memory::format_tag::ab);
  try {
    const dnnl::matmul::primitive_desc description({any, any, result}, engine);
    const dnnl::matmul product(description);
    Memory a(description.src_desc(), engine), b(description.weights_desc(), engine), c(result, engine);
    for (Memory& m : {std::ref(a), std::ref(b)}) std::memset(m.get_data_handle(), 0, m.get_desc().get_size());
    const double seconds = best_seconds(10, [&] {
      product.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
      stream.wait();
    });
    return 2. * n * n * n / seconds;
  } catch (const dnnl::error&) {
    return f32_peak(n);  // no bf16 on this CPU: the kernels compute in f32 then, too
  }
}

double f64_peak(Context& ctx) {
  constexpr int lanes = 8, chains = 16;
  constexpr int64_t steps = 2'000'000;
  using Vector [[gnu::vector_size(lanes * sizeof(double))]] = double;
  std::vector<double> sink(ctx.threads());
  const double seconds = best_seconds(3, [&] {
    parallel_chunks(ctx, ctx.threads(), 1, [&](int64_t chunk, int64_t, int64_t) {
      Vector sums[chains];
      for (int i = 0; i < chains; ++i) sums[i] = Vector{} + i;  // different, or the compiler computes one
      Vector factor = {}, term = {};
      factor += 0.5;
      term += 1.0 / static_cast<double>(chunk + 1);
      for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 16
        for (Vector& v : sums) v = v * factor + term;
      }
      for (const Vector& v : sums)
        for (int lane = 0; lane < lanes; ++lane) sink[chunk] += v[lane];
    });
  });
  return 2. * lanes * chains * steps * ctx.threads() / seconds;
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

double gemm_peak(Context& ctx, DType dtype, int64_t n) {
  if (dtype == DType::f64) return f64_peak(ctx);
  const int before = omp_get_max_threads();
  omp_set_num_threads(ctx.threads());
  const double peak = dtype == DType::bf16 ? bf16_peak(n) : f32_peak(n);
  omp_set_num_threads(before);
  return peak;
}

}  // namespace lightcone::bench
