#pragma once
#include <span>

#include "engine/context.h"
#include "kernels/tensor_reps.h"

namespace lightcone::kernels {

/// How the features of a token lie in memory. P is the number of components of a Lorentz object, C of channels.
enum class Layout : uint8_t {
  scalars,       ///< [T, C]
  vectors,       ///< [T, P, C], P = 4 for four-vectors
  multivectors,  ///< [P, T, C], P = 16, by blade
  heads          ///< [heads, T, C]: the features of each head in one piece
};

/// The heads inside a tensor. Row t, head h, component p, channel c is element
///
///     offset + t row_stride + h head_stride + p part_stride + c,    c < channels
///
/// and D = parts channels is the head size; features are counted p channels + c.
struct HeadView {
  Tensor tensor;
  int64_t rows = 0, heads = 1, parts = 1, channels = 0;
  int64_t offset = 0, row_stride = 0, head_stride = 0, part_stride = 0;
  int64_t size() const { return parts * channels; }
};

/// Heads h at the columns [column + h channels, column + (h + 1) channels) of the last axis: q, k, v in a fused
/// projection start at columns 0, H C and (H + Hk) C. Of Layout::heads, the heads from column / channels on.
HeadView head_view(const Tensor& tensor, Layout layout, int64_t column, int64_t heads, int64_t channels);

/// Parts p with bit p set count negatively in <q, k>: the metric (+,-,-,-) of four-vectors.
inline constexpr uint32_t minkowski_signs = 0b1110;

/// Local frames (kernels/frames.h): q, k, v and y belong to their tokens' own frames and meet in the global one. With
/// the maps of frames.h, q and v stand for rho(to_global) q and v, k for rho(to_global_lowered) k, y is
/// rho(to_local) of the sum; the transformations are part of loading and storing.
struct AttentionFrames {
  Tensor matrices;  ///< [T, 4, 4] in the dtype of lse, for the rows of q and k alike (self-attention); undefined: none
  TensorReps reps;  ///< of a head: D = Dv = reps.dim() <= 1024, views of one part
};

/// A share of the features. Scores are summed over the segments; each has its own values and outputs.
struct AttentionSegment {
  HeadView q, k, v;  ///< q: H heads of D; k: Hk heads of D; v: Hk heads of any size Dv; Hk divides H
  HeadView y;        ///< H heads of Dv
  uint32_t negative_parts = 0;
  AttentionFrames frames = {};  ///< only where there is one segment
};

/// Gradients of the views of a segment, of the same sizes; dy is read, the others are overwritten. The gradient of
/// frames is made from all of these (frames_gradient() in kernels/frames.h).
struct AttentionGradient {
  HeadView dy, dq, dk, dv;
};

/// Dropout of single probabilities: kept where draw.uniform((t H + h) Tk + j) >= probability, then divided by
/// 1 - probability. Recorded numbers are thus an array [Tq, H, Tk] over all query and key rows.
struct AttentionDropout {
  double probability = 0;
  Draw draw;
};

/// What q, k, v, dy, p and ds are rounded to where they enter a product: not at all, or (not for f64 tensors) to bf16,
/// as automatic mixed precision allows. Where Context::tf32() allows it, a GPU rounds those of f32 tensors to tf32
/// instead of not at all. Sums, softmax and <dy, y> stay f32. Heads of few features, from which this gains no time,
/// stay exact.
enum class Products : uint8_t { exact, bf16 };
inline constexpr int64_t largest_exact_head = 8;

/// Attention of each jet's queries to the same jet's keys (Vaswani et al., arXiv:1706.03762, eq. 1), without a matrix
/// of all pairs (Dao et al., arXiv:2205.14135):
///
///     s[t,j,h] = scale sum over segments of <q[t,h], k[j,h Hk / H]>,    <q, k> = sum over parts and channels of ± q k
///     p[t,j,h] = exp(s[t,j,h] - lse[t,h]),    lse[t,h] = log sum over j of exp(s[t,j,h])
///     y[t,h]   = sum over j of p[t,j,h] v[j,h Hk / H]       for each segment
///
///   segments    1 to 4; all tensors f64, f32 or bf16 of one dtype
///   q_ptr       [B+1] i32, row offsets of the jets in q and y;  k_ptr [B+1] in k and v, the same tensor for
///               self-attention
///   lse         [Tq, H], f64 for f64, else f32; the backward reads it
///
/// Sums run in the dtype of lse. What a jet gets depends on nothing but the jet (and, with dropout, its rows): same
/// bits alone, in any batch and for any number of threads. Without keys, y = 0 and lse = -inf. Infinities and NaN
/// spread as in softmax(s) v. Outputs must overlap neither each other nor inputs.
/// Throws Error if a shape, dtype, view or ptr does not fit.
void attention(Context& ctx, std::span<const AttentionSegment> segments, const Tensor& q_ptr, const Tensor& k_ptr,
               double scale, const AttentionDropout& dropout, Tensor& lse, Products products = Products::exact);

/// With the probabilities computed again from lse, m = 1 or the dropout's factor, and delta[t,h] = <dy, y> (the sum
/// over segments and features, in the tokens' own frames if there are any):
///
///     ds = p (m <dy, v> - delta),    dq = scale sum_j ds k,    dk = scale sum_t ds q,    dv = sum_t m p dy
///
/// Reads q, k, v, y, lse as the forward left them. dk and dv sum over the query heads in their order. Every element of
/// dq, dk and dv is written once: they may be columns of one tensor.
void attention_backward(Context& ctx, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, const Tensor& q_ptr, const Tensor& k_ptr,
                        double scale, const AttentionDropout& dropout, const Tensor& lse,
                        Products products = Products::exact);

}  // namespace lightcone::kernels
