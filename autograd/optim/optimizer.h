#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "autograd/module.h"
#include "autograd/optim/state.h"
#include "kernels/optimizer.h"

namespace lightcone {

/// Parameters that share a learning rate and a weight decay.
struct ParameterGroup {
  std::vector<Named<Parameter>> parameters;
  double lr = 1e-3;
  std::optional<double> weight_decay;  ///< nothing: the optimiser's own, 0.01 for AdamW and 0 for the others
};

/// The rules are in kernels/optimizer.h. Own betas and eps, where none are given:
///
///   Adam, AdamW, RAdam   (0.9, 0.999)   1e-8
///   Lion                 (0.9, 0.99)    none
///   Ranger               (0.95, 0.999)  1e-5   always: the tagging experiments do not pass theirs on
///   WeaverRanger         (0.95, 0.999)  1e-5   as weaver-core builds it
///
/// The two Rangers differ in the first slow weights: Ranger takes the parameters after the first step, WeaverRanger
/// those at construction (so construct it after loading weights).
struct OptimizerOptions {
  std::string name = "AdamW";
  std::optional<std::array<double, 2>> betas;
  std::optional<double> eps;
};

/// Moves parameters along their gradients. A parameter without a gradient stays where it is and its averages and count
/// do not advance (only Ranger's outer step, every sixth, takes in all parameters). A count is kept per parameter: one
/// that gets its first gradient late starts at t = 1 then.
class Optimizer {
 public:
  /// Throws Error on an unknown name, a bad option, or a parameter or name that occurs twice. Groups may be empty.
  Optimizer(Context& ctx, const OptimizerOptions& options, const std::vector<ParameterGroup>& groups);

  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One launch over all parameters that have a gradient. Throws Error naming a parameter whose gradient does not fit;
  /// nothing has moved then.
  void step();
  void zero_grad();

  /// What schedules change.
  size_t groups() const { return groups_.size(); }
  double lr(size_t group) const { return groups_.at(group).lr; }
  void set_lr(size_t group, double lr);
  double beta1() const { return options_.beta1; }
  void set_beta1(double beta1);

  /// Per parameter "<name>.exp_avg", "<name>.exp_avg_sq", "<name>.slow" (in the row order of the parameter in memory)
  /// and
  /// "<name>.step", where they exist; per group "group<i>.lr" and "group<i>.weight_decay"; beta1, beta2, eps. A run
  /// that loads it goes on with the same bits. (The references drop Ranger's slow weights.)
  State state_dict() const;
  /// Copies. Throws Error naming an entry that is missing, does not fit or is unknown; nothing is changed then.
  void load_state_dict(State state);

 private:
  struct Entry {
    Named<Parameter> parameter;
    size_t group;
    int64_t t = 0;
    Tensor m, v, slow;  // m, v: from the first gradient on
  };
  struct Group {
    double lr, weight_decay;
  };
  struct Kind;
  void create_averages(Entry& entry);
  void take_slow_weights();
  void step_outer();

  Context& ctx_;
  const Kind& kind_;
  kernels::UpdateOptions options_;
  std::vector<Group> groups_;
  std::vector<Entry> entries_;
  int64_t inner_steps_ = 0;                    // since Ranger's last outer step
  std::vector<kernels::ParameterStep> steps_;  // kept for its memory
};

}  // namespace lightcone
