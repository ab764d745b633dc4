#include "experiments/metrics_file.h"

#include <utility>

#include "engine/error.h"
#include "experiments/trainer.h"

namespace lightcone {

MetricsFile::MetricsFile(const Path& path, int64_t begin) {
  if (path.empty()) return;
  std::error_code none;
  const auto size = std::filesystem::file_size(path, none);
  if (none || size < static_cast<uint64_t>(begin)) begin = 0;
  file_.emplace(path, begin);
  header_due_ = begin == 0;
}

void MetricsFile::rows(const TrainingHistory& h, size_t pending) {
  for (; file_ && written_ + pending < h.step.size(); ++written_) {
    const size_t i = written_;
    if (std::exchange(header_due_, false)) {
      std::string header = "step,loss,lr,grad_norm,grad_norm_net,grad_norm_framesnet,val_loss";
      for (const auto& [name, values] : h.observed) header += "," + name;
      file_->write(header + "\n");
    }
    std::string validation, observed;
    for (const auto& [name, values] : h.observed)
      observed += i < values.size() ? fmt::format(",{:.6g}", values[i]) : ",";
    if (validations_ < h.validation_step.size() && h.validation_step[validations_] == h.step[i])
      validation = fmt::format("{:.9g}", h.validation_loss[validations_++]);
    file_->write(fmt::format("{:.0f},{:.9g},{:.9g},{:.6g},{:.6g},{:.6g},{}{}\n", h.step[i], h.loss[i], h.lr[i],
                             h.grad_norm[i], h.grad_norm_net[i], h.grad_norm_framesnet[i], validation, observed));
  }
}

}  // namespace lightcone
