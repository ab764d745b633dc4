#include "kernels/pair_aggregations.h"

#include <algorithm>

#include "engine/check.h"
#include "kernels/pair_aggregations_math.h"

namespace lightcone::kernels {

namespace cpu {

/// The parts of N rows of tokens: three numbers a channel.
template <class T>
struct Tokens {
  T* rows;
  int64_t C;
  T* part(int64_t i, int64_t which) const { return rows + (3 * i + which) * C; }
};

/// r, c, d of one jet, as sums. A row of pairs is added to those of c as a whole, N C numbers in one go, in `column`.
template <class T>
void sums(int64_t N, int64_t C, const T* x, T* column, Tokens<T> out) {
  std::fill_n(column, N * C, T(0));
  for (int64_t i = 0; i < N; ++i) {
    const T* row = x + i * N * C;
#pragma omp simd
    for (int64_t k = 0; k < N * C; ++k) column[k] += row[k];
    T* r = out.part(i, 0);
    std::fill_n(r, C, T(0));
    for (int64_t j = 0; j < N; ++j)
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) r[c] += row[j * C + c];
    std::copy_n(row + i * C, C, out.part(i, 2));
  }
  for (int64_t j = 0; j < N; ++j) std::copy_n(column + j * C, C, out.part(j, 1));
}

/// y_ij = add_ij + u_i + v_j + (w_i if i = j) for one jet; `column` holds v.
template <class T>
void spread(int64_t N, int64_t C, Tokens<const T> in, const T* add, T* column, T* y) {
  for (int64_t j = 0; j < N; ++j) std::copy_n(in.part(j, 1), C, column + j * C);
  for (int64_t i = 0; i < N; ++i) {
    const T *u = in.part(i, 0), *w = in.part(i, 2), *more = add ? add + i * N * C : nullptr;
    T* row = y + i * N * C;
    for (int64_t j = 0; j < N; ++j)
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) row[j * C + c] = (more ? more[j * C + c] : T(0)) + (u[c] + column[j * C + c]);
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) row[i * C + c] += w[c];
  }
}

template <class T>
void pair_pool(Context& ctx, const Tensor& ptr, int64_t C, const T* x, Pool pool, T* tokens, T* totals) {
  for_each_jet_of_pairs(ctx, ptr, C, [&](int64_t b, int64_t pair, int64_t first, int64_t N) {
    auto column = ctx.scratch<T>(N * C);
    const Tokens<T> out{tokens + first * 3 * C, C};
    sums(N, C, x + pair * C, column.data(), out);
    T *G = totals + b * 2 * C, *D = G + C;
    std::fill_n(G, 2 * C, T(0));
    for (int64_t i = 0; i < N; ++i)
      for (int64_t c = 0; c < C; ++c) G[c] += out.part(i, 0)[c], D[c] += out.part(i, 2)[c];
    if (pool == Pool::sum || N == 0) return;
    for (int64_t i = 0; i < N; ++i)
      for (int64_t c = 0; c < 2 * C; ++c) out.part(i, 0)[c] /= T(N);
    for (int64_t c = 0; c < 2 * C; ++c) G[c] /= T(N * N);
  });
}

template <class T>
void pair_pool_backward(Context& ctx, const Tensor& ptr, int64_t C, const T* dtokens, const T* dtotals, Pool pool,
                        const T* add, T* dx) {
  for_each_jet_of_pairs(ctx, ptr, C, [&](int64_t b, int64_t pair, int64_t first, int64_t N) {
    auto column = ctx.scratch<T>(N * C), parts = ctx.scratch<T>(3 * N * C);
    const Tokens<const T> in{dtokens + first * 3 * C, C};
    const Tokens<T> to{parts.data(), C};
    const T *dG = dtotals + b * 2 * C, *dD = dG + C, n = pool == Pool::mean ? T(N) : T(1);
    for (int64_t i = 0; i < N; ++i)
      for (int64_t c = 0; c < C; ++c) {
        to.part(i, 0)[c] = in.part(i, 0)[c] / n + dG[c] / (n * n);
        to.part(i, 1)[c] = in.part(i, 1)[c] / n;
        to.part(i, 2)[c] = in.part(i, 2)[c] + dD[c] / (n * n);
      }
    spread(N, C, Tokens<const T>{parts.data(), C}, add ? add + pair * C : nullptr, column.data(), dx + pair * C);
  });
}

/// f(i, j) for all pairs of a jet, in squares whose pairs and transposed pairs stay in the cache.
template <class F>
void for_each_pair(int64_t N, F&& f) {
  constexpr int64_t side = 8;
  for (int64_t top = 0; top < N; top += side)
    for (int64_t left = 0; left < N; left += side)
      for (int64_t i = top; i < std::min(top + side, N); ++i)
        for (int64_t j = left; j < std::min(left + side, N); ++j) f(i, j);
}

template <class T>
void pair_combine(Context& ctx, const Tensor& ptr, int64_t C, const T* ab, const T* tokens, T* y) {
  for_each_jet_of_pairs(ctx, ptr, C, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
    auto column = ctx.scratch<T>(N * C);
    const Tokens<const T> in{tokens + first * 3 * C, C};
    T* to = y + pair * C;
    if (!ab) return spread<T>(N, C, in, nullptr, column.data(), to);
    const T* from = ab + pair * 2 * C;
    for_each_pair(N, [&](int64_t i, int64_t j) {
      const T *a = from + (i * N + j) * 2 * C, *b = from + (j * N + i) * 2 * C + C;
      const T *u = in.part(i, 0), *v = in.part(j, 1), *w = in.part(i, 2);
      T* out = to + (i * N + j) * C;
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) out[c] = (a[c] + b[c]) + (u[c] + v[c]);
      if (i == j)
        for (int64_t c = 0; c < C; ++c) out[c] += w[c];
    });
  });
}

template <class T>
void pair_combine_backward(Context& ctx, const Tensor& ptr, int64_t C, const T* dy, T* dab, T* dtokens) {
  for_each_jet_of_pairs(ctx, ptr, C, [&](int64_t, int64_t pair, int64_t first, int64_t N) {
    const T* from = dy + pair * C;
    if (dtokens) {
      auto column = ctx.scratch<T>(N * C);
      sums(N, C, from, column.data(), Tokens<T>{dtokens + first * 3 * C, C});
    }
    if (!dab) return;
    for_each_pair(N, [&](int64_t i, int64_t j) {
      T* to = dab + (pair + i * N + j) * 2 * C;
      const T *ij = from + (i * N + j) * C, *ji = from + (j * N + i) * C;
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) to[c] = ij[c], to[C + c] = ji[c];
    });
  });
}

/// f(matrix, its row, its column, c, o, m) for each coefficient that stands in a matrix; c, o as the coefficients have
/// them.
template <class F>
void for_each_coefficient(const std::vector<MatrixOfMaps>& layout, int64_t in, int64_t out, F&& f) {
  for (size_t t = 0; t < layout.size(); ++t)
    for (int64_t block = 0; block < layout[t].rows * layout[t].columns; ++block) {
      const int64_t m = layout[t].maps[block], top = block / layout[t].columns * out,
                    left = block % layout[t].columns * in;
      if (m < 0) continue;
      for (int64_t e = 0; e < in * out; ++e) f(t, top + e / in, left + e % in, e / out, e % out, m);
    }
}

}  // namespace cpu

namespace cuda {  // pair_aggregations.cu
void pair_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& tokens, Tensor& totals);
void pair_pool_backward(Context& ctx, const Tensor& dtokens, const Tensor& dtotals, const Tensor& ptr, Pool pool,
                        const Tensor& add, Tensor& dx);
void pair_combine(Context& ctx, const Tensor& ab, const Tensor& tokens, const Tensor& ptr, Tensor& y);
void pair_combine_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, Tensor* dab, Tensor* dtokens);
void aggregation_matrices(Context& ctx, const AggregationCoefficients& k, int64_t in, int64_t out, int64_t M,
                          const std::vector<MatrixOfMaps>& layout, std::vector<Tensor>& matrices);
void aggregation_matrices_backward(Context& ctx, const std::vector<Tensor>& dmatrices, const AggregationCoefficients& k,
                                   int64_t in, int64_t out, int64_t M, const std::vector<MatrixOfMaps>& layout,
                                   AggregationCoefficients& gradients);
}  // namespace cuda

namespace {

struct Sizes {
  int64_t jets, T, E, C;
};

/// Those of x [E, C].
Sizes sizes_of(const Context& ctx, const char* where, const char* argument, const Tensor& x, const Tensor& ptr) {
  check(ctx, where, argument, x).rank(2).momentum();
  check(ctx, where, "ptr", ptr).rank(1).dtype(DType::i32);
  const int64_t T = ptr.dim(0) ? ptr.offsets()[ptr.dim(0) - 1] : 0;
  const int64_t jets = check_ptr(ctx, where, "ptr", ptr, T), E = count_all_pairs(ptr);
  if (x.dim(0) != E) fail(where, "{} has {} rows, expected {}, one for each pair", argument, x.dim(0), E);
  return {jets, T, E, x.dim(1)};
}

template <class T>
T* data_of(Tensor* t) {
  return t ? t->data<T>() : nullptr;
}
template <class T>
const T* data_of(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

struct CoefficientSizes {
  int64_t in, out, M;
};
CoefficientSizes check_coefficients(const Context& ctx, const char* where, const AggregationCoefficients& k) {
  CoefficientSizes n{};
  DType dtype;
  if (k.direct.defined()) {
    check(ctx, where, "direct", k.direct).rank(3).momentum();
    n = {k.direct.dim(0), k.direct.dim(1), k.direct.dim(2)};
    dtype = k.direct.dtype();
  } else {
    check(ctx, where, "c00", k.c00).rank(2).momentum();
    check(ctx, where, "c10", k.c10).rank(2);
    n = {k.c10.dim(0), k.c10.dim(1), k.c00.dim(1)};
    dtype = k.c00.dtype();
    check(ctx, where, "c00", k.c00).shape({n.in, n.M});
    check(ctx, where, "c01", k.c01).shape({n.out, n.M}).dtype(dtype);
    check(ctx, where, "c10", k.c10).dtype(dtype);
    check(ctx, where, "c11", k.c11).like(k.c10);
  }
  if (n.in == 0 || n.out == 0) fail(where, "{} channels to {}, expected at least one of each", n.in, n.out);
  if (k.multipliers.defined()) check(ctx, where, "multipliers", k.multipliers).shape({n.M}).dtype(dtype);
  if (k.scale.defined()) check(ctx, where, "scale", k.scale).shape({n.in}).dtype(dtype);
  return n;
}

void check_layout(const Context& ctx, const char* where, const CoefficientSizes& n, DType dtype,
                  const std::vector<MatrixOfMaps>& layout, const std::vector<Tensor>& matrices) {
  if (matrices.size() != layout.size())
    fail(where, "{} matrices, expected {}, as the layout has", matrices.size(), layout.size());
  std::vector<bool> seen(n.M);
  for (size_t t = 0; t < layout.size(); ++t) {
    const MatrixOfMaps& l = layout[t];
    if (static_cast<int64_t>(l.maps.size()) != l.rows * l.columns)
      fail(where, "layout {} has {} maps, expected {} by {}", t, l.maps.size(), l.rows, l.columns);
    for (int m : l.maps) {
      if (m < -1 || m >= n.M || (m >= 0 && seen[m]))
        fail(where, "layout {} asks for map {}, expected one of {} that has no place yet", t, m, n.M);
      if (m >= 0) seen[m] = true;
    }
    check(ctx, where, "matrix", matrices[t]).shape({l.rows * n.out, l.columns * n.in}).dtype(dtype);
  }
}

DType dtype_of(const AggregationCoefficients& k) { return k.direct.defined() ? k.direct.dtype() : k.c00.dtype(); }

template <class T>
aggregation::Coefficient<T> coefficient(const AggregationCoefficients& k, const CoefficientSizes& n) {
  return {data_of<T>(k.direct),
          data_of<T>(k.c00),
          data_of<T>(k.c01),
          data_of<T>(k.c10),
          data_of<T>(k.c11),
          data_of<T>(k.multipliers),
          data_of<T>(k.scale),
          n.in,
          n.out,
          n.M};
}

}  // namespace

void pair_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& tokens, Tensor& jets) {
  const char* where = "pair_pool";
  const Sizes n = sizes_of(ctx, where, "x", x, ptr);
  check(ctx, where, "tokens", tokens).shape({n.T, 3 * n.C}).dtype(x.dtype());
  check(ctx, where, "jets", jets).shape({n.jets, 2 * n.C}).dtype(x.dtype());
  const auto scope = ctx.profiler().scope(where, x.bytes() + tokens.bytes() + jets.bytes(), 2. * x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_pool(ctx, x, ptr, pool, tokens, jets);
  dispatch_momentum(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::pair_pool(ctx, ptr, n.C, x.data<T>(), pool, tokens.data<T>(), jets.data<T>());
  });
}

void pair_pool_backward(Context& ctx, const Tensor& dtokens, const Tensor& djets, const Tensor& ptr, Pool pool,
                        const Tensor& add, Tensor& dx) {
  const char* where = "pair_pool_backward";
  const Sizes n = sizes_of(ctx, where, "dx", dx, ptr);
  check(ctx, where, "dtokens", dtokens).shape({n.T, 3 * n.C}).dtype(dx.dtype());
  check(ctx, where, "djets", djets).shape({n.jets, 2 * n.C}).dtype(dx.dtype());
  if (add.defined()) check(ctx, where, "add", add).like(dx);
  const auto scope = ctx.profiler().scope(where, (add.defined() ? 2. : 1.) * dx.bytes() + dtokens.bytes(), dx.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_pool_backward(ctx, dtokens, djets, ptr, pool, add, dx);
  dispatch_momentum(where, dx.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::pair_pool_backward(ctx, ptr, n.C, dtokens.data<T>(), djets.data<T>(), pool, data_of<T>(add), dx.data<T>());
  });
}

void pair_combine(Context& ctx, const Tensor& ab, const Tensor& tokens, const Tensor& ptr, Tensor& y) {
  const char* where = "pair_combine";
  const Sizes n = sizes_of(ctx, where, "y", y, ptr);
  check(ctx, where, "tokens", tokens).shape({n.T, 3 * n.C}).dtype(y.dtype());
  if (ab.defined()) check(ctx, where, "ab", ab).shape({n.E, 2 * n.C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope(where, (ab.defined() ? 3. : 1.) * y.bytes() + tokens.bytes(), 3. * y.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_combine(ctx, ab, tokens, ptr, y);
  dispatch_momentum(where, y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::pair_combine(ctx, ptr, n.C, data_of<T>(ab), tokens.data<T>(), y.data<T>());
  });
}

void pair_combine_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, Tensor* dab, Tensor* dtokens) {
  const char* where = "pair_combine_backward";
  const Sizes n = sizes_of(ctx, where, "dy", dy, ptr);
  if (dtokens) check(ctx, where, "dtokens", *dtokens).shape({n.T, 3 * n.C}).dtype(dy.dtype());
  if (dab) check(ctx, where, "dab", *dab).shape({n.E, 2 * n.C}).dtype(dy.dtype());
  const auto scope = ctx.profiler().scope(where, (dab ? 3. : 1.) * dy.bytes(), 2. * dy.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::pair_combine_backward(ctx, dy, ptr, dab, dtokens);
  dispatch_momentum(where, dy.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::pair_combine_backward(ctx, ptr, n.C, dy.data<T>(), data_of<T>(dab), data_of<T>(dtokens));
  });
}

void aggregation_matrices(Context& ctx, const AggregationCoefficients& k, const std::vector<MatrixOfMaps>& layout,
                          std::vector<Tensor>& matrices) {
  const char* where = "aggregation_matrices";
  const CoefficientSizes n = check_coefficients(ctx, where, k);
  check_layout(ctx, where, n, dtype_of(k), layout, matrices);
  const auto scope = ctx.profiler().scope(where, 0, 3. * n.in * n.out * n.M);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::aggregation_matrices(ctx, k, n.in, n.out, n.M, layout, matrices);
  dispatch_momentum(where, dtype_of(k), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto value = coefficient<T>(k, n);
    for (Tensor& matrix : matrices) std::fill_n(matrix.data<T>(), matrix.numel(), T(0));
    cpu::for_each_coefficient(layout, n.in, n.out,
                              [&](size_t t, int64_t row, int64_t column, int64_t c, int64_t o, int64_t m) {
                                matrices[t].data<T>()[row * matrices[t].dim(1) + column] =
                                    value(c, o, m) * value.by_map(m) * value.by_channel(column);
                              });
  });
}

void aggregation_matrices_backward(Context& ctx, const std::vector<Tensor>& dmatrices, const AggregationCoefficients& k,
                                   const std::vector<MatrixOfMaps>& layout, AggregationCoefficients& gradients) {
  const char* where = "aggregation_matrices_backward";
  const CoefficientSizes n = check_coefficients(ctx, where, k);
  check_layout(ctx, where, n, dtype_of(k), layout, dmatrices);
  auto same = [&](const char* name, const Tensor& gradient, const Tensor& of) {
    if (of.defined()) check(ctx, where, fmt::format("the gradient of {}", name), gradient).like(of);
  };
  same("direct", gradients.direct, k.direct);
  same("c00", gradients.c00, k.c00), same("c01", gradients.c01, k.c01);
  same("c10", gradients.c10, k.c10), same("c11", gradients.c11, k.c11);
  same("multipliers", gradients.multipliers, k.multipliers), same("scale", gradients.scale, k.scale);
  const auto scope = ctx.profiler().scope(where, 0, 12. * n.in * n.out * n.M);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::aggregation_matrices_backward(ctx, dmatrices, k, n.in, n.out, n.M, layout, gradients);
  dispatch_momentum(where, dtype_of(k), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto value = coefficient<T>(k, n);
    auto cleared = [](const Tensor& of, Tensor& gradient) -> T* {
      if (!of.defined()) return nullptr;
      std::fill_n(gradient.data<T>(), gradient.numel(), T(0));
      return gradient.data<T>();
    };
    T *direct = cleared(k.direct, gradients.direct), *d00 = cleared(k.c00, gradients.c00),
      *d01 = cleared(k.c01, gradients.c01), *d10 = cleared(k.c10, gradients.c10), *d11 = cleared(k.c11, gradients.c11),
      *df = cleared(k.multipliers, gradients.multipliers), *dscale = cleared(k.scale, gradients.scale);
    cpu::for_each_coefficient(
        layout, n.in, n.out, [&](size_t t, int64_t row, int64_t column, int64_t c, int64_t o, int64_t m) {
          const T dy = dmatrices[t].data<T>()[row * dmatrices[t].dim(1) + column], x = value(c, o, m),
                  by_map = value.by_map(m), by_channel = value.by_channel(column), dx = dy * by_map * by_channel;
          if (df) df[m] += dy * x * by_channel;
          if (dscale) dscale[column % n.in] += dy * x * by_map;
          if (direct) {
            direct[(c * n.out + o) * n.M + m] = dx;
            return;
          }
          const int64_t co = c * n.out + o;
          d00[c * n.M + m] += dx * value.c10[co];
          d10[co] += dx * value.c00[c * n.M + m];
          d01[o * n.M + m] += dx * value.c11[co];
          d11[co] += dx * value.c01[o * n.M + m];
        });
  });
}

}  // namespace lightcone::kernels
