#include "bench/harness.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>

#include "bench/ceilings.h"
#include "kernels/elementwise.h"
#include "version.h"

namespace lightcone::bench {
namespace {

std::vector<void (*)(Runner&)>& families() {
  static std::vector<void (*)(Runner&)> all;
  return all;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

const char* name_of(Ceiling c) { return c == Ceiling::copy ? "copy" : "gemm"; }

}  // namespace

Family::Family(void (*cases)(Runner&)) { families().push_back(cases); }

void run_all(Runner& runner) {
  for (auto* cases : families()) cases(runner);
}

Runner::Runner(const Options& options) : options_(options), ctx_(options.threads) {}

double Runner::ceiling(Ceiling kind, DType dtype) {
  const std::string key = kind == Ceiling::copy ? "copy" : fmt::format("gemm {}", dtype);
  for (const auto& [name, value] : ceilings_)
    if (name == key) return value;
  const double value = kind == Ceiling::copy ? copy_bandwidth(ctx_, options_.quick ? 1 << 24 : 2 * last_level_cache())
                                             : gemm_peak(ctx_, dtype, options_.quick);
  fmt::print("{:<44} {:>11.1f} G{}/s\n", "ceiling: " + key, value * 1e-9, kind == Ceiling::copy ? "B" : "FLOP");
  ceilings_.emplace_back(key, value);
  return value;
}

void Runner::operator()(const Case& c) {
  if (c.name.find(options_.filter) == std::string::npos) return;
  Result r{.name = c.name, .tolerance = c.tolerance, .ceiling = c.ceiling};
  r.error = c.error();
  r.ok = r.error <= c.tolerance;
  if (!r.ok) {
    fmt::print("{:<44} WRONG: off by {:.3g}, tolerance {:.3g}\n", c.name, r.error, c.tolerance);
    results_.push_back(r);
    return;
  }
  const double best = ceiling(c.ceiling, c.dtype);

  const int64_t before = ctx_.allocator().statistics().in_use;
  std::vector<std::function<void()>> sets = {c.make()};
  const int64_t set_bytes = std::max<int64_t>(1, ctx_.allocator().statistics().in_use - before);
  const int64_t wanted = options_.quick ? 2 : std::clamp<int64_t>(2 * last_level_cache() / set_bytes, 2, 1024);
  while (static_cast<int64_t>(sets.size()) < wanted) sets.push_back(c.make());

  const int64_t least_runs = options_.quick ? 3 : 20;
  const double least_seconds = options_.quick ? 0 : 0.2;
  // Warm-up of every set: the first write to a result's pages is the system's work, not the kernel's.
  for (auto& set : sets) set();
  std::vector<double> seconds;
  for (double start = now(); static_cast<int64_t>(seconds.size()) < least_runs || now() - start < least_seconds;) {
    const double begin = now();
    sets[seconds.size() % sets.size()]();
    seconds.push_back(now() - begin);
  }
  std::sort(seconds.begin(), seconds.end());
  auto quantile = [&](double q) { return seconds[static_cast<size_t>(q * static_cast<double>(seconds.size() - 1))]; };
  r.runs = static_cast<int64_t>(seconds.size());
  r.median = quantile(0.5);
  r.spread = (quantile(0.9) - quantile(0.1)) / (2 * r.median);
  r.bytes_per_second = c.bytes / r.median;
  r.flops_per_second = c.flops / r.median;
  r.share = (c.ceiling == Ceiling::copy ? r.bytes_per_second : r.flops_per_second) / best;
  const std::string rate = c.flops > 0 ? fmt::format("{:.1f} GFLOP/s", r.flops_per_second * 1e-9) : "";
  fmt::print("{:<44} {:>9.1f} µs ± {:>2.0f} % {:>7.1f} GB/s {:>16} {:>4.0f} % of {}\n", r.name, r.median * 1e6,
             r.spread * 100, r.bytes_per_second * 1e-9, rate, r.share * 100, name_of(c.ceiling));
  std::fflush(stdout);
  results_.push_back(r);
}

void Runner::operator()(const KernelCase& c) {
  double bytes = static_cast<double>(c.shape.numel() * size_of(c.dtype));
  for (const Tensor& x : c.operands()) bytes += static_cast<double>(x.bytes());
  (*this)({.name = c.name,
           .dtype = c.dtype,
           .bytes = bytes,
           .flops = c.flops,
           .error =
               [&] {
                 std::vector<Tensor> x = c.operands();
                 std::vector<std::vector<double>> numbers;
                 for (const Tensor& operand : x) {
                   numbers.emplace_back();
                   if (operand.dtype() == DType::i32 || operand.dtype() == DType::i64) continue;
                   const Tensor wide = converted(ctx_, operand, DType::f64);
                   numbers.back().assign(wide.span<double>().begin(), wide.span<double>().end());
                 }
                 Tensor y = empty(c.shape, c.dtype);
                 c.kernel(x, y);
                 std::vector<double> expected(c.shape.numel());
                 c.naive(numbers, expected);
                 return relative_error(y, ctx_.of(c.shape, DType::f64, expected));
               },
           .tolerance = c.tolerance > 0 ? c.tolerance : tolerance(c.dtype),
           .make = [&]() -> std::function<void()> {
             return [x = c.operands(), y = empty(c.shape, c.dtype), kernel = c.kernel]() mutable { kernel(x, y); };
           }});
}

nlohmann::json Runner::json() const {
  const std::time_t time = std::time(nullptr);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&time));
  nlohmann::json out = {{"commit", LIGHTCONE_COMMIT}, {"version", LIGHTCONE_VERSION}, {"arch", LIGHTCONE_ARCH},
                        {"cpu", cpu_model()},         {"threads", ctx_.threads()},    {"date", date},
                        {"quick", options_.quick}};
  out["ceilings"] = nlohmann::json::object();
  for (const auto& [name, value] : ceilings_) out["ceilings"][name] = value;
  out["results"] = nlohmann::json::array();
  for (const Result& r : results_) {
    nlohmann::json entry = {{"name", r.name}, {"ok", r.ok}, {"error", r.error}, {"tolerance", r.tolerance}};
    if (r.ok)
      entry.update({{"runs", r.runs},
                    {"median_seconds", r.median},
                    {"spread", r.spread},
                    {"bytes_per_second", r.bytes_per_second},
                    {"flops_per_second", r.flops_per_second},
                    {"ceiling", name_of(r.ceiling)},
                    {"share", r.share}});
    out["results"].push_back(std::move(entry));
  }
  return out;
}

Tensor Runner::normal(Shape shape, DType dtype, uint64_t seed) {
  constexpr int64_t period = 4096;
  const Draw draw = Rng(seed).draw("normal", period);
  std::vector<double> numbers(std::min(period, shape.numel()));
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = draw.normal(static_cast<int64_t>(i));
  Tensor t = ctx_.empty(shape, dtype);
  dispatch_compute("bench", dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const std::vector<T> block(numbers.begin(), numbers.end());
    for (int64_t i = 0; i < t.numel(); i += period)
      std::copy_n(block.begin(), std::min(period, t.numel() - i), t.data<T>() + i);
  });
  return t;
}

double relative_error(const Tensor& a, const Tensor& b) {
  double error = 0, largest = 0;
  dispatch_compute("bench", a.dtype(), [&](auto type_a) {
    dispatch_compute("bench", b.dtype(), [&](auto type_b) {
      const auto* x = a.template data<typename decltype(type_a)::type>();
      const auto* y = b.template data<typename decltype(type_b)::type>();
      for (int64_t i = 0; i < b.numel(); ++i) {
        const double difference = std::abs(static_cast<double>(x[i]) - static_cast<double>(y[i]));
        if (!(difference <= error))
          error = std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
        largest = std::max(largest, std::abs(static_cast<double>(y[i])));
      }
    });
  });
  return error / (largest > 0 ? largest : 1);
}

Tensor converted(Context& ctx, const Tensor& t, DType dtype) {
  Tensor out = ctx.empty(t.shape(), dtype);
  kernels::cast(ctx, t, out);
  return out;
}

double tolerance(DType dtype) { return dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 2e-5 : 3e-2; }

}  // namespace lightcone::bench
