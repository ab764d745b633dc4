#pragma once
#include <vector>

#include "kernels/random.h"
#include "kernels/segment.h"
#include "kernels/tensor_reps.h"

namespace lightcone::kernels {

// Message passing on the complete graphs of jets (Gilmer et al., arXiv:1704.01212; between local frames: Spinner et
// al., arXiv:2505.20280, section 3): every constituent i pools what a perceptron makes of it and each other constituent
// j.
//
//     h    = receiver_i + sender_j + W_e e_ij + W_x rho(L_i) x_j        [H]
//     h    = W_l gelu(h) + b_l          for each l of `weights`
//     y_i  = sum (or mean) over j != i of gelu(h)                        [H]
//
// The first layer of a perceptron on [features of j, features of i, e_ij] falls into parts: `receiver` and `sender`
// belong to one constituent each, and so does x_j, the part that depends on frames, in the laboratory frame. The last,
// linear layer of the messages commutes with the sum. All of these are the caller's, once per constituent. GELU is the
// exact one.
//
//   ptr            [B+1]      i32, see segment.h; edges are the ordered pairs within a jet
//   receiver, sender, y [T, H]
//   edge           [P, E]     of the P edges, jet by jet, i by i, j by j, without j = i; see edge_attributes()
//   edge_weight    [H, E]
//   features       [T, D]     x, in the representation `reps` (tensor_reps.h), D its dimension
//   feature_weight [H, D]
//   frames         [T, 4, 4]  L, from the laboratory to the constituent's frame (frames.h)
//   weights        [H, H] and biases [H], as many of both, or none
//
// All f64 or all f32, products as in matmul.h. Memory besides is that of some blocks of 128 edges per thread, on a GPU
// of 2^15 edges, or of one receiver's if they are more; the backward computes them again. A jet's rows depend on that
// jet alone, bit by bit; gradients of weights are sums over fixed groups of jets (on a GPU of edges), combined in
// order. All bits are independent of the number of threads. A constituent without others gets y = 0. Throws Error if a
// shape, dtype or option does not fit.

/// The perceptron, or the gradients of all of it.
struct MessagePerceptron {
  Tensor receiver, sender;
  Tensor edge, edge_weight;                 ///< both undefined: edges have no attributes
  Tensor features, feature_weight, frames;  ///< all undefined: nothing depends on frames
  std::vector<Tensor> weights, biases;
};

struct MessageOptions {
  Pool aggregation = Pool::sum;
  TensorReps reps;  ///< of the features
  /// Every h before its GELU becomes h / (1 - dropout) where u >= dropout, else 0: for channel c in front of the l-th
  /// GELU (from 0), u is element (l P + edge) H + c of the Draw.
  double dropout = 0;
};

/// `dropout` is read if options.dropout is not 0.
void message_passing(Context& ctx, const Tensor& ptr, const MessagePerceptron& mlp, const MessageOptions& options,
                     const Draw& dropout, Tensor& y);

/// Gradients of the perceptron, all overwritten; that of `edge` or `frames` may be undefined: then nobody wants it.
/// Exact in frames where L is a Lorentz transformation.
void message_passing_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, const MessagePerceptron& mlp,
                              const MessageOptions& options, const Draw& dropout, MessagePerceptron& gradients);

/// The attribute of each edge in the order above, computed in f64:
///
///     e_ij = (ln max((p_i + p_j)^2, 1e-10) - mean) / std              metric (+,-,-,-)
///
///   p [T, 4] (E, px, py, pz), e [P, 1]     f64 or f32 each
void edge_attributes(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e);
/// Overwrites dp; no gradient where the bound acts.
void edge_attributes_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std,
                              Tensor& dp);

}  // namespace lightcone::kernels
