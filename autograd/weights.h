#pragma once
#include <map>
#include <mutex>

#include "autograd/module.h"
#include "kernels/matmul.h"

namespace lightcone {

/// Weights of a network reordered for its products, made once for all the tapes that run it, on any thread:
///
///     PreparedWeights prepared(ctx);          // for one training step, or one pass over a data set
///     tape.share(prepared);
///
/// The parameters must not change in its lifetime. A tape without one makes its own.
class PreparedWeights {
 public:
  /// What is made is allocated in `home`, which must live longer.
  explicit PreparedWeights(Context& home) : home_(home) {}
  std::shared_ptr<const kernels::Weights> of(const Parameter& p, DType products) {
    const std::lock_guard lock(mutex_);
    auto& known = known_[{&p, products}];
    if (!known) known = std::make_shared<kernels::Weights>(p.value, products, &home_);
    return known;
  }
  /// The same for any form T of weights, named by one parameter: what make(home) returns.
  template <class T, class Make>
  std::shared_ptr<const T> of(const Parameter& p, DType products, Make&& make) {
    const std::lock_guard lock(mutex_);
    auto& known = others_[{&p, products}];
    if (!known) known = make(home_);
    return std::static_pointer_cast<const T>(known);
  }

 private:
  Context& home_;
  std::mutex mutex_;
  std::map<std::pair<const Parameter*, DType>, std::shared_ptr<const kernels::Weights>> known_;
  std::map<std::pair<const Parameter*, DType>, std::shared_ptr<const void>> others_;
};

}  // namespace lightcone
