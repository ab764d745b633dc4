#pragma once
#include <optional>

#include "engine/file.h"

namespace lightcone {

struct TrainingHistory;

/// metrics.csv: one row per step; validation losses stand in the row of their step.
class MetricsFile {
 public:
  /// An empty path: none is written. The first `begin` bytes are earlier trainings' and stay.
  MetricsFile(const Path& path, int64_t begin);
  /// The rows of h that are not there yet, but the last `pending`.
  void rows(const TrainingHistory& h, size_t pending = 0);

 private:
  std::optional<Appender> file_;
  size_t written_ = 0, validations_ = 0;
};

}  // namespace lightcone
