#pragma once
#include <memory>
#include <span>
#include <vector>

#include "kernels/geometric_algebra.h"
#include "kernels/matmul.h"

namespace lightcone::kernels {

namespace equi {
struct Map;  // equi_linear_math.h
}

/// The most general equivariant linear map of multivectors (layout in geometric_algebra.h) with N channels from C, and
/// of S scalars beside them to So (Brehmer et al., arXiv:2411.00446), with the parameters of the references:
///
///   weight      [N, C, 10]   how much of grade k (0 … 4) and of grade k of the dual (5 … 9) goes to grade k; [N, C, 5]
///                            without the duals, which parity does not allow
///   bias        [N, 1]       of the scalar component; only without s2mvs_bias
///   s2mvs       [m N, S]     scalars to the scalar component and the pseudoscalar of a channel, interleaved
///   s2mvs_bias  [m N]        m = 2 with duals, else 1
///   mvs2s       [So, m C]    and back
///   mvs2s_bias  [So]
///   s2s         [So, S]
///
/// Undefined where the map has none. Gradients come in the same struct, those that are not wanted undefined.
struct EquiLinearWeights {
  Tensor weight, bias, s2mvs, s2mvs_bias, mvs2s, mvs2s_bias, s2s;
};

/// Where channels stand among the columns, and signs that go into the weights.
struct EquiLinearLayout {
  int64_t in_group = 0, out_group = 0;  ///< 0: one group
  /// The first so many channels of the result get their half 1 with a minus sign. For queries: the signs of the inner
  /// product of multivectors are then those of a pair, multivector_signs, for both halves.
  int64_t negated = 0;
};
/// Pairs 2 … 7 count negatively in <q, k>, if half 1 of q is negated.
inline constexpr uint32_t multivector_signs = 0b11111100;

/// Several maps of the same x and s, their results side by side, as three matrices: with (a, b) the halves of a pair,
///
///     scalars      (a, b, s') = (a, b, s) M0^T + b0      pair 0         M0 = w0 -w9 .   for each pair of channels,
///                                                                            w5  w4 .   and the scalars' weights
///     vectors      (a, b) = (a, b) M1^T                  pairs 1 … 4    M1 = w1 -w8
///                                                                            w6  w3
///     bivectors    (a, b) = (a, b) M2^T                  pairs 5 … 7    M2 = w2 -w7
///                                                                            w7  w2
///
/// With `head_scale` [H], the H equal parts of the input channels, and of the scalars, are multiplied by it first: it
/// goes into the matrices' columns.
class EquiLinearMatrices {
 public:
  /// `products` and `home` as in Weights. Throws Error if a shape or dtype differs.
  EquiLinearMatrices(Context& ctx, std::span<const EquiLinearWeights> maps, const Tensor& head_scale,
                     EquiLinearLayout layout, DType products, Context* home = nullptr);
  const Weights& scalars() const { return *scalars_; }
  const Weights& vectors() const { return *vectors_; }
  const Weights& bivectors() const { return *bivectors_; }
  const Tensor& bias() const { return bias_; }
  int64_t channels_in() const { return C_; }
  int64_t channels_out() const { return N_; }
  int64_t scalars_in() const { return S_; }
  int64_t scalars_out() const { return So_; }
  DType dtype() const { return bias_.dtype(); }

  /// From the gradients of the matrices those of what they were made of; overwritten.
  void gradients(Context& ctx, const Tensor& dscalars, const Tensor& dbias, const Tensor& dvectors,
                 const Tensor& dbivectors, std::span<EquiLinearWeights> maps, Tensor* dhead_scale) const;

 private:
  std::vector<equi::Map> places() const;
  std::vector<EquiLinearWeights> maps_;
  Tensor head_scale_;
  EquiLinearLayout layout_;
  int64_t C_, N_ = 0, S_, So_ = 0, heads_ = 1;
  std::unique_ptr<Weights> scalars_, vectors_, bivectors_;
  Tensor bias_;
};

/// y, y_s = the map of x and s, plus residuals if they are defined.
///
///   x    [8, T, 2C]   the dtype of the weights, or bf16 where products are, for f32 weights
///   s    [T, S]       the dtype of x; not read if S = 0
///   y    [8, T, 2N]   likewise, not necessarily that of x;  residual like y, may be y
///   y_s  [T, So]      the dtype of y; not written if So = 0;  residual_s like y_s, may be y_s
///
/// Sums, bits and threads as in matmul.h.
void equi_linear(Context& ctx, const Tensor& x, const Tensor& s, const EquiLinearMatrices& m, const Tensor& residual,
                 const Tensor& residual_s, Tensor& y, Tensor& y_s);

/// Gradients of x, s (nullptr: not wanted), of the weights in `maps` and of head_scale; all overwritten.
void equi_linear_backward(Context& ctx, const Tensor& dy, const Tensor& dy_s, const Tensor& x, const Tensor& s,
                          const EquiLinearMatrices& m, Tensor* dx, Tensor* ds, std::span<EquiLinearWeights> maps,
                          Tensor* dhead_scale);

}  // namespace lightcone::kernels
