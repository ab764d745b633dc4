#include "kernels/pair_vectors.h"

#include "engine/check.h"
#include "kernels/in_double.h"
#include "kernels/pair_vectors_jet.h"

namespace lightcone::kernels {

namespace cpu {

template <class S>
void pair_masses(Context& ctx, const double* p, const Tensor& ptr, double mean, double std, S* e) {
  using minkowski_math::block;
  for_each_jet_of_pairs(ctx, ptr, 16, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
    for (int64_t j = 0; j < N; j += block) {
      const int64_t count = std::min(block, N - j);
      const minkowski_math::Block q(p + 4 * (first + j), count);
      for (int64_t i = 0; i < N; ++i) {
        const double* r = p + 4 * (first + i);
        double out[block];
#pragma omp simd
        for (int64_t k = 0; k < block; ++k) {
          const double E = r[0] + q.E[k], x = r[1] + q.px[k], y = r[2] + q.py[k], z = r[3] + q.pz[k];
          const double m2 = minkowski_math::at_least(E * E - x * x - y * y - z * z, minkowski_math::epsilon);
          out[k] = (vector_math::log(m2) - mean) / std;
        }
        std::copy_n(out, count, e + pair + i * N + j);
      }
    }
  });
}

// Both ends of a pair get the same gradient; e_ij and e_ji are one mass.
template <class S>
void pair_masses_backward(Context& ctx, const S* de, const double* p, const Tensor& ptr, double std, double* dp) {
  for_each_jet_of_pairs(ctx, ptr, 16, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
    const S* g = de + pair;
    for (int64_t i = 0; i < N; ++i) {
      const double* r = p + 4 * (first + i);
      double sum[4] = {};
      for (int64_t j = 0; j < N; ++j) {
        const double* q = p + 4 * (first + j);
        double s[4], m2 = 0;
        for (int c = 0; c < 4; ++c) s[c] = r[c] + q[c], m2 += edge::metric[c] * s[c] * s[c];
        if (m2 < minkowski_math::epsilon) continue;
        const double d = 2 * (double(g[i * N + j]) + double(g[j * N + i])) / (std * m2);
        for (int c = 0; c < 4; ++c) sum[c] += edge::metric[c] * d * s[c];
      }
      std::copy_n(sum, 4, dp + 4 * (first + i));
    }
  });
}

template <class S>
void pair_products(Context& ctx, const S* q, const S* k, const Tensor& ptr, int64_t n, int64_t D, S* y) {
  constexpr int64_t W = lanes<S>;
  for_each_jet_of_pairs(ctx, ptr, n * D, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
    const int64_t tiles = (N + W - 1) / W;
    auto transposed = ctx.scratch<S>(n * D * W);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t count = std::min(W, N - t * W);
      for (int64_t m = 0; m < n * D; ++m)
        for (int64_t l = 0; l < W; ++l) transposed[m * W + l] = l < count ? k[(first + t * W + l) * n * D + m] : S(0);
      for (int64_t i = 0; i < N; ++i)
        for (int64_t v = 0; v < n; ++v) {
          const S* row = q + (first + i) * n * D + v * D;
          Vector<S> sum = {};
          for (int64_t d = 0; d < D; ++d) sum += row[d] * vectors(transposed.data())[v * D + d];
          for (int64_t l = 0; l < count; ++l) y[(pair + i * N + t * W + l) * n + v] = sum[l];
        }
    }
  });
}

template <class S>
void pair_products_backward(Context& ctx, const S* dy, const S* q, const S* k, const Tensor& ptr, int64_t n, int64_t D,
                            S* dq, S* dk) {
  for_each_jet_of_pairs(ctx, ptr, 2 * n * D, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
    auto row = [&](auto* x, int64_t i, int64_t v) { return x + (first + i) * n * D + v * D; };
    if (dq) std::fill_n(row(dq, 0, 0), N * n * D, S(0));
    if (dk) std::fill_n(row(dk, 0, 0), N * n * D, S(0));
    for (int64_t i = 0; i < N; ++i)
      for (int64_t j = 0; j < N; ++j)
        for (int64_t v = 0; v < n; ++v) {
          const S g = dy[(pair + i * N + j) * n + v];
          if (dq) {
            S* to = row(dq, i, v);
            const S* from = row(k, j, v);
#pragma omp simd
            for (int64_t d = 0; d < D; ++d) to[d] += g * from[d];
          }
          if (dk) {
            S* to = row(dk, j, v);
            const S* from = row(q, i, v);
#pragma omp simd
            for (int64_t d = 0; d < D; ++d) to[d] += g * from[d];
          }
        }
  });
}

}  // namespace cpu

namespace cuda {  // pair_vectors.cu
void pair_masses(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e);
void pair_masses_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std, Tensor& dp);
void pair_products(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& ptr, int64_t n, int64_t D, Tensor& y);
void pair_products_backward(Context& ctx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& ptr,
                            int64_t n, int64_t D, Tensor* dq, Tensor* dk);
void pair_vectors(Context& ctx, const Tensor& p, const Tensor& logits, const Tensor& ptr, const PairVectorsOptions& o,
                  Tensor& vectors, Tensor& norm);
void pair_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& logits,
                           const Tensor& ptr, const PairVectorsOptions& o, const Tensor& vectors, const Tensor& norm,
                           Tensor* dlogits, Tensor* dp);
}  // namespace cuda

namespace {

/// Checks p and ptr, and the rows of numbers of pairs. Returns T.
int64_t check_pairs(const Context& ctx, const char* where, const Tensor& p, const Tensor& ptr, const char* argument,
                    const Tensor& x) {
  check(ctx, where, "p", p).rank(2).columns(4).momentum();
  check_ptr(ctx, where, "ptr", ptr, p.dim(0));
  check(ctx, where, argument, x).rank(2).momentum();
  const int64_t E = count_all_pairs(ptr);
  if (x.dim(0) != E) fail(where, "{} has {} rows, expected {}, one for each pair", argument, x.dim(0), E);
  return p.dim(0);
}

void check_std(const char* where, double mean, double std) {
  if (!(std > 0 && std::isfinite(std) && std::isfinite(mean)))
    fail(where, "mean is {} and std is {}, expected finite numbers and a positive std", mean, std);
}

struct Products {
  int64_t n, D;
};
Products check_products(const Context& ctx, const char* where, const Tensor& q, const Tensor& k, const Tensor& ptr,
                        const Tensor& y) {
  check(ctx, where, "q", q).rank(2).momentum();
  check(ctx, where, "k", k).like(q);
  check_ptr(ctx, where, "ptr", ptr, q.dim(0));
  check(ctx, where, "y", y).rank(2).dtype(q.dtype());
  const int64_t n = y.dim(1);
  check(ctx, where, "y", y).shape({count_all_pairs(ptr), n});
  if (n == 0 || q.dim(1) % n) fail(where, "q has {} columns for {} products, expected a multiple", q.dim(1), n);
  return {n, q.dim(1) / n};
}

}  // namespace

void pair_masses(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e) {
  const char* where = "pair_masses";
  check_pairs(ctx, where, p, ptr, "e", e);
  check(ctx, where, "e", e).columns(1);
  check_std(where, mean, std);
  const auto scope = ctx.profiler().scope(where, p.bytes() + e.bytes(), 14. * e.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_masses(ctx, p, ptr, mean, std, e);
  const InDouble momenta(ctx, p);
  dispatch_momentum(where, e.dtype(), [&](auto type) {
    cpu::pair_masses(ctx, momenta, ptr, mean, std, e.data<typename decltype(type)::type>());
  });
}

void pair_masses_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std, Tensor& dp) {
  const char* where = "pair_masses_backward";
  check_pairs(ctx, where, p, ptr, "de", de);
  check(ctx, where, "de", de).columns(1);
  check_std(where, 0, std);
  check(ctx, where, "dp", dp).like(p);
  const auto scope = ctx.profiler().scope(where, p.bytes() + dp.bytes() + 2. * de.bytes(), 30. * de.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_masses_backward(ctx, de, p, ptr, std, dp);
  const InDouble momenta(ctx, p);
  FromDouble to(ctx, &dp);
  dispatch_momentum(where, de.dtype(), [&](auto type) {
    cpu::pair_masses_backward(ctx, de.data<typename decltype(type)::type>(), momenta, ptr, std, to);
  });
}

void pair_products(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& ptr, Tensor& y) {
  const char* where = "pair_products";
  const auto [n, D] = check_products(ctx, where, q, k, ptr, y);
  const auto scope = ctx.profiler().scope(where, q.bytes() + k.bytes() + y.bytes(), 2. * D * y.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_products(ctx, q, k, ptr, n, D, y);
  dispatch_momentum(where, q.dtype(), [&, n = n, D = D](auto type) {
    using S = typename decltype(type)::type;
    cpu::pair_products(ctx, q.data<S>(), k.data<S>(), ptr, n, D, y.data<S>());
  });
}

void pair_products_backward(Context& ctx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& ptr,
                            Tensor* dq, Tensor* dk) {
  const char* where = "pair_products_backward";
  const auto [n, D] = check_products(ctx, where, q, k, ptr, dy);
  if (dq) check(ctx, where, "dq", *dq).like(q);
  if (dk) check(ctx, where, "dk", *dk).like(k);
  const auto scope = ctx.profiler().scope(where, 2 * (q.bytes() + k.bytes()) + dy.bytes(), 4. * D * dy.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_products_backward(ctx, dy, q, k, ptr, n, D, dq, dk);
  dispatch_momentum(where, q.dtype(), [&, n = n, D = D](auto type) {
    using S = typename decltype(type)::type;
    cpu::pair_products_backward(ctx, dy.data<S>(), q.data<S>(), k.data<S>(), ptr, n, D, dq ? dq->data<S>() : nullptr,
                                dk ? dk->data<S>() : nullptr);
  });
}

void pair_vectors(Context& ctx, const Tensor& p, const Tensor& logits, const Tensor& ptr, const PairVectorsOptions& o,
                  Tensor& vectors, Tensor& norm) {
  const char* where = "pair_vectors";
  const int64_t T = check_pairs(ctx, where, p, ptr, "logits", logits), n = logits.dim(1);
  if (n == 0) fail(where, "logits has 0 columns, expected one for each vector");
  check(ctx, where, "vectors", vectors).shape({T, n, 4}).dtype(p.dtype());
  check(ctx, where, "norm", norm).shape({T}).dtype(DType::f64);
  const auto scope = ctx.profiler().scope(where, p.bytes() + logits.bytes() + vectors.bytes(), 20. * logits.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_vectors(ctx, p, logits, ptr, o, vectors, norm);
  const InDouble momenta(ctx, p);
  FromDouble y(ctx, &vectors);
  dispatch_momentum(where, logits.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    for_each_jet_of_pairs(ctx, ptr, 20 * n, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
      pair::Jet(ctx, o, momenta + 4 * first, N, n)
          .forward(logits.data<S>() + pair * n, y + first * 4 * n, norm.data<double>() + first);
    });
  });
}

void pair_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& logits,
                           const Tensor& ptr, const PairVectorsOptions& o, const Tensor& vectors, const Tensor& norm,
                           Tensor* dlogits, Tensor* dp) {
  const char* where = "pair_vectors_backward";
  const int64_t T = check_pairs(ctx, where, p, ptr, "logits", logits), n = logits.dim(1);
  check(ctx, where, "vectors", vectors).shape({T, n, 4}).dtype(p.dtype());
  check(ctx, where, "dvectors", dvectors).like(vectors);
  check(ctx, where, "norm", norm).shape({T}).dtype(DType::f64);
  if (dlogits) check(ctx, where, "dlogits", *dlogits).like(logits);
  if (dp) check(ctx, where, "dp", *dp).like(p);
  const auto scope =
      ctx.profiler().scope(where, 2. * (p.bytes() + logits.bytes() + vectors.bytes()), 60. * logits.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::pair_vectors_backward(ctx, dvectors, p, logits, ptr, o, vectors, norm, dlogits, dp);
  const InDouble momenta(ctx, p), y(ctx, vectors), dy(ctx, dvectors);
  FromDouble to_p(ctx, dp);
  dispatch_momentum(where, logits.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    S* const to_logits = dlogits ? dlogits->data<S>() : nullptr;
    double* const to_momenta = to_p;
    for_each_jet_of_pairs(ctx, ptr, 60 * n, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
      pair::Jet(ctx, o, momenta + 4 * first, N, n)
          .backward(dy + first * 4 * n, logits.data<S>() + pair * n, y + first * 4 * n, norm.data<double>() + first,
                    to_logits ? to_logits + pair * n : nullptr, to_momenta ? to_momenta + 4 * first : nullptr);
    });
  });
}

}  // namespace lightcone::kernels
