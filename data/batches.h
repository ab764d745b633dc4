#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace lightcone {

/// Where training stands in the data; with the seed all that a checkpoint needs.
struct BatchPosition {
  int64_t epoch = 0, batch = 0;
  bool operator==(const BatchPosition&) const = default;
};

/// Cuts `items` into batches, in a new random order each epoch; the last batch of an epoch is short if they do not come
/// out even. The order is a function of (seed, epoch) alone, so training resumes anywhere without replaying.
class BatchPlan {
 public:
  /// Without `shuffle` every epoch runs in file order. Throws Error unless items and batch_size are positive.
  BatchPlan(int64_t items, int64_t batch_size, uint64_t seed, bool shuffle = true);
  int64_t batches() const { return (items_ + batch_size_ - 1) / batch_size_; }  ///< per epoch
  /// The items of a batch; valid until the next call, or the end of the plan.
  std::span<const int64_t> at(BatchPosition position) &;
  BatchPosition next(BatchPosition position) const;

 private:
  int64_t items_, batch_size_;
  uint64_t seed_;
  bool shuffle_;
  int64_t epoch_ = -1;  // of order_
  std::vector<int64_t> order_;
};

}  // namespace lightcone
