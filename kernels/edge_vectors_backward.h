#pragma once
#include <numeric>

#include "kernels/edge_vectors_tile.h"

namespace lightcone::kernels::edge {

/// What backward writes; momenta in f64.
template <class S>
struct Output {
  S *receiver, *sender, *edge;
  std::vector<S*> weights, biases;
  double* p;
};

/// A tile's gradient of v, [n][4][lane], and its product with v, [n][lane].
template <class S>
void to_sums(const Tile<S>& tile, const double* dy, const double* y, const double* norm, double* dv, double* dv_v) {
  constexpr int64_t W = lanes<S>;
  const int64_t n = tile.in.mlp.n;
  std::fill_n(dv, n * 4 * W, 0.);
  std::fill_n(dv_v, n * W, 0.);
  for (int64_t l = 0; l < std::min(W, tile.end - tile.first); ++l) {
    const int64_t row = (tile.first + l) * 4 * n;
    const double length = norm[tile.first + l];
    double dy_y = 0, square = 0;
    for (int64_t i = 0; i < 4 * n; ++i) {
      dy_y += dy[row + i] * y[row + i];
      square += metric[i % 4] * y[row + i] * y[row + i];
    }
    // The length is the bound, or made of v itself.
    if (!tile.in.options.layer_norm || length <= least_length) dy_y = 0;
    for (int64_t i = 0; i < 4 * n; ++i) {
      const double d = (dy[row + i] - (square < 0 ? -dy_y : dy_y) * metric[i % 4] * y[row + i]) / length;
      dv[i * W + l] = d * tile.in.share(tile.jet);
      if (tile.in.options.nonlinearity == EdgeWeight::softmax) dv_v[i / 4 * W + l] += d * y[row + i] * length;
    }
    double largest = 0;
    for (int64_t i = 0; i < 4 * n; ++i)
      largest = std::max({largest, std::abs(dv[i * W + l]), std::abs(dv_v[i / 4 * W + l])});
    if (!(largest > largest_gradient<S>) || std::isinf(largest)) continue;
    for (int64_t i = 0; i < 4 * n; ++i) dv[i * W + l] = dv_v[i / 4 * W + l] = 0;
  }
}

/// weight and its derivative from logits [n][senders][lane], in place of the logits.
template <class S>
void weigh_again(const EdgeVectorsOptions& o, int64_t n, int64_t count, const S* lse, S* logits, S* slopes) {
  const int64_t pairs = count * lanes<S>;
  if (o.nonlinearity == EdgeWeight::softmax) {
    for (int64_t i = 0; i < n * count; ++i) vectors(logits)[i] -= vectors(lse)[i / count];
    vector_math::map(
        n * pairs, logits, [](S v) { return vector_math::exp(v); }, logits);
    std::copy_n(logits, n * pairs, slopes);
  } else if (o.nonlinearity == EdgeWeight::exp) {
    auto f = [](S v) {
      const S w = bounded_exp(v);
      return std::pair(w, std::abs(v) <= 10 ? w : S(0));
    };
    vector_math::map_pair(n * pairs, logits, slopes, f, logits);
  } else {
    auto f = [](S v) { return std::pair(elementwise::softplus(v), elementwise::sigmoid(v)); };
    vector_math::map_pair(n * pairs, logits, slopes, f, logits);
  }
}

template <class S>
void backward(Context& ctx, const Input<S>& in, const double* dy, const double* y, const S* lse, const double* norm,
              const Output<S>& out) {
  constexpr int64_t W = lanes<S>;
  const int64_t n = in.mlp.n, H = in.mlp.H, depth = in.mlp.depth();
  // A segment's sums: of weights, then, one a lane until its end, of biases and edge.
  std::vector<std::pair<S*, int64_t>> parts;
  for (int64_t l = 0; l < depth; ++l) parts.emplace_back(out.weights[l], in.mlp.layers[l].rows * H);
  const int64_t matrices = std::accumulate(parts.begin(), parts.end(), int64_t{0},
                                           [](int64_t sum, const auto& part) { return sum + part.second; });
  for (int64_t l = 0; l < depth; ++l) parts.emplace_back(out.biases[l], in.mlp.layers[l].rows);
  if (in.mlp.edge) parts.emplace_back(out.edge, H);
  int64_t size = 0;
  for (const auto& part : parts) size += part.second;
  const int64_t most = std::clamp<int64_t>((int64_t{1} << 22) / size, 1, 64);
  const int64_t grain = std::max<int64_t>(1, (in.jets + most - 1) / most), segments = (in.jets + grain - 1) / grain;
  auto partial = ctx.scratch<S>(segments * size);

  parallel_chunks(ctx, in.jets, grain, [&](int64_t segment, int64_t from, int64_t to) {
    Pairs<S> pairs(in.options, in.mlp.edge);
    BlockMlp<S> mlp(ctx, in.mlp, true);
    auto logits = ctx.scratch<S>(n * block<S>), slopes = ctx.scratch<S>(n * block<S>);
    auto log_sums = ctx.scratch<S>(n * W), per_lane = ctx.scratch<S>((size - matrices) * W);
    auto dv = ctx.scratch<double>(n * 4 * W), dv_v = ctx.scratch<double>(n * W);
    S* const whole = partial.data() + segment * size;
    std::fill_n(whole, matrices, S(0));
    std::fill_n(per_lane.data(), (size - matrices) * W, S(0));
    typename BlockMlp<S>::Sums sums{{}, {}, nullptr, out.sender};
    S *matrix = whole, *lane = per_lane.data();
    for (const auto& layer : in.mlp.layers) {
      sums.weights.push_back(matrix);
      sums.biases.push_back(lane);
      matrix += layer.rows * H;
      lane += layer.rows * W;
    }
    sums.edge = lane;

    for (int64_t b = from; b < to; ++b) {
      std::fill(out.sender + in.ptr[b] * H, out.sender + in.ptr[b + 1] * H, S(0));
      if (out.p) std::fill(out.p + in.ptr[b] * 4, out.p + in.ptr[b + 1] * 4, 0.);
      for (int64_t first = in.ptr[b]; first < in.ptr[b + 1]; first += W) {
        const Tile<S> tile{in, b, first};
        to_sums(tile, dy, y, norm, dv.data(), dv_v.data());
        if (in.options.nonlinearity == EdgeWeight::softmax)
          for (int64_t i = 0; i < n * W; ++i)
            log_sums[i] = lse[(first + i % W < tile.end ? first + i % W : first) * n + i / W];
        pairs.set_receivers(in.p, first, tile.end);
        mlp.set_receivers(first, tile.end);
        mlp.start_receivers();
        double dp[4 * W] = {};
        for (int64_t j = tile.begin; j < tile.end; j += senders) {
          const int64_t count = std::min(senders, tile.end - j);
          const double* p = in.p + 4 * j;
          double f[4][W];
          pairs.set_senders(p, count);
          mlp.template forward<true>(
              j, count, pairs.edge, [&](int64_t layer, S* x) { tile.drop(layer, j, count, x); }, logits.data());
          tile.exclude(j, count, logits.data());
          weigh_again(in.options, n, count, log_sums.data(), logits.data(), slopes.data());
          for (int64_t v = 0; v < count; ++v) {
            pairs.momentum(p + 4 * v, f);
            for (int64_t k = 0; k < n; ++k) {
              const double *d = dv.data() + k * 4 * W, *less = dv_v.data() + k * W;
              S* slope = slopes.data() + (k * count + v) * W;
#pragma omp simd
              for (int64_t l = 0; l < W; ++l) {
                double d_f = 0;
                for (int c = 0; c < 4; ++c) d_f += d[c * W + l] * f[c][l];
                slope[l] = S(slope[l] * (d_f * pairs.inverse[v * W + l] - less[l]));
              }
            }
          }
          const S* delta = mlp.backward(j, count, pairs.edge, slopes.data(), sums);
          if (!out.p) continue;
          alignas(64) S de[block<S>] = {};
          if (in.mlp.edge)
            for (int64_t i = 0; i < H * count; ++i)
              vectors(de)[i % count] += in.mlp.edge[i / count] * vectors(delta)[i];
          for (int64_t v = 0; v < count; ++v) {
            double dm[4][W] = {}, dm_f[W] = {};
            pairs.momentum(p + 4 * v, f);
            for (int64_t k = 0; k < n; ++k)
              for (int c = 0; c < 4; ++c) {
                const double* d = dv.data() + (k * 4 + c) * W;
                const S* weight = logits.data() + (k * count + v) * W;
#pragma omp simd
                for (int64_t l = 0; l < W; ++l) {
                  dm[c][l] += weight[l] * d[l];
                  dm_f[l] += weight[l] * d[l] * f[c][l];
                }
              }
            pairs.add_gradient(v, p + 4 * v, dm, dm_f, de, dp, out.p + 4 * (j + v));
          }
        }
        mlp.finish_receivers(first, tile.end, out.receiver);
        if (out.p)
          for (int64_t l = 0; l < std::min(W, tile.end - first); ++l)
            for (int c = 0; c < 4; ++c) out.p[4 * (first + l) + c] += dp[c * W + l];
      }
    }
    for (int64_t i = 0; i < size - matrices; ++i) whole[matrices + i] = sum_of_lanes<S>(vectors(per_lane.data())[i]);
  });

  int64_t place = 0;
  for (const auto& [to, count] : parts) {
    std::fill_n(to, count, S(0));
    for (int64_t s = 0; s < segments; ++s)
      for (int64_t i = 0; i < count; ++i) to[i] += partial[s * size + place + i];
    place += count;
  }
}

}  // namespace lightcone::kernels::edge
