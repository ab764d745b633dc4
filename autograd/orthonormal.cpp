#include "autograd/orthonormal.h"

#include "engine/check.h"
#include "kernels/orthonormal.h"

namespace lightcone {

using kernels::FrameNoise, kernels::Orthonormalisation;

static Orthonormalisation parameters(const char* operation, const OrthoKwargs& options,
                                     const std::optional<double>& eps_dependent) {
  Orthonormalisation how;
  if (options.method == "cross")
    how.method = Orthonormalisation::Method::cross;
  else if (options.method != "gramschmidt")
    fail(operation, "method is \"{}\", expected \"gramschmidt\" or \"cross\"", options.method);
  how.eps_norm = options.eps_norm.value_or(how.eps_norm);
  how.eps_lightlike = options.eps_reg_lightlike.value_or(how.eps_lightlike);
  how.eps_dependent = eps_dependent.value_or(how.eps_dependent);
  return how;
}

// In evaluation the numbers are always the same, so that a jet's frames do not depend on what came before it.
static FrameNoise draw_noise(Tape& tape, int64_t lightlike, const char* dependent_stream, int64_t dependent) {
  if (!tape.training()) {
    Rng fixed(0);
    return {fixed.draw("frames_lightlike", lightlike), fixed.draw(dependent_stream, dependent), true};
  }
  Rng& rng = tape.context().rng();
  return {rng.draw("frames_lightlike", lightlike), rng.draw(dependent_stream, dependent)};
}

// Results of a function that gives T frames.
static RegularisedFrames results(Context& ctx, int64_t T, Tensor& frames) {
  frames = ctx.empty({T, 4, 4}, DType::f64);
  return {{}, ctx.empty({3}, DType::i64)};
}
static void refuse_improper(const char* operation, const OrthoKwargs& options, const RegularisedFrames& f) {
  if (options.checks && f.improper() != 0)
    fail(operation, "{} of {} sets of vectors give no Lorentz frame: not exactly one time-like vector (`checks` is on)",
         f.improper(), f.frames.dim(0));
}

RegularisedFrames orthonormal_frames(const Var& vectors, const OrthoKwargs& options) {
  const Orthonormalisation how = parameters("orthonormal_frames", options, options.eps_reg_coplanar);
  Check("orthonormal_frames", "vectors", vectors.value()).rank(3);
  Context& ctx = vectors.context();
  const int64_t numbers = vectors.value().numel();
  const FrameNoise noise = draw_noise(vectors.tape(), numbers, "frames_coplanar", numbers);
  Tensor frames;
  RegularisedFrames out = results(ctx, vectors.dim(0), frames);
  kernels::orthonormal_frames(ctx, how, noise, vectors.value(), frames, out.counts);
  out.frames =
      vectors.tape().record("orthonormal_frames", frames, {vectors.slot()},
                            [=, to = vectors.slot(), v = vectors.value()](const Tensor& dframes, Grads& grads) {
                              if (Tensor* dv = grads.want(to))
                                kernels::orthonormal_frames_backward(grads.context(), how, noise, dframes, v, *dv);
                            });
  refuse_improper("orthonormal_frames", options, out);
  return out;
}

RegularisedFrames polar_decomposition(const Var& boost, const Var& references, const OrthoKwargs& options) {
  const Orthonormalisation how = parameters("polar_decomposition", options, options.eps_reg);
  Check("polar_decomposition", "boost", boost.value()).rank(2);
  Context& ctx = boost.context();
  const int64_t T = boost.dim(0);
  const FrameNoise noise = draw_noise(boost.tape(), 4 * T, "frames_collinear", 6 * T);
  Tensor frames;
  RegularisedFrames out = results(ctx, T, frames);
  kernels::polar_decomposition(ctx, how, noise, boost.value(), references.value(), frames, out.counts);
  out.frames =
      boost.tape().record("polar_decomposition", frames, {boost.slot(), references.slot()},
                          [=, to_p = boost.slot(), to_r = references.slot(), p = boost.value(), r = references.value()](
                              const Tensor& dframes, Grads& grads) {
                            Tensor *dp = grads.want(to_p), *dr = grads.want(to_r);
                            if (dp || dr)
                              kernels::polar_decomposition_backward(grads.context(), how, noise, dframes, p, r, dp, dr);
                          });
  refuse_improper("polar_decomposition", options, out);
  return out;
}

ClampedBoost clamp_boost(const Var& v, std::optional<double> gamma_max, std::optional<double> hardness) {
  Context& ctx = v.context();
  Tensor statistics = ctx.empty({3}, DType::f64);
  kernels::lorentz_factors(ctx, gamma_max, v.value(), statistics);
  if (!gamma_max) return {v, statistics};
  Tensor y = ctx.empty(v.shape(), v.dtype());
  kernels::clamp_boost(ctx, *gamma_max, hardness, v.value(), y);
  return {v.tape().record("clamp_boost", y, {v.slot()},
                          [=, to = v.slot(), value = v.value(), limit = *gamma_max](const Tensor& dy, Grads& grads) {
                            if (Tensor* dv = grads.want(to))
                              kernels::clamp_boost_backward(grads.context(), limit, hardness, dy, value, *dv);
                          }),
          statistics};
}

}  // namespace lightcone
