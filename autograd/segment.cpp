#include "autograd/segment.h"

#include "engine/check.h"

namespace lightcone {

using kernels::Pool;

namespace {
int64_t jets_of(const char* operation, const Tensor& ptr) {
  Check(operation, "ptr", ptr).rank(1).dtype(DType::i32);
  if (ptr.dim(0) == 0) fail(operation, "ptr is empty, expected at least one offset, 0");
  return ptr.dim(0) - 1;
}

Var pool(const char* name, const Var& x, const Tensor& ptr, Pool kind) {
  Context& ctx = x.context();
  Check(name, "x", x.value()).rank(2);
  Tensor y = ctx.empty({jets_of(name, ptr), x.dim(1)}, x.dtype());
  kernels::segment_pool(ctx, x.value(), ptr, kind, y);
  return x.tape().record(name, y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::segment_broadcast(grads.context(), dy, ptr, kind, *dx);
  });
}
}  // namespace

Var segment_sum(const Var& x, const Tensor& ptr) { return pool("segment_sum", x, ptr, Pool::sum); }
Var segment_mean(const Var& x, const Tensor& ptr) { return pool("segment_mean", x, ptr, Pool::mean); }

Var segment_max(const Var& x, const Tensor& ptr) {
  Context& ctx = x.context();
  Check("segment_max", "x", x.value()).rank(2);
  const Shape shape = {jets_of("segment_max", ptr), x.dim(1)};
  Tensor y = ctx.empty(shape, x.dtype()), argmax = ctx.empty(shape, DType::i32);
  kernels::segment_max(ctx, x.value(), ptr, y, argmax);
  return x.tape().record("segment_max", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::segment_max_backward(grads.context(), dy, argmax, ptr, *dx);
  });
}

Var segment_broadcast(const Var& x, const Tensor& ptr) {
  Context& ctx = x.context();
  Check("segment_broadcast", "x", x.value()).rank(2);
  const int64_t jets = jets_of("segment_broadcast", ptr);
  const int64_t rows = ptr.offsets()[jets];
  kernels::check_ptr(ctx, "segment_broadcast", "ptr", ptr, rows);
  Tensor y = ctx.empty({rows, x.dim(1)}, x.dtype());
  kernels::segment_broadcast(ctx, x.value(), ptr, Pool::sum, y);
  return x.tape().record("segment_broadcast", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::segment_pool(grads.context(), dy, ptr, Pool::sum, *dx);
  });
}

Var gather_rows(const Var& x, const Tensor& index) {
  Context& ctx = x.context();
  Check("gather_rows", "x", x.value()).rank(2);
  Tensor y = ctx.empty({index.numel(), x.dim(1)}, x.dtype());
  kernels::gather_rows(ctx, x.value(), index, y);
  return x.tape().record("gather_rows", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::scatter_add_rows(grads.context(), dy, index, *dx);
  });
}

Var scatter_add_rows(const Var& x, const Tensor& index, int64_t rows) {
  Context& ctx = x.context();
  Check("scatter_add_rows", "x", x.value()).rank(2);
  Tensor y = ctx.empty({rows, x.dim(1)}, x.dtype());
  kernels::scatter_add_rows(ctx, x.value(), index, y);
  return x.tape().record("scatter_add_rows", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::gather_rows(grads.context(), dy, index, *dx);
  });
}

Var prepend_rows(const Var& first, const Var& x, const Tensor& longer) {
  Context& ctx = x.context();
  Check("prepend_rows", "x", x.value()).rank(2);
  Tensor y = ctx.empty({x.dim(0) + jets_of("prepend_rows", longer), x.dim(1)}, x.dtype());
  kernels::prepend_rows(ctx, &first.value(), &x.value(), longer, y);
  return x.tape().record("prepend_rows", y, {first.slot(), x.slot()},
                         [=, to_first = first.slot(), to = x.slot()](const Tensor& dy, Grads& grads) {
                           kernels::split_rows(grads.context(), dy, longer, grads.want(to_first), grads.want(to));
                         });
}

Var first_rows(const Var& x, const Tensor& ptr) {
  Context& ctx = x.context();
  Check("first_rows", "x", x.value()).rank(2);
  Tensor y = ctx.empty({jets_of("first_rows", ptr), x.dim(1)}, x.dtype());
  kernels::split_rows(ctx, x.value(), ptr, &y, nullptr);
  return x.tape().record("first_rows", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::prepend_rows(grads.context(), &dy, nullptr, ptr, *dx);
  });
}

Var drop_first_rows(const Var& x, const Tensor& ptr) {
  Context& ctx = x.context();
  Check("drop_first_rows", "x", x.value()).rank(2);
  const int64_t jets = jets_of("drop_first_rows", ptr);
  if (jets > x.dim(0)) fail("drop_first_rows", "{} jets in {} rows, expected a first row in every jet", jets, x.dim(0));
  Tensor y = ctx.empty({x.dim(0) - jets, x.dim(1)}, x.dtype());
  kernels::split_rows(ctx, x.value(), ptr, nullptr, &y);
  return x.tape().record("drop_first_rows", y, {x.slot()}, [=, to = x.slot()](const Tensor& dy, Grads& grads) {
    if (Tensor* dx = grads.want(to)) kernels::prepend_rows(grads.context(), nullptr, &dy, ptr, *dx);
  });
}

}  // namespace lightcone
