#include "data/batches.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/error.h"
#include "engine/rng.h"

namespace lightcone {

BatchPlan::BatchPlan(int64_t items, int64_t batch_size, uint64_t seed, bool shuffle)
    : items_(items), batch_size_(batch_size), seed_(seed), shuffle_(shuffle) {
  if (items <= 0) throw Error("batches: the data set is empty");
  if (batch_size <= 0) fail("batches", "batch size {}, expected a positive number", batch_size);
  batch_size_ = std::min(batch_size, items);
}

std::span<const int64_t> BatchPlan::at(BatchPosition position) & {
  if (position.epoch < 0 || position.batch < 0 || position.batch >= batches())
    fail("batches", "batch {} of epoch {}; an epoch has {}", position.batch, position.epoch, batches());
  if (epoch_ != position.epoch && (shuffle_ || order_.empty())) {
    order_.resize(items_);
    std::iota(order_.begin(), order_.end(), int64_t{0});
    if (shuffle_) {
      // Fisher-Yates on the stream's draw number `epoch`.
      Rng rng(seed_);
      rng.set_positions({{"shuffle", static_cast<uint64_t>(position.epoch)}});
      const Draw draw = rng.draw("shuffle", items_);
      for (int64_t i = items_ - 1; i > 0; --i)
        std::swap(order_[i], order_[static_cast<int64_t>(draw.uniform53(i) * static_cast<double>(i + 1))]);
    }
    epoch_ = position.epoch;
  }
  const int64_t begin = position.batch * batch_size_;
  return std::span(order_).subspan(begin, std::min(batch_size_, items_ - begin));
}

BatchPosition BatchPlan::next(BatchPosition position) const {
  return position.batch + 1 < batches() ? BatchPosition{position.epoch, position.batch + 1}
                                        : BatchPosition{position.epoch + 1, 0};
}

}  // namespace lightcone
