#pragma once
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "engine/context.h"

namespace lightcone {

/// Prepares the next item on a thread of its own while the caller works on this one. `produce` is called again and
/// again, with a Context of that thread, until it returns nothing; items arrive in that order.
///
///     Prefetcher<JetSet> batches([&, p = BatchPosition{}](Context& ctx) mutable -> std::optional<JetSet> {
///       JetSet batch = gather_jets(ctx, jets, plan.at(p), DType::f64);
///       p = plan.next(p);
///       return batch;
///     });
///     while (auto batch = batches.next()) ...
///
/// What `produce` reads must outlive the prefetcher and not change. The destructor waits for the item in preparation.
template <class Item>
class Prefetcher {
 public:
  using Produce = std::function<std::optional<Item>(Context&)>;
  explicit Prefetcher(Produce produce) : produce_(std::move(produce)), thread_([this] { run(); }) {}
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  ~Prefetcher() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  /// The next item, or nothing after the last. Rethrows what `produce` threw, after the items before it, every time.
  std::optional<Item> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return item_ || ended_; });
    if (!item_) {
      if (failure_) std::rethrow_exception(failure_);
      return std::nullopt;
    }
    std::optional<Item> out = std::exchange(item_, std::nullopt);
    lock.unlock();
    changed_.notify_all();
    return out;
  }

 private:
  void run() {
    Context ctx(1);
    for (bool more = true; more;) {
      std::optional<Item> item;
      std::exception_ptr failure;
      try {
        item = produce_(ctx);
      } catch (...) {
        failure = std::current_exception();
      }
      more = item.has_value();
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !item_ || stop_; });
      if (stop_) return;
      item_ = std::move(item);
      failure_ = failure;
      ended_ = !more;
      lock.unlock();
      changed_.notify_all();
    }
  }

  Produce produce_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Item> item_;
  std::exception_ptr failure_;
  bool ended_ = false, stop_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace lightcone
