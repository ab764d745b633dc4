#pragma once
#include "kernels/edge_vectors_tile.h"

namespace lightcone::kernels::edge {

/// Weights up to a factor per lane from the logits [senders][lane] of all senders; returns the factor.
template <class S>
Vector<S> weigh(EdgeWeight nonlinearity, int64_t senders, S* x, Vector<S>& lse) {
  const int64_t n = senders * lanes<S>;
  if (nonlinearity == EdgeWeight::exp) {
    vector_math::map(
        n, x, [](S v) { return bounded_exp(v); }, x);
    return splat(S(1));
  }
  if (nonlinearity == EdgeWeight::softplus) {
    vector_math::map(
        n, x, [](S v) { return elementwise::softplus(v); }, x);
    return splat(S(1));
  }
  Vector<S> top = splat(-S(INFINITY)), sum = {};
  for (int64_t j = 0; j < senders; ++j) top = vectors(x)[j] > top ? vectors(x)[j] : top;
  top = top == -S(INFINITY) ? Vector<S>{} : top;  // no neighbours: -inf - -inf would be NaN
  for (int64_t j = 0; j < senders; ++j) vectors(x)[j] -= top;
  vector_math::map(
      n, x, [](S v) { return vector_math::exp(v); }, x);
  for (int64_t j = 0; j < senders; ++j) sum += vectors(x)[j];
  sum += S(1e-16);
  alignas(64) S logs[lanes<S>];
  *vectors(logs) = sum;
  vector_math::map(
      lanes<S>, logs, [](S v) { return vector_math::log(v); }, logs);
  lse = top + *vectors(logs);
  return 1 / sum;
}

template <class S>
void forward(Context& ctx, const Input<S>& in, double* y, S* lse, double* norm) {
  constexpr int64_t W = lanes<S>;
  const auto& o = in.options;
  const int64_t n = in.mlp.n, longest = in.longest();
  std::vector<std::pair<int64_t, int64_t>> tiles;  // jet, first receiver
  for (int64_t b = 0; b < in.jets; ++b)
    for (int64_t first = in.ptr[b]; first < in.ptr[b + 1]; first += W) tiles.emplace_back(b, first);
  parallel_chunks(ctx, static_cast<int64_t>(tiles.size()), 4, [&](int64_t, int64_t from, int64_t to) {
    Pairs<S> pairs(o, in.mlp.edge);
    BlockMlp<S> mlp(ctx, in.mlp, false);
    auto logits = ctx.scratch<S>(n * block<S>), weights = ctx.scratch<S>(n * longest * W);
    auto inverse = ctx.scratch<double>(longest * W), sums = ctx.scratch<double>(n * 4 * W);
    for (int64_t t = from; t < to; ++t) {
      const Tile<S> tile{in, tiles[t].first, tiles[t].second};
      const int64_t N = tile.end - tile.begin;
      pairs.set_receivers(in.p, tile.first, tile.end);
      mlp.set_receivers(tile.first, tile.end);
      for (int64_t j = tile.begin; j < tile.end; j += senders) {
        const int64_t count = std::min(senders, tile.end - j), place = (j - tile.begin) * W;
        pairs.set_senders(in.p + 4 * j, count);
        mlp.template forward<false>(
            j, count, pairs.edge, [&](int64_t layer, S* x) { tile.drop(layer, j, count, x); }, logits.data());
        tile.exclude(j, count, logits.data());
        std::copy_n(pairs.inverse, count * W, inverse.data() + place);
        for (int64_t k = 0; k < n; ++k)
          std::copy_n(logits.data() + k * count * W, count * W, weights.data() + k * N * W + place);
      }
      std::fill_n(sums.data(), n * 4 * W, 0.);
      Vector<S> log_sum = {};
      alignas(64) S factors[W];
      for (int64_t k = 0; k < n; ++k) {
        *vectors(factors) = weigh<S>(o.nonlinearity, N, weights.data() + k * N * W, log_sum);
        double* sum = sums.data() + k * 4 * W;
        for (int64_t j = 0; j < N; ++j) {
          double f[4][W];
          pairs.momentum(in.p + 4 * (tile.begin + j), f);
          const S* w = weights.data() + (k * N + j) * W;
#pragma omp simd
          for (int64_t l = 0; l < W; ++l) {
            const double u = w[l] * inverse[j * W + l];
            for (int c = 0; c < 4; ++c) sum[c * W + l] += u * f[c][l];
          }
        }
        for (int64_t i = 0; i < 4 * W; ++i) sum[i] *= factors[i % W] * in.share(tile.jet);
        if (o.nonlinearity == EdgeWeight::softmax)
          for (int64_t l = 0; l < std::min(W, tile.end - tile.first); ++l) lse[(tile.first + l) * n + k] = log_sum[l];
      }
      for (int64_t l = 0; l < std::min(W, tile.end - tile.first); ++l) {
        double square = 0;
        for (int64_t i = 0; i < 4 * n; ++i) square += metric[i % 4] * sums[i * W + l] * sums[i * W + l];
        const double length = o.layer_norm ? minkowski_math::at_least(std::sqrt(std::abs(square)), least_length) : 1;
        norm[tile.first + l] = length;
        for (int64_t i = 0; i < 4 * n; ++i) y[(tile.first + l) * 4 * n + i] = sums[i * W + l] / length;
      }
    }
  });
}

}  // namespace lightcone::kernels::edge
