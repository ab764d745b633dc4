#include "engine/profiler.h"

#include <fmt/format.h>

#include <algorithm>

namespace lightcone {

void Profiler::clear() {
  rows_.clear();
  events_.clear();
}

Profiler::Time Profiler::now() const {
  if (wait_) wait_();
  return std::chrono::steady_clock::now();
}

void Profiler::add(const char* name, Time start, Time end, double bytes, double flops) {
  Row& row = rows_[name];
  row.name = name;
  ++row.calls;
  row.seconds += std::chrono::duration<double>(end - start).count();
  row.bytes += bytes;
  row.flops += flops;
  events_.push_back({name, start, end, 0});
}

void Profiler::take(Profiler& other) {
  if (other.rows_.empty()) return;
  const int thread = threads_.try_emplace(&other, static_cast<int>(threads_.size()) + 1).first->second;
  for (const auto& [name, from] : other.rows_) {
    Row& row = rows_[name];
    row.name = name;
    row.calls += from.calls;
    row.seconds += from.seconds;
    row.bytes += from.bytes;
    row.flops += from.flops;
  }
  for (Event e : other.events_) {
    e.thread = thread;
    events_.push_back(e);
  }
  other.clear();
}

std::vector<Profiler::Row> Profiler::rows() const {
  std::vector<Row> out;
  for (const auto& [name, row] : rows_) out.push_back(row);
  std::sort(out.begin(), out.end(), [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
  return out;
}

std::string Profiler::table() const {
  std::string text = fmt::format("{:<28} {:>8} {:>10} {:>9} {:>9}\n", "kernel", "calls", "ms", "GB/s", "GFLOP/s");
  for (const Row& r : rows()) {
    auto rate = [&](double amount) {
      return amount > 0 && r.seconds > 0 ? fmt::format("{:.1f}", amount / r.seconds * 1e-9) : "-";
    };
    text += fmt::format("{:<28} {:>8} {:>10.3f} {:>9} {:>9}\n", r.name, r.calls, r.seconds * 1e3, rate(r.bytes),
                        rate(r.flops));
  }
  return text;
}

std::string Profiler::chrome_trace() const {
  std::string text = "{\"traceEvents\":[";
  const Time origin = events_.empty() ? Time{} : std::min_element(events_.begin(), events_.end(), [](auto& a, auto& b) {
                                                   return a.start < b.start;
                                                 })->start;
  auto microseconds = [](auto d) { return std::chrono::duration<double, std::micro>(d).count(); };
  for (size_t i = 0; i < events_.size(); ++i) {
    const Event& e = events_[i];
    text +=
        fmt::format("{}{{\"name\":\"{}\",\"ph\":\"X\",\"pid\":0,\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f}}}",
                    i ? ",\n" : "\n", e.name, e.thread, microseconds(e.start - origin), microseconds(e.end - e.start));
  }
  return text + "\n]}\n";
}

}  // namespace lightcone
