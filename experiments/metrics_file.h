#pragma once
#include <optional>

#include "engine/file.h"

namespace lightcone {

struct TrainingHistory;

/// metrics.csv: one row per step; validation losses stand in the row of their step. The last columns are what the
/// network observes, by name.
class MetricsFile {
 public:
  /// An empty path: none is written. The first `begin` bytes are earlier trainings' and stay.
  MetricsFile(const Path& path, int64_t begin);
  /// The rows of h that are not there yet, but the last `pending`.
  void rows(const TrainingHistory& h, size_t pending = 0);

 private:
  std::optional<Appender> file_;
  bool header_due_ = false;
  size_t written_ = 0, validations_ = 0;
};

}  // namespace lightcone
