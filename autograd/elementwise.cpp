#include "autograd/elementwise.h"

#include "kernels/reduce.h"

namespace lightcone {
namespace {

Tensor empty_like(const Var& x) { return x.context().empty(x.shape(), x.dtype()); }

}  // namespace

Var add(const Var& a, const Var& b) {
  Tensor y = empty_like(a);
  kernels::add(a.context(), a.value(), b.value(), y);
  return a.tape().record("add", y, {a.slot(), b.slot()}, [a = a.slot(), b = b.slot()](const Tensor& dy, Grads& grads) {
    grads.pass(a, dy);
    grads.pass(b, dy);
  });
}

Var subtract(const Var& a, const Var& b) {
  Tensor y = empty_like(a);
  kernels::subtract(a.context(), a.value(), b.value(), y);
  return a.tape().record("subtract", y, {a.slot(), b.slot()},
                         [a = a.slot(), b = b.slot()](const Tensor& dy, Grads& grads) {
                           grads.pass(a, dy);
                           if (Tensor* db = grads.want(b)) kernels::scale(grads.context(), dy, -1, *db);
                         });
}

Var multiply(const Var& a, const Var& b) {
  Tensor y = empty_like(a);
  kernels::multiply(a.context(), a.value(), b.value(), y);
  // Each factor is kept for the other's gradient alone.
  const Tensor for_b = b.wants_grad() ? a.value() : Tensor{}, for_a = a.wants_grad() ? b.value() : Tensor{};
  return a.tape().record("multiply", y, {a.slot(), b.slot()},
                         [=, a = a.slot(), b = b.slot()](const Tensor& dy, Grads& grads) {
                           if (Tensor* da = grads.want(a)) kernels::multiply(grads.context(), dy, for_a, *da);
                           if (Tensor* db = grads.want(b)) kernels::multiply(grads.context(), dy, for_b, *db);
                         });
}

Var scale(const Var& x, double factor) {
  Tensor y = empty_like(x);
  kernels::scale(x.context(), x.value(), factor, y);
  return x.tape().record("scale", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::scale(grads.context(), dy, factor, *dx);
  });
}

Var add_row(const Var& x, const Var& row) {
  Tensor y = empty_like(x);
  kernels::add_row(x.context(), x.value(), row.value(), y);
  return x.tape().record("add_row", y, {x.slot(), row.slot()},
                         [x = x.slot(), row = row.slot()](const Tensor& dy, Grads& grads) {
                           grads.pass(x, dy);
                           Tensor* d = grads.want(row);
                           if (!d) return;
                           int64_t rows = 1;
                           for (int axis = 0; axis + 1 < dy.rank(); ++axis) rows *= dy.dim(axis);
                           kernels::sum(grads.context(), dy.reshape({rows, dy.dim(-1)}), kernels::Over::leading, 1, *d);
                         });
}

Var clamp(const Var& x, double low, double high) {
  Tensor y = empty_like(x);
  kernels::clamp(x.context(), x.value(), low, high, y);
  return x.tape().record("clamp", y, {x.slot()}, [=, to = x.slot(), value = x.value()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::clamp_backward(grads.context(), dy, value, low, high, *dx);
  });
}

Var unary(Unary f, const Var& x) {
  Tensor y = empty_like(x);
  kernels::unary(x.context(), f, x.value(), y);
  return x.tape().record(
      "unary", y, {x.slot()},
      [f, to = x.slot(), saved = kernels::backward_reads_result(f) ? y : x.value()](const Tensor& dy, Grads& grads) {
        if (Tensor* dx = grads.want(to)) kernels::unary_backward(grads.context(), f, dy, saved, *dx);
      });
}

Var cast(const Var& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor y = x.context().empty(x.shape(), dtype);
  kernels::cast(x.context(), x.value(), y);
  if (!is_floating(dtype)) return x.tape().constant(std::move(y));
  return x.tape().record("cast", y, {x.slot()}, [to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::cast(grads.context(), dy, *dx);
  });
}

Var reshape(const Var& x, const Shape& shape) {
  return x.tape().record(
      "reshape", x.value().reshape(shape), {x.slot()},
      [x = x.slot(), before = x.shape()](const Tensor& dy, Grads& grads) { grads.pass(x, dy.reshape(before)); });
}

Var concat(const std::vector<Var>& parts) {
  if (parts.empty()) throw Error("concat: no parts");
  std::vector<Tensor> values;
  std::vector<Slot> slots;
  std::vector<int64_t> begins;
  int64_t columns = 0;
  for (const Var& part : parts) {
    if (part.shape().rank() == 0) throw Error("concat: a part has shape [], expected at least 1 axis");
    values.push_back(part.value());
    slots.push_back(part.slot());
    begins.push_back(columns);
    columns += part.dim(-1);
  }
  Shape shape = parts[0].shape();
  shape[-1] = columns;
  Tensor y = parts[0].context().empty(shape, parts[0].dtype());
  kernels::concat(parts[0].context(), values, y);
  return parts[0].tape().record("concat", {y}, slots, [slots, begins](const std::vector<Tensor>& dys, Grads& grads) {
    for (size_t i = 0; i < slots.size(); ++i)
      if (Tensor* dx = grads.want(slots[i])) kernels::slice(grads.context(), dys[0], begins[i], *dx);
  })[0];
}

Var slice(const Var& x, int64_t begin, int64_t count) {
  if (x.shape().rank() == 0) throw Error("slice: x has shape [], expected at least 1 axis");
  if (begin < 0 || count < 0 || count > x.dim(-1) - begin)
    fail("slice", "columns {} to {} of a tensor of shape {}", begin, begin + count, x.shape());
  Shape shape = x.shape();
  shape[-1] = count;
  Tensor y = x.context().empty(shape, x.dtype());
  kernels::slice(x.context(), x.value(), begin, y);
  return x.tape().record("slice", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::slice_backward(grads.context(), dy, begin, *dx);
  });
}

}  // namespace lightcone
