#pragma once
#include <vector>

#include "autograd/module.h"
#include "autograd/optim/state.h"

namespace lightcone {

/// Exponential moving average of parameters, in shadow tensors that start as copies of them:
///
///     shadow -= (1 - decay_n) (shadow - p),    decay_n = min(decay, (1 + n) / (10 + n)),    n = 1, 2, … updates
///
/// (the definition of torch_ema). Construct it after loading weights. All parameters take part, frozen ones too.
///
///     ema.update();                              // after each optimiser step that was not skipped
///     { auto averaged = ema.average(); validate(); }    // the network computes with the shadow here
class Ema {
 public:
  /// Throws Error unless 0 <= decay <= 1.
  Ema(Context& ctx, std::vector<Named<Parameter>> parameters, double decay);
  Ema(const Ema&) = delete;
  Ema& operator=(const Ema&) = delete;

  void update();
  int64_t updates() const { return updates_; }

  /// Swaps parameters and shadow until it goes out of scope; nothing is copied. Meanwhile update(), average() and the
  /// state throw Error.
  class Averaged {
   public:
    explicit Averaged(Ema& ema) : ema_(ema) { ema_.swap(true); }
    Averaged(const Averaged&) = delete;
    Averaged& operator=(const Averaged&) = delete;
    ~Averaged() { ema_.swap(false); }

   private:
    Ema& ema_;
  };
  [[nodiscard]] Averaged average() { return Averaged(*this); }

  /// The shadow under the names and in the row order of the network's state dict, and "num_updates".
  State state_dict() const;
  /// Throws Error naming an entry that is missing, does not fit or is unknown; nothing is changed then.
  void load_state_dict(State state);

 private:
  void swap(bool in);
  void require_swapped_out(const char* what) const;

  Context& ctx_;
  std::vector<Named<Parameter>> parameters_;
  double decay_;
  int64_t updates_ = 0;
  bool swapped_in_ = false;
  std::vector<Tensor> shadow_, values_;  // values_ is kept for its memory
};

}  // namespace lightcone
