#pragma once
#include <algorithm>

#include "engine/context.h"

/// Operands of kernels that compute in f64 whatever comes in.
namespace lightcone::kernels {

/// The elements in f64: those of t, or a copy.
class InDouble {
 public:
  InDouble(Context& ctx, const Tensor& t) : copy_(ctx, t.dtype() == DType::f64 ? 0 : t.numel()) {
    if (t.dtype() == DType::f64) {
      data_ = t.data<double>();
    } else {
      std::copy_n(t.data<float>(), t.numel(), copy_.data());
      data_ = copy_.data();
    }
  }
  operator const double*() const { return data_; }

 private:
  Context::Scratch<double> copy_;
  const double* data_;
};

/// Where to write f64 results, which then go to t.
class FromDouble {
 public:
  FromDouble(Context& ctx, Tensor* t) : t_(t), copy_(ctx, t && t->dtype() != DType::f64 ? t->numel() : 0) {}
  ~FromDouble() {
    if (t_ && t_->dtype() != DType::f64) std::copy_n(copy_.data(), t_->numel(), t_->data<float>());
  }
  operator double*() { return !t_ ? nullptr : t_->dtype() == DType::f64 ? t_->data<double>() : copy_.data(); }

 private:
  Tensor* t_;
  Context::Scratch<double> copy_;
};

}  // namespace lightcone::kernels
