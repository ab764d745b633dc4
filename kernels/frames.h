#pragma once
#include <span>

#include "engine/context.h"
#include "kernels/tensor_reps.h"

namespace lightcone::kernels {

// Local frames (LLoCa; Spinner et al., arXiv:2505.20280, section 3). A token's frame is a Lorentz transformation L that
// takes vectors from the laboratory, the global frame, to the token's own: x' = L x; metric g = (+,-,-,-).
//
//   frames   [T, 4, 4]  row-major, f64 for f64 features, else f32. Its inverse is taken to be g L^T g.

/// What acts on each index of a tensor:
///
///     to_local           M = L
///     to_global          M = L^-1 = g L^T g
///     to_global_lowered  M = g L^-1 = L^T g      then sums over equal indices are invariant without a metric
///
/// Components of odd parity (p) are multiplied by the sign of det M, too.
enum class FrameMap : uint8_t { to_local, to_global, to_global_lowered };

/// y[t] = rho(M[t]) x[t]: features in the representation `reps` (tensor_reps.h), n copies of it in a row.
///
///   x, y  [T, n dim]  f64, f32 or bf16 of one dtype; y may be x
///
/// Order 0 stays as it is; a tensor of order k has its indices transformed one after the other. A row depends on itself
/// alone. Throws Error if a shape or dtype differs.
void frames_transform(Context& ctx, const Tensor& x, const Tensor& frames, const TensorReps& reps, FrameMap map,
                      Tensor& y);

///     dx[t] = rho(M[t])^T dy[t]
void frames_transform_backward(Context& ctx, const Tensor& dy, const Tensor& frames, const TensorReps& reps,
                               FrameMap map, Tensor& dx);

/// Features of n copies of a representation, and the gradient with respect to them: in the rows of two matrices, from a
/// column on.
struct FramedFeatures {
  Tensor x, dx;  ///< [T, ...] each, of one dtype
  int64_t x_column = 0, dx_column = 0, copies = 1;
  /// The local frame's side of a transformation: what to_local made (with the gradient that comes back), or what
  /// to_global or to_global_lowered was given (with the gradient that it passes on).
  bool made_by_to_local = false;
};

/// The gradient with respect to the frames, from features in local frames alone. With P = sum of dx x^T over all
/// vectors of a token (over every index of a tensor, the others summed), for features that went
///
///     to_local     dL += P g L g
///     to_global    dL += g P^T L g
///
/// dframes [T, 4, 4] is overwritten; that of a token whose finite features make more than its dtype can hold becomes 0.
/// Exact where L is a Lorentz transformation. The sign of det M has no gradient. Up to 16 pairs of features.
inline constexpr size_t most_framed_features = 16;
void frames_gradient(Context& ctx, std::span<const FramedFeatures> features, const Tensor& frames,
                     const TensorReps& reps, Tensor& dframes);

}  // namespace lightcone::kernels
