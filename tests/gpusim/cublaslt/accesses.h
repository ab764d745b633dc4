#pragma once
#include <cstdint>
#include <vector>

#include "gpusim/cublaslt/descriptors.h"
#include "gpusim/machine/timeline.h"

namespace gpusim::lt {

/// Exactly the bytes that a matmul reads and writes in device memory, to be checked before it runs.
class Accesses {
 public:
  struct Range {
    uint64_t begin, end;
  };
  void read(const void* address, int64_t bytes);
  void write(const void* address, int64_t bytes);
  /// A layout's elements, all batches: a range per column, or fewer where columns lie side by side.
  void read(const Layout& layout, const void* address);
  void write(const Layout& layout, const void* address);
  /// C where it is D: read before the same thread writes it.
  void read_in_place(const Layout& layout, const void* address);

  /// Notes them in the memories they lie in. False if one must not be touched.
  bool note(const Operation& now) const;
  /// Reports what is written twice, or written while it is read: within one kernel nothing orders these.
  void report_overlaps() const;

 private:
  std::vector<Range> reads_, in_place_, writes_;
};

}  // namespace gpusim::lt
