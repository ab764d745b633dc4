#include "autograd/minkowski.h"

#include "engine/check.h"
#include "kernels/minkowski.h"

namespace lightcone {

// One number per four-momentum.
static Tensor scalars_for(const char* operation, const char* argument, const Var& p) {
  Check(operation, argument, p.value()).columns(4);
  Shape shape;
  for (int axis = 0; axis + 1 < p.value().rank(); ++axis) shape.append(p.dim(axis));
  return p.context().empty(shape, p.dtype());
}

Var minkowski_inner(const Var& a, const Var& b) {
  Tensor y = scalars_for("minkowski_inner", "a", a);
  kernels::minkowski_inner(a.context(), a.value(), b.value(), y);
  return a.tape().record(
      "minkowski_inner", y, {a.slot(), b.slot()},
      [to_a = a.slot(), to_b = b.slot(), va = a.value(), vb = b.value()](const Tensor& dy, Grads& grads) {
        if (Tensor* da = grads.want(to_a)) kernels::minkowski_inner_backward(grads.context(), dy, vb, *da);
        if (Tensor* db = grads.want(to_b)) kernels::minkowski_inner_backward(grads.context(), dy, va, *db);
      });
}

Var minkowski_squarednorm(const Var& p) { return minkowski_inner(p, p); }

static Var kinematic(const char* name, kernels::Kinematic quantity, const Var& p) {
  Tensor y = scalars_for(name, "p", p);
  kernels::kinematic(p.context(), quantity, p.value(), y);
  return p.tape().record(name, y, {p.slot()},
                         [quantity, to = p.slot(), value = p.value()](const Tensor& dy, Grads& grads) {
                           if (Tensor* dp = grads.want(to))
                             kernels::kinematic_backward(grads.context(), quantity, dy, value, *dp);
                         });
}

Var pt(const Var& p) { return kinematic("pt", kernels::Kinematic::pt, p); }
Var phi(const Var& p) { return kinematic("phi", kernels::Kinematic::phi, p); }
Var eta(const Var& p) { return kinematic("eta", kernels::Kinematic::eta, p); }
Var mass(const Var& p) { return kinematic("mass", kernels::Kinematic::mass, p); }

Var restframe_boost(const Var& p) {
  Check("restframe_boost", "p", p.value()).rank(2);
  Tensor boost = p.context().empty({p.dim(0), 4, 4}, p.dtype());
  kernels::restframe_boost(p.context(), p.value(), boost);
  return p.tape().record("restframe_boost", boost, {p.slot()},
                         [to = p.slot(), value = p.value()](const Tensor& dy, Grads& grads) {
                           if (Tensor* dp = grads.want(to))
                             kernels::restframe_boost_backward(grads.context(), dy, value, *dp);
                         });
}

Var lorentz_transform(const Var& matrices, const Var& vectors) {
  Tensor y = vectors.context().empty(vectors.shape(), vectors.dtype());
  kernels::lorentz_transform(vectors.context(), matrices.value(), vectors.value(), y);
  return vectors.tape().record("lorentz_transform", y, {matrices.slot(), vectors.slot()},
                               [to_m = matrices.slot(), to_v = vectors.slot(), m = matrices.value(),
                                v = vectors.value()](const Tensor& dy, Grads& grads) {
                                 if (Tensor* dm = grads.want(to_m))
                                   kernels::lorentz_transform_backward_matrices(grads.context(), dy, v, *dm);
                                 if (Tensor* dv = grads.want(to_v))
                                   kernels::lorentz_transform_backward_vectors(grads.context(), dy, m, *dv);
                               });
}

}  // namespace lightcone
