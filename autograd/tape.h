#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/context.h"

namespace lightcone {

class GradientSet;
class PreparedWeights;
class Tape;
struct Parameter;
namespace kernels {
class Weights;
}

/// A place on a tape where a gradient arrives. Backward functions keep Slots (and the tensors that they read), never
/// Vars, so that a value nobody reads again is freed as soon as the forward pass drops it.
struct Slot {
  int32_t index = -1;
};

/// A tensor in a computation: its value, and the slot of its gradient if one is wanted. Cheap to copy.
class Var {
 public:
  Var() = default;
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int64_t dim(int axis) const { return value_.dim(axis); }
  DType dtype() const { return value_.dtype(); }
  Tape& tape() const { return *tape_; }
  Context& context() const;
  Slot slot() const { return slot_; }
  bool wants_grad() const { return slot_.index >= 0; }
  /// Whose value this is, or nullptr.
  const Parameter* parameter() const { return parameter_; }

 private:
  friend class Tape;
  Var(Tape* tape, Tensor value, Slot slot) : value_(std::move(value)), tape_(tape), slot_(slot) {}
  Tensor value_;
  Tape* tape_ = nullptr;
  Slot slot_;
  const Parameter* parameter_ = nullptr;
};

/// What a backward function writes to. Kernels overwrite; only the tape adds up.
class Grads {
 public:
  Context& context() const;
  /// Where to write d loss / d input, or nullptr if nobody wants it. Overwrite all of it.
  Tensor* want(Slot slot);
  /// d loss / d input is this very tensor (an addition's backward): shared, not copied.
  void pass(Slot slot, const Tensor& gradient);
  /// What has arrived at the slot so far, or an undefined tensor, for a kernel that adds it itself: it is gone from the
  /// slot, and what is then written to want(slot) must contain it.
  Tensor take(Slot slot);

 private:
  friend class Tape;
  explicit Grads(Tape& tape) : tape_(tape) {}
  Tape& tape_;
  std::deque<std::pair<int32_t, Tensor>> pending_;  // a deque: pointers handed out stay valid
};

/// A number that a network observes of the tokens of one pass, to be logged for the whole batch: added up, averaged
/// with weights, or the largest.
struct Observation {
  enum Kind : uint8_t { sum, mean, max };
  std::string name;
  Tensor value;
  Kind kind;
  double weight;
};

/// Records what is computed from parameters and runs it backwards, in reverse order of recording.
///
///     Tape tape(ctx);
///     Var loss = network(tape.constant(x));
///     tape.backward(loss);                  // adds to every Parameter::grad
///
/// With Tape::Mode::evaluate nothing is recorded and nothing kept.
///
/// One tape serves one forward and one backward pass. Saved tensors are freed as the backward pass goes.
class Tape {
 public:
  enum class Mode { train, evaluate };
  explicit Tape(Context& ctx, Mode mode = Mode::train);
  /// A tape for a part of what `outer` records: the same mode, amp, weights and collected gradients.
  Tape(Context& ctx, const Tape& outer);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  Context& context() { return ctx_; }
  /// train: dropout acts and gradients are recorded. evaluate: neither.
  bool training() const { return mode_ == Mode::train; }

  /// Matrix products in bf16 with f32 sums (automatic mixed precision).
  bool amp() const { return amp_; }
  void set_amp(bool on) { amp_ = on; }
  /// What the factors of products of such tensors are rounded to, and therefore the dtype for activations that products
  /// alone read: bf16 instead of f32 under amp().
  DType factors(DType dtype) const { return amp_ && dtype == DType::f32 ? DType::bf16 : dtype; }

  Var constant(Tensor value) { return Var(this, std::move(value), Slot{}); }
  /// An input whose gradient is wanted; read it with gradient() after backward().
  Var variable(Tensor value);
  /// The parameter as a Var; its gradient is added to parameter.grad. Asking twice gives the same Slot.
  Var parameter(Parameter& parameter);

  /// w as the right factor of products, in bf16 under amp(). What a parameter's products need is made once per
  /// PreparedWeights.
  std::shared_ptr<const kernels::Weights> weights(const Var& w);
  PreparedWeights& prepared_weights();
  /// Takes reordered weights from here from now on; it must outlive the tape.
  void share(PreparedWeights& prepared) { prepared_ = &prepared; }

  using Backward = std::function<void(const Tensor& dy, Grads& grads)>;
  using BackwardMany = std::function<void(const std::vector<Tensor>& dys, Grads& grads)>;
  /// The result of a function: `y` with its backward, recorded if any of `inputs` wants a gradient. `backward` gets d
  /// loss / d y.
  Var record(const char* name, Tensor y, std::initializer_list<Slot> inputs, Backward backward);
  /// The same for several results. A result that the loss does not depend on comes with a gradient of zeros.
  std::vector<Var> record(const char* name, std::vector<Tensor> ys, const std::vector<Slot>& inputs,
                          BackwardMany backward);

  /// Runs backwards from y with the given cotangent (ones for a scalar). Throws Error if y depends on nothing that
  /// wants a gradient.
  void backward(const Var& y, Tensor cotangent = {});
  void backward(const std::vector<Var>& ys, std::vector<Tensor> cotangents);
  /// From now on backward() adds gradients of parameters here and not to Parameter::grad; it must outlive the tape.
  void collect(GradientSet& gradients) { collected_ = &gradients; }
  /// The gradient of a variable(); an undefined tensor if it got none.
  const Tensor& gradient(const Var& x) const { return slots_[x.slot().index].gradient; }

  /// `value` has one element.
  void observe(std::string name, Tensor value, Observation::Kind kind, double weight = 1) {
    observations_.push_back({std::move(name), std::move(value), kind, weight});
  }
  void observe(std::string name, double value, Observation::Kind kind, double weight = 1) {
    observe(std::move(name), ctx_.of({1}, DType::f64, {&value, 1}), kind, weight);
  }
  const std::vector<Observation>& observations() const { return observations_; }

  int64_t nodes() const { return static_cast<int64_t>(nodes_.size()); }

 private:
  friend class Grads;
  struct Place {
    Shape shape;
    DType dtype;
    bool leaf;
    Tensor gradient;
  };
  struct Node {
    const char* name;
    int32_t first, count;
    BackwardMany backward;
  };
  Slot new_slot(const Tensor& value, bool leaf);

  Context& ctx_;
  Mode mode_;
  bool amp_ = false;
  PreparedWeights* prepared_ = nullptr;
  std::unique_ptr<PreparedWeights> own_prepared_;
  GradientSet* collected_ = nullptr;
  std::vector<Place> slots_;
  std::vector<Node> nodes_;
  std::vector<Observation> observations_;
  std::vector<std::pair<Parameter*, Slot>> parameters_;
  std::unordered_map<Parameter*, Slot> slot_of_parameter_;
};

/// Matrix products in bf16, or not, while it lives.
class AmpScope {
 public:
  AmpScope(Tape& tape, bool on) : tape_(tape), before_(tape.amp()) { tape_.set_amp(on); }
  AmpScope(const AmpScope&) = delete;
  AmpScope& operator=(const AmpScope&) = delete;
  ~AmpScope() { tape_.set_amp(before_); }

 private:
  Tape& tape_;
  const bool before_;
};

inline Context& Var::context() const { return tape_->context(); }
inline Context& Grads::context() const { return tape_.context(); }

}  // namespace lightcone
