#pragma once
#include <unordered_map>
#include <vector>

#include "autograd/module.h"

namespace lightcone {

/// Gradients of parameters apart from Parameter::grad: what one part of a batch adds, while other parts are worked on.
///
///     GradientSet gradients;
///     tape.collect(gradients);        // instead of adding to Parameter::grad
///     tape.backward(loss);
///     gradients.add_to_parameters(ctx);
class GradientSet {
 public:
  void add(Context& ctx, Parameter& p, Tensor gradient);
  /// Adds everything to Parameter::grad and is empty then.
  void add_to_parameters(Context& ctx);

 private:
  std::vector<std::pair<Parameter*, Tensor>> items_;
  std::unordered_map<Parameter*, size_t> place_;
};

/// sum += gradient; an undefined sum becomes the gradient itself. The old sum may be shared: it is not written to then.
void accumulate(Context& ctx, Tensor& sum, Tensor gradient);

}  // namespace lightcone
