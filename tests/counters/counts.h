#pragma once
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/context.h"
#include "gpusim/report.h"
#include "tests/support/op_case.h"

namespace lightcone::test {

/// What a function's launches did together, by gpusim's counts.
struct Counts {
  int64_t launches = 0;
  double dram_read = 0, dram_written = 0;  ///< bytes, a sector once for each block that touches it
  double once = 0;                         ///< bytes, a sector once for each launch
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
    sum.once += static_cast<double>(l.least_read_bytes + l.least_write_bytes);
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

/// A kernel and what it must read and write; `most` times as much is allowed. Kernels of pairs read a jet in several
/// blocks, which find it in the second-level cache: for these `most` is for each sector once for each launch, and
/// `most_by_blocks` for what the blocks ask of that cache.
struct Kernel {
  std::string name;
  std::function<void()> run;
  std::vector<Tensor> operands;
  double most = 1.2, most_by_blocks = most;
};

inline void check_traffic(Context& ctx, const Kernel& k) {
  const Counts c = count(ctx, k.run);
  const double least = bytes(k.operands);
  INFO(k.name << ": " << c.launches << " launches move " << c.once << " bytes for " << least << ", " << c.once / least
              << " times as much; blocks ask for " << c.dram_read << " + " << c.dram_written << ", "
              << c.traffic() / least << " times as much");
  CHECK(c.once <= k.most * least);
  CHECK(c.traffic() <= k.most_by_blocks * least);
  CHECK(c.once >= 0.99 * least);  // else `operands` are more than it needs
  CHECK(c.local_requests == 0);
  CHECK(c.bank_conflicts <= 0.05 * c.shared_wavefronts);
}

struct Operands {
  Context ctx{Device::cuda, 1};
  uint64_t seed = 0;
  Tensor normal(Shape shape, DType dtype) { return to_tensor(ctx, test::normal(shape, ++seed), dtype); }
};

}  // namespace lightcone::test
