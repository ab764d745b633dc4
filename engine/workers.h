#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <vector>

#include "engine/threads.h"

namespace lightcone {

/// Threads for work that falls into independent parts (the jets of a batch), one Context each: kernels inside a part
/// run on its thread alone, its tensors stay in that core's cache, and nobody waits between kernels.
///
///     Workers workers(ctx);
///     workers.run(parts, [&](Context& own, int64_t part) { return …; },
///                        [&](int64_t part, Result result) { … });   // in order of the parts, one at a time
///
/// What the parts compute, and the order in which results are taken, do not depend on the number of threads. A single
/// part runs on the main Context with all its threads; where that is on a GPU all do, one after the other.
class Workers {
 public:
  /// As many as the main Context has threads; it must live longer.
  explicit Workers(Context& main) : main_(main) {
    for (int i = 0; main.device() == Device::cpu && i < main.threads(); ++i)
      contexts_.push_back(std::make_unique<Context>(1, main.rng().seed()));
  }

  Context& main() { return main_; }

  /// Rethrows the first exception (by part); later parts are then left out.
  template <class Work, class Take>
  void run(int64_t parts, Work&& work, Take&& take) {
    if (parts <= 0) return;
    if (parts == 1 || contexts_.empty()) {
      for (int64_t part = 0; part < parts; ++part) take(part, work(main_, part));
      return;
    }
    std::mutex mutex;
    std::condition_variable changed;
    int64_t next = 0;  // the part whose result is taken next
    std::exception_ptr failure;
    for (auto& ctx : contexts_) ctx->profiler().set_on(main_.profiler().on());
    const int threads = static_cast<int>(std::min<int64_t>(main_.threads(), parts));
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t part = 0; part < parts; ++part) {
      using Result = std::invoke_result_t<Work, Context&, int64_t>;
      std::optional<Result> result;
      std::exception_ptr own_failure;
      try {
        result.emplace(work(*contexts_[omp_get_thread_num()], part));
      } catch (...) {
        own_failure = std::current_exception();
      }
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return next == part; });
      try {
        if (!failure && own_failure) std::rethrow_exception(own_failure);
        if (!failure) take(part, std::move(*result));
      } catch (...) {
        failure = std::current_exception();
      }
      ++next;
      lock.unlock();
      changed.notify_all();
    }
    for (auto& ctx : contexts_) main_.profiler().take(ctx->profiler());
    if (failure) std::rethrow_exception(failure);
  }

  /// Statistics of the main Context and of all threads together; peaks are added up.
  MemoryStatistics memory() const {
    MemoryStatistics sum = main_.allocator().statistics();
    for (const auto& ctx : contexts_) sum += ctx->allocator().statistics();
    return sum;
  }

 private:
  Context& main_;
  std::vector<std::unique_ptr<Context>> contexts_;
};

}  // namespace lightcone
