#pragma once
#include <map>
#include <string>
#include <string_view>

#include "engine/tensor.h"

namespace lightcone {

/// What a checkpoint keeps of an optimiser, a schedule or an average. Numbers are exact, infinite ones included (store
/// them with 17 digits). Tensors are on the CPU and may share storage with their owner: write or copy them before its next step.
struct State {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, double> numbers;

  /// Remove and return an entry. Throw Error("<where>: the saved state has no …") if it is not there, or not a count
  /// from 0 to `most`.
  Tensor take_tensor(std::string_view where, const std::string& name);
  double take_number(std::string_view where, const std::string& name);
  int64_t take_count(std::string_view where, const std::string& name, int64_t most = int64_t{1} << 53);
  /// Throws Error if an entry is left.
  void finish(std::string_view where) const;
};

}  // namespace lightcone
