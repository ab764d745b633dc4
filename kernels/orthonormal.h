#pragma once
#include <optional>

#include "engine/context.h"

namespace lightcone::kernels {

/// Local frames of particles from predicted four-vectors (Spinner et al., arXiv:2505.20280): matrices L that take
/// global to local components, x' = L x. Vectors in another global frame give f(Lambda v) = f(v) Lambda^-1, and so the
/// same local components. Metric (+,-,-,-).
///
/// Four-vectors [T, ..., 4] are f64 or f32, gradients to them alike; arithmetic and frames [T, 4, 4] are f64. A
/// particle's frame depends on its own vectors (and its own random numbers) alone. No particles: nothing is written but
/// counts of 0. Throws Error if a shape, dtype or parameter does not fit. Backward functions get the same vectors,
/// parameters and noise as the forward; their outputs may not alias the inputs. Counts and statistics stay on the
/// device: nothing waits for them.
///
/// Gradients go through the noise as if it were constant, end at every bound, and are finite: a particle whose
/// gradient overflows its dtype although its vectors and dframes are finite gets 0. (Noise of 1e-16 does not change a
/// light-like vector of length 1: it is then divided by eps_norm, and what follows are powers of 1e15.)

struct Orthonormalisation {
  enum class Method : uint8_t { gramschmidt, cross } method = Method::gramschmidt;
  double eps_norm = 2.220446049250313e-16;       ///< above 0
  double eps_lightlike = 2.220446049250313e-16;  ///< 0: no regularisation; also of the next
  double eps_dependent = 2.220446049250313e-16;
};

/// Standard normal numbers, elements as the contracts below count them. Only those of degenerate sets are read.
struct FrameNoise {
  Draw lightlike, dependent;
  /// All particles take the numbers of the first one, so that a frame does not depend on its particle's place.
  bool shared = false;
};

/// Frames whose rows are orthonormal vectors e_k made of three: L v = (inner products with e_0; with -e_1, -e_2, -e_3).
///
///   vectors   v [T, 3, 4]
///   counts    [3] i64: sets with a light-like vector, coplanar sets, frames without exactly one time-like e_k
///
/// 1. A vector with |v^2| < eps_lightlike gets eps_lightlike (sqrt(2 |n|^2), |n_1|, |n_2|, |n_3|), time-like, n the
///    last three of its four numbers in noise.lightlike [T, 3, 4].
/// 2. Sets with |cross(v_0, v_1, v_2)^2| < eps_dependent get eps_dependent n, n from noise.dependent [T, 3, 4].
/// 3. All three are normalised: N(v) = v / (sqrt|v^2| + eps_norm).
/// 4. e_0 = v_0, and with <.,.> the Minkowski product
///
///     gramschmidt   e_1 = N(v_1 - e_0 <v_1, e_0> / (e_0^2 + eps_norm))
///                   e_2 = N(v_2 - e_0 <v_2, e_0> / (e_0^2 + eps_norm) - e_1 <v_2, e_1> / (e_1^2 + eps_norm))
///                   e_3 = cross(e_0, e_1, e_2)
///     cross         e_1 = N(cross(e_0, v_1, v_2)), e_2 = N(cross(e_0, e_1, v_2)), e_3 = N(cross(e_0, e_1, e_2))
///
/// cross(a, b, c)_n = g_nn (-1)^n det (a, b, c without component n). L_0 = g e_0, L_k = -g e_k, so that
/// L e_0 = (1, 0, 0, 0). The norm has no gradient where it is 0.
void orthonormal_frames(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& vectors,
                        Tensor& frames, Tensor& counts);
void orthonormal_frames_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                 const Tensor& dframes, const Tensor& vectors, Tensor& dvectors);

/// Frames that are a boost and then a rotation, L = R B.
///
///   boost       p [T, 4], whose rest frame B leads to
///   references  r [T, 2, 4], which then define the axes
///   counts      [3] i64: light-like boosts, collinear references, boosts that are not time-like
///
/// 1. p is regularised as a vector above, noise.lightlike [T, 4]. B is its rest-frame boost (minkowski.h).
/// 2. r_0, r_1 become the spatial parts of B r. If |r_0 x r_1|^2 < eps_dependent they get eps_dependent n, n from
///    noise.dependent [T, 2, 3].
/// 3. Rows of R, with N(v) = v / max(|v|, eps_norm):
///
///     e_0 = N(r_0),   e_1 = N(N(r_1) - <N(r_1), e_0> e_0)  (gramschmidt)  or  N(e_0 x N(r_1))  (cross)
///     e_2 = e_0 x e_1
///
/// These are two different frames, not two ways to one.
void polar_decomposition(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& boost,
                         const Tensor& references, Tensor& frames, Tensor& counts);
/// Either result may be null.
void polar_decomposition_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                  const Tensor& dframes, const Tensor& boost, const Tensor& references, Tensor* dboost,
                                  Tensor* dreferences);

/// Statistics of gamma = E / m, m = sqrt(max(v^2, 0)), infinite for m = 0; v [T, 4].
///
///   statistics   [3] f64: mean, largest (NaN if there is one), number above gamma_max or -1 without it; zeros (and -1)
///                for T = 0
void lorentz_factors(Context& ctx, std::optional<double> gamma_max, const Tensor& v, Tensor& statistics);

/// A vector of the same mass and direction with a limited gamma; v, y [T, 4] of one dtype.
///
///     y = m c (1, speed beta / |beta|),     beta = p / max(E, epsilon),   speed = sqrt(1 - 1 / c^2)
///     c = max(1, gamma_max - softplus(gamma_max - gamma)),    softplus(x) = log(1 + exp(hardness x)) / hardness
///         or max(1, min(gamma, gamma_max)) without hardness
///
/// softplus(x) is x for hardness x > 20; speed^2 and |beta|^2 are at least epsilon = 1e-10. m = 0: y = 0 without a
/// gradient. gamma_max >= 1, hardness > 0.
void clamp_boost(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& v, Tensor& y);
void clamp_boost_backward(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& dy,
                          const Tensor& v, Tensor& dv);

}  // namespace lightcone::kernels
