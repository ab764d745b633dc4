#pragma once
#include "kernels/edge_vectors_pairs.h"
#include "kernels/elementwise_math.h"

// The perceptron of edge_vectors.h for a block of pairs: arrays [channel][sender][lane] in the first-level cache, which
// weights multiply from the left.
namespace lightcone::kernels::edge {

/// Where everything lies.
template <class S>
struct Perceptron {
  struct Layer {
    int64_t rows;
    const S *weights, *bias;
  };
  int64_t H, n;
  const S *receiver, *sender, *edge;
  std::vector<Layer> layers;  // after the first, which the pairs' parts make
  int64_t depth() const { return static_cast<int64_t>(layers.size()); }
};

/// Lane l of the result: the sum over all lanes of x[l], for as many x as a register has lanes.
template <class S, size_t n>
Vector<S> sums_of_rows(const Vector<S> (&x)[n]) {
  if constexpr (n == 1) {
    return x[0];
  } else {
    constexpr auto low = [](int64_t i) { return i / 2 + i % 2 * lanes<S>; };
    constexpr auto high = [](int64_t i) { return lanes<S> / 2 + i / 2 + i % 2 * lanes<S>; };
    Vector<S> y[n / 2];
#pragma GCC unroll 16
    for (size_t k = 0; k < n / 2; ++k)
      y[k] = shuffle<S, low>(x[k], x[k + n / 2]) + shuffle<S, high>(x[k], x[k + n / 2]);
    return sums_of_rows<S>(y);
  }
}

/// A register of each of x[0 …), transposed.
template <class S>
void transpose(Vector<S> (&x)[lanes<S>]) {
  constexpr int64_t W = lanes<S>;
  constexpr auto low = [](int64_t i) { return i / 2 + i % 2 * W; };
  constexpr auto high = [](int64_t i) { return W / 2 + i / 2 + i % 2 * W; };
#pragma GCC unroll 4
  for (int64_t step = 1; step < W; step *= 2) {
    Vector<S> y[W];
#pragma GCC unroll 16
    for (int64_t k = 0; k < W / 2; ++k) {
      y[2 * k] = shuffle<S, low>(x[k], x[k + W / 2]);
      y[2 * k + 1] = shuffle<S, high>(x[k], x[k + W / 2]);
    }
#pragma GCC unroll 16
    for (int64_t k = 0; k < W; ++k) x[k] = y[k];
  }
}

/// y[r, pair] (+)= sum over c < depth of w(r, c) x[c, pair] for `n` senders; w(r, c) = w[r * row + c], or w[c * row +
/// r] if transposed.
template <class S, bool transposed>
void multiply(int64_t n, int64_t rows, int64_t depth, const S* w, int64_t row, const S* x, S* y, bool accumulate) {
  const int64_t step = gemm::tile_rows[n - 1], pairs = n * lanes<S>;
  for (int64_t r = 0; r < rows; r += step)
    gemm::tile_of<S, transposed>(static_cast<int>(n), std::min(step, rows - r), depth, w + (transposed ? r : r * row),
                                 row, x, {y + r * pairs, pairs, pairs, nullptr, accumulate});
}

/// c[r, h] += sum over pairs of a[r, pair] x[h, pair]; `scratch` holds block<S> rows of whole registers of h.
template <class S>
void multiply_pairs(int64_t pairs, int64_t rows, int64_t H, const S* a, const S* x, S* scratch, S* c) {
  constexpr int64_t W = lanes<S>, cols = gemm::tile_cols<S>;
  for (int64_t first = 0; first < H; first += cols) {
    const int64_t count = std::min(cols, H - first), n = (count + W - 1) / W, step = gemm::tile_rows[n - 1];
    for (int64_t pair = 0; pair < pairs; pair += W)
      for (int64_t h = 0; h < n * W; h += W) {
        Vector<S> t[W];
        for (int64_t k = 0; k < W; ++k)
          t[k] = first + h + k < H ? *vectors(x + (first + h + k) * pairs + pair) : Vector<S>{};
        transpose<S>(t);
        for (int64_t k = 0; k < W; ++k) *vectors(scratch + (pair + k) * n * W + h) = t[k];
      }
    for (int64_t r = 0; r < rows; r += step)
      gemm::tile_of<S, false>(static_cast<int>(n), std::min(step, rows - r), pairs, a + r * pairs, pairs, scratch,
                              {c + r * H + first, H, count, nullptr, true});
  }
}

template <class S>
class BlockMlp {
 public:
  static constexpr int64_t W = lanes<S>;

  BlockMlp(Context& ctx, const Perceptron<S>& mlp, bool backward)
      : m_(mlp),
        receiver_(ctx, mlp.H * W),
        active_(ctx, mlp.depth() * size()),
        slope_(ctx, backward ? mlp.depth() * size() : 0),
        other_(ctx, backward ? (mlp.H + W) * block<S> : 0),
        to_receiver_(ctx, backward ? mlp.H * W : 0) {}

  void set_receivers(int64_t first, int64_t last) {
    for (int64_t h = 0; h < m_.H; ++h)
      for (int64_t l = 0; l < W; ++l)
        receiver_[h * W + l] = m_.receiver[(first + l < last ? first + l : first) * m_.H + h];
  }

  /// logits [n][senders][lane] of the senders [j, j + count). mask(layer, array) applies dropout, if any.
  template <bool backward, class Mask>
  void forward(int64_t j, int64_t count, const S* edge, const Mask& mask, S* logits) {
    const int64_t H = m_.H, pairs = count * W;
    for (int64_t h = 0; h < H; ++h)
      for (int64_t v = 0; v < count; ++v) {
        Vector<S> x = vectors(receiver_.data())[h] + m_.sender[(j + v) * H + h];
        if (m_.edge) x += m_.edge[h] * vectors(edge)[v];
        vectors(active(0))[h * count + v] = x;
      }
    for (int64_t l = 0; l < m_.depth(); ++l) {
      S *x = active(l), *slope = slope_.data() + l * size();
      mask(l, x);
      auto gelu = [](S h) {
        const auto normal = elementwise::normal(h);
        return std::pair(h * normal.cdf, normal.cdf + h * normal.density);
      };
      if constexpr (backward) {
        vector_math::map_pair(H * pairs, x, slope, gelu, x);
        mask(l, slope);
      } else {
        vector_math::map(
            H * pairs, x, [](S h) { return elementwise::gelu(h); }, x);
      }
      const auto& layer = m_.layers[l];
      S* y = l + 1 < m_.depth() ? active(l + 1) : logits;
      for (int64_t r = 0; r < layer.rows; ++r) std::fill_n(y + r * pairs, pairs, layer.bias[r]);
      multiply<S, false>(count, layer.rows, H, layer.weights, H, x, y, true);
    }
  }

  void start_receivers() { std::fill_n(to_receiver_.data(), m_.H * W, S(0)); }
  /// From the gradient of the logits, to what is behind: adds to weights [as in the Perceptron], to biases and edge
  /// [channel][lane], and to the rows of `sender`.
  struct Sums {
    std::vector<S*> weights, biases;
    S *edge, *sender;
  };
  /// Returns the gradient of the first layer's result, [H][senders][lane].
  const S* backward(int64_t j, int64_t count, const S* edge, const S* dlogits, const Sums& to) {
    const int64_t H = m_.H, pairs = count * W;
    const S* delta = dlogits;
    for (int64_t l = m_.depth() - 1; l >= 0; --l) {
      const auto& layer = m_.layers[l];
      multiply_pairs(pairs, layer.rows, H, delta, active(l), other_.data(), to.weights[l]);
      for (int64_t r = 0; r < layer.rows; ++r)
        for (int64_t v = 0; v < count; ++v) vectors(to.biases[l])[r] += vectors(delta)[r * count + v];
      multiply<S, true>(count, H, layer.rows, layer.weights, H, delta, other_.data(), false);
      S* slope = slope_.data() + l * size();
      for (int64_t k = 0; k < H * count; ++k) vectors(slope)[k] *= vectors(other_.data())[k];
      delta = slope;
    }
    for (int64_t h = 0; h < H; ++h)
      for (int64_t v = 0; v < count; ++v) {
        vectors(to_receiver_.data())[h] += vectors(delta)[h * count + v];
        if (m_.edge) vectors(to.edge)[h] += vectors(delta)[h * count + v] * vectors(edge)[v];
      }
    for (int64_t v = 0; v < count; ++v)
      for (int64_t h = 0; h < H; h += W) {
        Vector<S> x[W];
        for (int64_t k = 0; k < W; ++k) x[k] = h + k < H ? vectors(delta)[(h + k) * count + v] : Vector<S>{};
        const Vector<S> sums = sums_of_rows<S>(x);
        for (int64_t k = 0; k < std::min(W, H - h); ++k) to.sender[(j + v) * H + h + k] += sums[k];
      }
    return delta;
  }
  /// Writes the receivers' gradients, rows of `to` [T, H].
  void finish_receivers(int64_t first, int64_t last, S* to) {
    for (int64_t l = 0; l < std::min(W, last - first); ++l)
      for (int64_t h = 0; h < m_.H; ++h) to[(first + l) * m_.H + h] = to_receiver_[h * W + l];
  }

 private:
  int64_t size() const { return m_.H * block<S>; }
  S* active(int64_t layer) { return active_.data() + layer * size(); }

  const Perceptron<S>& m_;
  Context::Scratch<S> receiver_, active_, slope_, other_, to_receiver_;
};

}  // namespace lightcone::kernels::edge
