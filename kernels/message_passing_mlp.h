#pragma once
#include <algorithm>

#include "kernels/elementwise_math.h"
#include "kernels/frames_math.h"
#include "kernels/linear_parts.h"
#include "kernels/message_passing.h"
#include "kernels/message_passing_edges.h"

// The perceptron of message_passing.h on a block of edges: rows of H channels.
namespace lightcone::kernels::messages {

/// Where everything lies; null where it is not there.
template <class S>
struct Perceptron {
  int64_t H, E, D;
  S *receiver, *sender, *edge, *edge_weight, *features, *feature_weight, *frames;
  std::vector<S*> weights, biases;
  int64_t depth() const { return static_cast<int64_t>(weights.size()); }

  explicit Perceptron(const MessagePerceptron& m)
      : H(m.receiver.dim(1)),
        E(m.edge_weight.defined() ? m.edge_weight.dim(1) : 0),
        D(m.feature_weight.defined() ? m.feature_weight.dim(1) : 0) {
    auto at = [](Tensor t) { return data<S>(&t); };
    receiver = at(m.receiver), sender = at(m.sender), edge = at(m.edge), edge_weight = at(m.edge_weight);
    features = at(m.features), feature_weight = at(m.feature_weight), frames = at(m.frames);
    for (const Tensor& w : m.weights) weights.push_back(at(w));
    for (const Tensor& b : m.biases) biases.push_back(at(b));
  }
};

/// What the edges of all blocks are multiplied with.
template <class S>
struct Factors {
  const Perceptron<S>& m;
  const MessageOptions& options;
  const Draw& draw;
  int64_t edges;  // in all
  std::vector<gemm::Panels<S>> forward, backward;
  std::vector<gemm::Panels<S>> feature_forward, feature_backward;  // one each, or none
  Context::Scratch<S> edge_rows;                                   // W_e^T

  Factors(Context& ctx, const Perceptron<S>& m, const MessageOptions& options, const Draw& draw, int64_t edges,
          bool with_backward)
      : m(m), options(options), draw(draw), edges(edges), edge_rows(ctx, m.E * m.H) {
    for (const S* w : m.weights) forward.emplace_back(ctx, m.H, m.H, w, true);
    if (m.features) feature_forward.emplace_back(ctx, m.H, m.D, m.feature_weight, true);
    for (int64_t k = 0; k < m.E; ++k)
      for (int64_t h = 0; h < m.H; ++h) edge_rows[k * m.H + h] = m.edge_weight[h * m.E + k];
    if (!with_backward) return;
    for (const S* w : m.weights) backward.emplace_back(ctx, m.H, m.H, w, false);
    if (m.features) feature_backward.emplace_back(ctx, m.D, m.H, m.feature_weight, false);
  }
};

/// y[c] += factor x[c]
template <class S>
void add_to(int64_t n, const S* x, S* y, S factor = 1) {
  map_row(n, y, [&](auto at) { return at(static_cast<const S*>(y)) + at(x) * factor; });
}

/// f(frame of the receiver, r) for all edges r of a block.
template <class S, class F>
void with_frames(const EdgeBlock& edges, const S* frames, FrameMap map, bool backward, F&& f) {
  for (int64_t r = 0; r < edges.count;) {
    const int32_t i = edges.receiver[r];
    const frames_math::Matrix<S> matrix(frames + 16 * i, frames_math::form(map, backward), true);
    for (; r < edges.count && edges.receiver[r] == i; ++r) f(matrix, r);
  }
}

/// The perceptron on a block of edges.
template <class S>
class BlockMlp {
 public:
  BlockMlp(Context& ctx, Factors<S>& factors, bool backward)
      : ctx_(ctx),
        f_(factors),
        m_(factors.m),
        active_(ctx, (backward ? m_.depth() + 1 : 2) * size()),
        slope_(ctx, backward ? (m_.depth() + 1) * size() : 0),
        other_(ctx, backward ? size() : 0),
        local_(ctx, m_.D * block),
        to_local_(ctx, backward ? m_.D * block : 0) {}

  /// The last gelu(h), [edge][H].
  const S* forward(const EdgeBlock& edges) {
    first(edges, active(0));
    activate(0, edges, active(0));
    for (int64_t l = 0; l < m_.depth(); ++l) {
      S* to = active((l + 1) % 2);
      gemm::multiply(ctx_, edges.count, active(l % 2), f_.forward[l], 0, m_.H, m_.biases[l], to);
      activate(l + 1, edges, to);
    }
    return active(m_.depth() % 2);
  }

  /// Forward and, from dy_i times `share`, back; adds to all of `to`.
  void backward(const EdgeBlock& edges, const S* dy, const Perceptron<S>& to) {
    const int64_t n = edges.count, H = m_.H, depth = m_.depth();
    first(edges, active(0));
    activate_with_slope(0, edges);
    for (int64_t l = 0; l < depth; ++l) {
      gemm::multiply(ctx_, n, active(l), f_.forward[l], 0, H, m_.biases[l], active(l + 1));
      activate_with_slope(l + 1, edges);
    }
    S* delta = slope(depth);
    for (int64_t r = 0; r < n; ++r) {
      const S* from = dy + edges.receiver[r] * H;
      map_row(H, delta + r * H, [&](auto at) { return at(delta + r * H) * at(from); });
    }
    for (int64_t l = depth - 1; l >= 0; --l) {
      gemm::multiply_tokens<S>(ctx_, n, H, H, delta, active(l), to.weights[l], true);
      cpu::add_rows(n, H, delta, false, to.biases[l]);
      gemm::multiply(ctx_, n, delta, f_.backward[l], 0, H, static_cast<const S*>(nullptr), other_.data());
      delta = slope(l);
      map_row(n * H, delta, [&](auto at) { return at(delta) * at(other_.data()); });
    }
    for (int64_t r = 0; r < n; ++r) {
      const S* row = delta + r * H;
      add_to(H, row, to.receiver + edges.receiver[r] * H);
      add_to(H, row, to.sender + edges.sender[r] * H);
      for (int64_t k = 0; k < m_.E; ++k) {
        const S *weight = f_.edge_rows.data() + k * H, e = m_.edge[(edges.first + r) * m_.E + k];
        add_to(H, row, to.edge_weight + k * H, e);
        if (to.edge)
          to.edge[(edges.first + r) * m_.E + k] = sum_row<S>(H, [&](auto at) { return at(row) * at(weight); });
      }
    }
    if (m_.features) features_backward(edges, delta, to);
  }

 private:
  int64_t size() const { return m_.H * block; }
  S* active(int64_t layer) { return active_.data() + layer * size(); }
  S* slope(int64_t layer) { return slope_.data() + layer * size(); }

  void first(const EdgeBlock& edges, S* h) {
    const int64_t H = m_.H, D = m_.D;
    if (m_.features) {
      with_frames(edges, m_.frames, FrameMap::to_local, false, [&](const auto& matrix, int64_t r) {
        std::copy_n(m_.features + edges.sender[r] * D, D, local_.data() + r * D);
        matrix.apply(f_.options.reps, local_.data() + r * D);
      });
      gemm::multiply(ctx_, edges.count, local_.data(), f_.feature_forward[0], 0, H, static_cast<const S*>(nullptr), h);
    }
    for (int64_t r = 0; r < edges.count; ++r) {
      const S *receiver = m_.receiver + edges.receiver[r] * H, *sender = m_.sender + edges.sender[r] * H;
      S* row = h + r * H;
      if (m_.features)
        map_row(H, row, [&](auto at) { return at(row) + (at(receiver) + at(sender)); });
      else
        map_row(H, row, [&](auto at) { return at(receiver) + at(sender); });
      for (int64_t k = 0; k < m_.E; ++k)
        add_to(H, f_.edge_rows.data() + k * H, row, m_.edge[(edges.first + r) * m_.E + k]);
    }
  }

  void features_backward(const EdgeBlock& edges, const S* delta, const Perceptron<S>& to) {
    const int64_t D = m_.D;
    S* const dx = to_local_.data();
    gemm::multiply_tokens<S>(ctx_, edges.count, m_.H, D, delta, local_.data(), to.feature_weight, true);
    gemm::multiply(ctx_, edges.count, delta, f_.feature_backward[0], 0, D, static_cast<const S*>(nullptr), dx);
    const auto& reps = f_.options.reps;
    if (to.frames)
      for (int64_t r = 0; r < edges.count;) {
        // dL += P g L g, P the sum of dx x^T in the local frame (frames.h).
        const int32_t i = edges.receiver[r];
        frames_math::Four<S> sums[4] = {};
        for (; r < edges.count && edges.receiver[r] == i; ++r)
          frames_math::add_outer(reps, local_.data() + r * D, dx + r * D, sums);
        const frames_math::Four<S> g = {1, -1, -1, -1};
        for (int mu = 0; mu < 4; ++mu)
          for (int nu = 0; nu < 4; ++nu)
            frames_math::four(to.frames + 16 * i + 4 * mu) +=
                sums[mu][nu] * g[nu] * frames_math::four(m_.frames + 16 * i + 4 * nu) * g;
      }
    with_frames(edges, m_.frames, FrameMap::to_local, true, [&](const auto& matrix, int64_t r) {
      matrix.apply(reps, dx + r * D);
      add_to(D, dx + r * D, to.features + edges.sender[r] * D);
    });
  }

  void drop(int64_t layer, const EdgeBlock& edges, S* x) const {
    const double p = f_.options.dropout;
    if (p == 0) return;
    const int64_t element = (layer * f_.edges + edges.first) * m_.H;
    for (int64_t k = 0; k < edges.count * m_.H; ++k) x[k] *= f_.draw.uniform(element + k) < p ? S(0) : S(1 / (1 - p));
  }
  void activate(int64_t layer, const EdgeBlock& edges, S* x) const {
    drop(layer, edges, x);
    vector_math::map(
        edges.count * m_.H, x, [](S h) { return elementwise::gelu(h); }, x);
  }
  void activate_with_slope(int64_t layer, const EdgeBlock& edges) {
    S* x = active(layer);
    drop(layer, edges, x);
    auto gelu = [](S h) {
      const auto normal = elementwise::normal(h);
      return std::pair(h * normal.cdf, normal.cdf + h * normal.density);
    };
    vector_math::map_pair(edges.count * m_.H, x, slope(layer), gelu, x);
    drop(layer, edges, slope(layer));
  }

  Context& ctx_;
  Factors<S>& f_;
  const Perceptron<S>& m_;
  Context::Scratch<S> active_, slope_, other_, local_, to_local_;
};

}  // namespace lightcone::kernels::messages
