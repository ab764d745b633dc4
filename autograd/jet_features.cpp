#include "autograd/jet_features.h"

#include "engine/check.h"

namespace lightcone {

Var jet_features(const Var& p, const Var& jet, TaggingFeatures which, DType dtype) {
  Check("jet_features", "p", p.value()).rank(2);
  Tensor y = p.context().empty({p.dim(0), kernels::num_tagging_features(which)}, dtype);
  kernels::jet_features(p.context(), which, p.value(), jet.value(), y);
  return p.tape().record("jet_features", y, {p.slot(), jet.slot()},
                         [which, to_p = p.slot(), to_jet = jet.slot(), vp = p.value(), vjet = jet.value()](
                             const Tensor& dy, Grads& grads) {
                           Tensor *dp = grads.want(to_p), *djet = grads.want(to_jet);
                           kernels::jet_features_backward(grads.context(), which, dy, vp, vjet, dp, djet);
                         });
}

}  // namespace lightcone
