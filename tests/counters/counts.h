#pragma once
#include <functional>
#include <vector>

#include "engine/context.h"
#include "gpusim/report.h"

namespace lightcone::test {

/// What a function's launches did together, by gpusim's counts.
struct Counts {
  int64_t launches = 0;
  double dram_read = 0, dram_written = 0;  ///< bytes
  double load_sectors = 0, store_sectors = 0;
  double shared_wavefronts = 0, bank_conflicts = 0, local_requests = 0;
  double traffic() const { return dram_read + dram_written; }
};

/// Of f() alone: what was asked of the GPU before is done by then.
inline Counts count(Context& ctx, const std::function<void()>& f) {
  ctx.allocator().synchronize();
  gpusim::take_launches();
  f();
  ctx.allocator().synchronize();
  Counts sum;
  for (const gpusim::LaunchReport& l : gpusim::take_launches()) {
    ++sum.launches;
    sum.dram_read += static_cast<double>(l.dram_read_bytes);
    sum.dram_written += static_cast<double>(l.dram_write_bytes);
    sum.load_sectors += static_cast<double>(l.global_load_sectors);
    sum.store_sectors += static_cast<double>(l.global_store_sectors);
    sum.shared_wavefronts += static_cast<double>(l.shared_wavefronts);
    sum.bank_conflicts += static_cast<double>(l.bank_conflicts);
    sum.local_requests += static_cast<double>(l.local_requests);
  }
  return sum;
}

inline double bytes(const std::vector<Tensor>& tensors) {
  double sum = 0;
  for (const Tensor& t : tensors) sum += static_cast<double>(t.bytes());
  return sum;
}

}  // namespace lightcone::test
