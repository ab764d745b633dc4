#pragma once
#include <vector>

#include "models/linear.h"

namespace lightcone {

/// The linear maps of the references' perceptrons under their state-dict names, mlp.<place in the torch.nn.Sequential>:
/// a GELU stands between two of them and, where there is dropout, a Dropout behind each but the last.
struct Perceptron : Module {
  std::vector<std::unique_ptr<Linear>> linear;
  Perceptron(Context& ctx, const std::vector<int64_t>& widths, bool with_dropout, DType dtype) {
    for (size_t l = 0; l + 1 < widths.size(); ++l) {
      linear.push_back(std::make_unique<Linear>(ctx, widths[l], widths[l + 1], dtype));
      add("mlp." + std::to_string(l * (with_dropout ? 3 : 2)), *linear.back());
    }
  }
};

}  // namespace lightcone
