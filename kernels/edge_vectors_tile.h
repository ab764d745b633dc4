#pragma once
#include "engine/threads.h"
#include "kernels/edge_vectors_mlp.h"

// What the two passes over pairs have in common.
namespace lightcone::kernels::edge {

/// What forward and backward read; momenta in f64.
template <class S>
struct Input {
  int64_t jets;
  const int32_t* ptr;
  const double* p;
  Perceptron<S> mlp;
  const EdgeVectorsOptions& options;
  const Draw& draw;
  std::vector<int64_t> pairs_before;  // of each jet, and of all

  int64_t longest() const {
    int64_t most = 0;
    for (int64_t b = 0; b < jets; ++b) most = std::max<int64_t>(most, ptr[b + 1] - ptr[b]);
    return most;
  }
  /// 1, or 1 / (number of pairs) of a constituent of jet b.
  double share(int64_t b) const {
    return options.aggregation == Pool::mean ? 1. / std::max(1, ptr[b + 1] - ptr[b] - 1) : 1.;
  }
};

/// One tile: the receivers [first, first + lanes) of jet b, or fewer.
template <class S>
struct Tile {
  static constexpr int64_t W = lanes<S>;
  const Input<S>& in;
  int64_t jet, first, begin = in.ptr[jet], end = in.ptr[jet + 1];

  /// Dropout of a layer's values x [H][count][lane] with the senders [j, j + count).
  void drop(int64_t layer, int64_t j, int64_t count, S* x) const {
    const double probability = in.options.dropout;
    if (probability == 0) return;
    const int64_t N = end - begin, H = in.mlp.H;
    for (int64_t v = 0; v < count; ++v)
      for (int64_t l = 0; l < std::min(W, end - first); ++l) {
        const int64_t i = first + l, sender = j + v;
        if (i == sender) continue;
        const int64_t pair = in.pairs_before[jet] + (i - begin) * (N - 1) + sender - begin - (sender > i);
        const int64_t element = (layer * in.pairs_before[in.jets] + pair) * H;
        for (int64_t h = 0; h < H; ++h)
          x[(h * count + v) * W + l] *= in.draw.uniform(element + h) < probability ? S(0) : S(1 / (1 - probability));
      }
  }
  /// Logits of -inf, which weigh nothing: of a constituent as its own neighbour, and of lanes that have no receiver
  /// (an own neighbour there could outweigh all of the stand-in's).
  void exclude(int64_t j, int64_t count, S* logits) const {
    for (int64_t i = 0; i < in.mlp.n * count; ++i)
      for (int64_t l = end - first; l < W; ++l) logits[i * W + l] = -S(INFINITY);
    for (int64_t i = std::max(j, first); i < std::min(j + count, first + W); ++i)
      for (int64_t k = 0; k < in.mlp.n; ++k) logits[(k * count + i - j) * W + i - first] = -S(INFINITY);
  }
};

template <class S>
S bounded_exp(S logit) {
  return logit == -S(INFINITY) ? S(0) : vector_math::exp(std::min(std::max(logit, S(-10)), S(10)));
}

}  // namespace lightcone::kernels::edge
