#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lightcone {

/// Time per kernel. Off by default; then a scope costs one branch.
///
///     auto scope = ctx.profiler().scope("layer_norm", bytes, flops);    // until the end of the block
///
/// `bytes` and `flops` are what the kernel must move and compute at least; the table's GB/s and GFLOP/s follow from
/// them. Scopes nest; a row's time includes that of the scopes inside it.
class Profiler {
 public:
  class Scope {
   public:
    Scope(Profiler* profiler, const char* name, double bytes, double flops)
        : profiler_(profiler), name_(name), bytes_(bytes), flops_(flops) {
      if (profiler_) start_ = profiler_->now();
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() {
      if (profiler_) profiler_->add(name_, start_, profiler_->now(), bytes_, flops_);
    }

   private:
    Profiler* profiler_;
    const char* name_;
    double bytes_, flops_;
    std::chrono::steady_clock::time_point start_;
  };

  [[nodiscard]] Scope scope(const char* name, double bytes = 0, double flops = 0) {
    return Scope(on_ ? this : nullptr, name, bytes, flops);
  }

  bool on() const { return on_; }
  void set_on(bool on) { on_ = on; }
  /// From now on a scope begins and ends with a call of `wait`, which waits for the device.
  void wait_by(std::function<void()> wait) { wait_ = std::move(wait); }
  void clear();
  /// Adds what another profiler has recorded, as a thread of its own, and clears that.
  void take(Profiler& other);

  struct Row {
    std::string name;
    int64_t calls = 0;
    double seconds = 0, bytes = 0, flops = 0;
  };
  /// Rows by falling time.
  std::vector<Row> rows() const;
  /// The rows as an aligned table: name, calls, ms, share, GB/s, GFLOP/s.
  std::string table() const;
  /// Chrome trace (chrome://tracing, Perfetto) of all scopes, JSON.
  std::string chrome_trace() const;

 private:
  using Time = std::chrono::steady_clock::time_point;
  Time now() const;
  void add(const char* name, Time start, Time end, double bytes, double flops);
  struct Event {
    const char* name;
    Time start, end;
    int thread;
  };
  bool on_ = false;
  std::function<void()> wait_;
  std::map<std::string, Row> rows_;
  std::vector<Event> events_;
  std::map<const Profiler*, int> threads_;  // the others that were taken: 1, 2, …
};

}  // namespace lightcone
