#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/tape.h"

namespace lightcone {

/// A trainable tensor. `rows`, where not empty, says how the state dict orders the leading axis: its row r is our row
/// rows[r] (the references lay attention heads out differently); loading, saving and comparing go through it.
struct Parameter {
  Tensor value;
  Tensor grad;  ///< undefined until a backward pass reaches it
  bool trainable = true;
  std::vector<int64_t> rows;
};

/// A state-dict entry that is not trained.
struct Buffer {
  Tensor value;
};

template <class T>
struct Named {
  std::string name;
  T* item;
};

/// A network or a part of one: parameters, buffers and children under the names of the reference PyTorch
/// implementation, so that its checkpoints load here and ours load there. Members are declared as fields and registered
/// in the constructor:
///
///     struct Linear : Module {
///       Parameter weight, bias;
///       Linear(Context& ctx, int64_t in, int64_t out) { add("weight", weight); add("bias", bias); … }
///     };
class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  /// Depth first in order of registration, names joined by dots.
  std::vector<Named<Parameter>> parameters() const;
  std::vector<Named<Buffer>> buffers() const;
  int64_t num_parameters() const;  ///< elements of trainable parameters

  void zero_grad();

  /// All parameters and buffers on the CPU, names and row order of the references, sorted as registered.
  std::vector<std::pair<std::string, Tensor>> state_dict(Context& ctx) const;
  /// Sets every parameter and buffer from get(name), on the CPU; dtypes are converted, and each stays on the
  /// device that it is on. Throws Error naming the entry if get returns
  /// an undefined tensor or the shape differs; nothing is changed then.
  void load_state_dict(Context& ctx, const std::function<Tensor(const std::string&)>& get);

 protected:
  void add(std::string name, Parameter& parameter) { parameters_.push_back({std::move(name), &parameter}); }
  void add(std::string name, Buffer& buffer) { buffers_.push_back({std::move(name), &buffer}); }
  void add(std::string name, Module& child) { children_.push_back({std::move(name), &child}); }

 private:
  std::vector<Named<Parameter>> parameters_;
  std::vector<Named<Buffer>> buffers_;
  std::vector<Named<Module>> children_;
};

/// Rows of `t` along its leading axis in another order, on the CPU: out[r] = t[rows[r]].
Tensor gather_rows(Context& ctx, const Tensor& t, const std::vector<int64_t>& rows);
/// The inverse: out[rows[r]] = t[r].
Tensor scatter_rows(Context& ctx, const Tensor& t, const std::vector<int64_t>& rows);

}  // namespace lightcone
