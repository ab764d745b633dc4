#include "autograd/reduce.h"

namespace lightcone {
namespace {

Var scaled_sum(const char* name, const Var& x, Over over, double scale) {
  Tensor y = x.context().empty(kernels::shape_of_sum(x.shape(), over), x.dtype());
  kernels::sum(x.context(), x.value(), over, scale, y);
  return x.tape().record(name, y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::sum_backward(grads.context(), dy, over, scale, *dx);
  });
}

}  // namespace

Var sum(const Var& x, Over over) { return scaled_sum("sum", x, over, 1); }

Var mean(const Var& x, Over over) {
  kernels::shape_of_sum(x.shape(), over);  // refuses a bad shape
  const int64_t count = kernels::count_of_sum(x.shape(), over);
  if (count == 0) fail("mean", "x has shape {}; there is no mean of 0 elements", x.shape());
  return scaled_sum("mean", x, over, 1.0 / static_cast<double>(count));
}

}  // namespace lightcone
