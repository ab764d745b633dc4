#pragma once
#include "kernels/edge_vectors_forward.h"
#include "kernels/pair_vectors.h"

// pair_vectors.h for one jet, in f64. A tile is as many receivers as a register has lanes; numbers of pairs are
// [vector][tile][sender][lane]. Behind the last receiver the first one stands in, with logits of -inf.
namespace lightcone::kernels::pair {

constexpr int64_t W = lanes<double>;

inline EdgeVectorsOptions edge_options(const PairVectorsOptions& o) {
  return {o.operation, o.nonlinearity, o.aggregation, o.fm_norm, o.layer_norm};
}

class Jet {
 public:
  Jet(Context& ctx, const PairVectorsOptions& options, const double* p, int64_t N, int64_t n)
      : o_(options),
        edge_(edge_options(options)),
        p_(p),
        N_(N),
        n_(n),
        tiles_((N + W - 1) / W),
        weights_(ctx, n * tiles_ * N * W),
        slopes_(ctx, n * tiles_ * N * W),
        dv_(ctx, n * 4 * W) {}

  /// y [N, n, 4] and norm [N].
  template <class S>
  void forward(const S* logits, double* y, double* norm) {
    weigh(logits);
    edge::Pairs<double> pairs(edge_, false);
    const double share = o_.aggregation == Pool::mean ? 1. / static_cast<double>(N_) : 1.;
    for (int64_t t = 0; t < tiles_; ++t) {
      double* sums = dv_.data();
      std::fill_n(sums, n_ * 4 * W, 0.);
      for_each_sender(pairs, t, [&](int64_t i, int64_t v, const double(&f)[4][W]) {
        for (int64_t k = 0; k < n_; ++k) {
          const double *w = at(weights_, k, t, i), *inverse = pairs.inverse + v * W;
          double* sum = sums + k * 4 * W;
#pragma omp simd
          for (int64_t l = 0; l < W; ++l)
            for (int c = 0; c < 4; ++c) sum[c * W + l] += w[l] * inverse[l] * f[c][l];
        }
      });
      for (int64_t l = 0; l < W && t * W + l < N_; ++l) {
        const int64_t row = t * W + l;
        double square = 0;
        for (int64_t m = 0; m < 4 * n_; ++m) {
          sums[m * W + l] *= share;
          square += edge::metric[m % 4] * sums[m * W + l] * sums[m * W + l];
        }
        norm[row] = o_.layer_norm ? minkowski_math::at_least(std::sqrt(std::abs(square)), edge::least_length) : 1;
        for (int64_t m = 0; m < 4 * n_; ++m) y[row * 4 * n_ + m] = sums[m * W + l] / norm[row];
      }
    }
  }

  /// dlogits [N^2, n] and dp [N, 4], unless nullptr.
  template <class S>
  void backward(const double* dy, const S* logits, const double* y, const double* norm, S* dlogits, double* dp) {
    weigh(logits);
    derive(logits);
    edge::Pairs<double> pairs(edge_, false);
    if (dp) std::fill_n(dp, 4 * N_, 0.);
    for (int64_t t = 0; t < tiles_; ++t) {
      to_sums(t, dy, y, norm);
      double to[4 * W] = {};
      for_each_sender(pairs, t, [&](int64_t i, int64_t v, const double(&f)[4][W]) {
        const double* inverse = pairs.inverse + v * W;
        double dm[4][W] = {}, dm_f[W] = {};
        for (int64_t k = 0; k < n_; ++k) {
          const double *w = at(weights_, k, t, i), *d = dv_.data() + k * 4 * W;
          double* slope = at(slopes_, k, t, i);
#pragma omp simd
          for (int64_t l = 0; l < W; ++l) {
            double d_f = 0;
            for (int c = 0; c < 4; ++c) d_f += d[c * W + l] * f[c][l], dm[c][l] += w[l] * d[c * W + l];
            slope[l] *= d_f * inverse[l];
            dm_f[l] += w[l] * d_f;
          }
        }
        if (dp) pairs.add_gradient(v, p_ + 4 * i, dm, dm_f, nullptr, to, dp + 4 * i);
      });
      if (dp)
        for (int64_t l = 0; l < W && t * W + l < N_; ++l)
          for (int c = 0; c < 4; ++c) dp[4 * (t * W + l) + c] += to[c * W + l];
    }
    if (!dlogits) return;
    if (o_.nonlinearity == EdgeWeight::softmax) finish_softmax();
    for (int64_t k = 0; k < n_; ++k)
      for (int64_t i = 0; i < N_; ++i)
        for (int64_t j = 0; j < N_; ++j)
          dlogits[(i * N_ + j) * n_ + k] = static_cast<S>(at(slopes_, k, j / W, i)[j % W]);
  }

 private:
  using Numbers = Context::Scratch<double>;
  double* at(Numbers& x, int64_t k, int64_t tile, int64_t sender) {
    return x.data() + ((k * tiles_ + tile) * N_ + sender) * W;
  }

  /// f(sender, its place in `pairs`, f_ij of the tile's receivers) for all senders.
  template <class F>
  void for_each_sender(edge::Pairs<double>& pairs, int64_t tile, F&& f) {
    pairs.set_receivers(p_, tile * W, N_);
    for (int64_t i = 0; i < N_; i += edge::senders) {
      const int64_t count = std::min(edge::senders, N_ - i);
      pairs.set_senders(p_ + 4 * i, count);
      for (int64_t v = 0; v < count; ++v) {
        double momentum[4][W];
        pairs.momentum(p_ + 4 * (i + v), momentum);
        f(i + v, v, momentum);
      }
    }
  }

  template <class S>
  void load(const S* logits, Numbers& to) {
    for (int64_t k = 0; k < n_; ++k)
      for (int64_t t = 0; t < tiles_; ++t)
        for (int64_t i = 0; i < N_; ++i)
          for (int64_t l = 0; l < W; ++l)
            at(to, k, t, i)[l] = t * W + l < N_ ? logits[(i * N_ + t * W + l) * n_ + k] : -INFINITY;
  }

  template <class S>
  void weigh(const S* logits) {
    load(logits, weights_);
    if (o_.nonlinearity == EdgeWeight::softmax && o_.softmax_over_receivers) return weigh_receivers();
    for (int64_t kt = 0; kt < n_ * tiles_; ++kt) {
      double* tile = weights_.data() + kt * N_ * W;
      Vector<double> lse;
      Vector<double> factor = edge::weigh<double>(o_.nonlinearity, N_, tile, lse);
      // The sum is at least 1, or 1e-16 without a logit above -inf. Lanes without a receiver keep their 0.
      if (o_.nonlinearity == EdgeWeight::softmax)
        for (int64_t l = 0; l < W && kt % tiles_ * W + l < N_; ++l)
          if (factor[l] > 2) factor[l] = NAN;
      for (int64_t i = 0; i < N_; ++i) vectors(tile)[i] *= factor;
    }
  }

  void weigh_receivers() {
    auto each = [&](int64_t k, int64_t i, auto f) {
      for (int64_t t = 0; t < tiles_; ++t) f(vectors(at(weights_, k, t, i))[0]);
    };
    for (int64_t k = 0; k < n_; ++k) {
      for (int64_t i = 0; i < N_; ++i) {
        Vector<double> top = splat(-double(INFINITY));
        each(k, i, [&](Vector<double>& x) { top = x > top ? x : top; });
        double largest = top[0];
        for (int64_t l = 1; l < W; ++l) largest = std::max(largest, top[l]);
        each(k, i, [&](Vector<double>& x) { x -= largest; });
      }
      double* plane = at(weights_, k, 0, 0);
      vector_math::map(
          tiles_ * N_ * W, plane, [](double x) { return vector_math::exp(x); }, plane);
      for (int64_t i = 0; i < N_; ++i) {
        Vector<double> sum = {};
        each(k, i, [&](Vector<double>& x) { sum += x; });
        const double factor = 1 / sum_of_lanes<double>(sum);
        each(k, i, [&](Vector<double>& x) { x *= factor; });
      }
    }
  }

  /// Derivatives of the weights (of a softmax: the weights themselves).
  template <class S>
  void derive(const S* logits) {
    const int64_t count = n_ * tiles_ * N_ * W;
    if (o_.nonlinearity == EdgeWeight::softplus) {
      load(logits, slopes_);
      vector_math::map(
          count, slopes_.data(), [](double x) { return elementwise::sigmoid(x); }, slopes_.data());
    } else {
      std::copy_n(weights_.data(), count, slopes_.data());
    }
    if (o_.nonlinearity != EdgeWeight::exp) return;
    for (int64_t k = 0; k < n_; ++k)
      for (int64_t i = 0; i < N_; ++i)
        for (int64_t j = 0; j < N_; ++j)
          if (!(std::abs(logits[(i * N_ + j) * n_ + k]) <= 10)) at(slopes_, k, j / W, i)[j % W] = 0;
  }

  /// A tile's gradient of v, [n][4][lane].
  void to_sums(int64_t tile, const double* dy, const double* y, const double* norm) {
    std::fill_n(dv_.data(), n_ * 4 * W, 0.);
    const double share = o_.aggregation == Pool::mean ? 1. / static_cast<double>(N_) : 1.;
    for (int64_t l = 0; l < W && tile * W + l < N_; ++l) {
      const double *g = dy + (tile * W + l) * 4 * n_, *x = y + (tile * W + l) * 4 * n_, length = norm[tile * W + l];
      double dy_y = 0, square = 0;
      for (int64_t m = 0; m < 4 * n_; ++m) dy_y += g[m] * x[m], square += edge::metric[m % 4] * x[m] * x[m];
      // The length is the bound, or made of v itself.
      if (!o_.layer_norm || length <= edge::least_length) dy_y = 0;
      for (int64_t m = 0; m < 4 * n_; ++m)
        dv_[m * W + l] = (g[m] - (square < 0 ? -dy_y : dy_y) * edge::metric[m % 4] * x[m]) / length * share;
    }
  }

  /// slopes = w dw of a softmax; its gradient is w dw - w (their sum over what it runs over).
  void finish_softmax() {
    for (int64_t k = 0; k < n_; ++k) {
      if (o_.softmax_over_receivers) {
        for (int64_t i = 0; i < N_; ++i) {
          Vector<double> sum = {};
          for (int64_t t = 0; t < tiles_; ++t) sum += *vectors(at(slopes_, k, t, i));
          const double total = sum_of_lanes<double>(sum);
          for (int64_t t = 0; t < tiles_; ++t)
            *vectors(at(slopes_, k, t, i)) -= *vectors(at(weights_, k, t, i)) * total;
        }
      } else {
        for (int64_t t = 0; t < tiles_; ++t) {
          Vector<double> sum = {};
          for (int64_t i = 0; i < N_; ++i) sum += *vectors(at(slopes_, k, t, i));
          for (int64_t i = 0; i < N_; ++i) *vectors(at(slopes_, k, t, i)) -= *vectors(at(weights_, k, t, i)) * sum;
        }
      }
    }
  }

  const PairVectorsOptions& o_;
  const EdgeVectorsOptions edge_;
  const double* p_;
  const int64_t N_, n_, tiles_;
  Numbers weights_, slopes_, dv_;
};

}  // namespace lightcone::kernels::pair
