#include "kernels/pair_aggregations.h"

#include "kernels/pair_aggregations_math.h"
#include "kernels/pairs.cuh"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Constituent;
using cuda::Jets;
using cuda::lane_index;
using cuda::Pack;
using cuda::warp_sum;

// r, c, d of one constituent a block, r and c as sums or means.
template <class T>
__global__ void pools_kernel(Jets jets, int64_t C, const T* x, bool mean, T* tokens) {
  const Constituent own = jets.constituent(blockIdx.x);
  T* to = tokens + blockIdx.x * 3 * C;
  const T n = mean ? T(own.N) : T(1);
  cuda::column_sums<T>(
      own.N, C, [&](int64_t j, int64_t c) { return x[own.pair(own.i, j) * C + c]; },
      [&](int64_t c, T sum) { to[c] = sum / n; });
  cuda::column_sums<T>(
      own.N, C, [&](int64_t j, int64_t c) { return x[own.pair(j, own.i) * C + c]; },
      [&](int64_t c, T sum) { to[C + c] = sum / n; });
  for (int64_t c = threadIdx.x; c < C; c += block_threads) to[2 * C + c] = x[own.pair(own.i, own.i) * C + c];
}

// G, D of one jet a block, from r and d of its constituents.
template <class T>
__global__ void totals_kernel(Jets jets, int64_t C, const T* tokens, bool mean, T* totals) {
  const int64_t b = blockIdx.x, first = jets.ptr[b], N = jets.ptr[b + 1] - first;
  const T n = mean && N ? T(N) : T(1);
  cuda::column_sums<T>(
      N, 2 * C, [&](int64_t i, int64_t c) { return tokens[(first + i) * 3 * C + (c < C ? c : c + C)]; },
      [&](int64_t c, T sum) { totals[b * 2 * C + c] = sum / (c < C ? n : n * n); });
}

// y[pair, c] = f(constituent i, j, pair, c) for all pairs of i, which a block owns: a thread a pack of V channels at a
// time.
template <int V, class T>
struct Rows {
  Jets jets;
  int64_t C;
  T* y;

  template <class F>
  __device__ void each(F f) const {
    const Constituent own = jets.constituent(blockIdx.x);
    const int packs = static_cast<int>(C / V), j_step = block_threads / packs, c_step = block_threads % packs;
    int j = static_cast<int>(threadIdx.x) / packs, c = static_cast<int>(threadIdx.x) % packs;
    for (; j < own.N;) {
      const int64_t pair = own.pair(own.i, j);
      cuda::store_word(y + pair * C + c * V, f(own, j, pair, int64_t{c} * V));
      j += j_step, c += c_step;
      if (c >= packs) c -= packs, ++j;
    }
  }
};

template <int V, class T, class F>
__device__ Pack<T, V> pack_of(F f) {
  Pack<T, V> pack;
#pragma unroll
  for (int k = 0; k < V; ++k) pack.at[k] = f(k);
  return pack;
}

template <int V, class T>
__global__ void pool_backward_kernel(Rows<V, T> rows, const T* dtokens, const T* dtotals, bool mean, const T* add) {
  const int64_t C = rows.C;
  rows.each([&](const Constituent& own, int j, int64_t pair, int64_t c) {
    auto part = [&](int i, int which) { return cuda::load_word<V>(dtokens + (3 * (own.first + i) + which) * C + c); };
    const T n = mean ? T(own.N) : T(1);
    const Pack<T, V> u = part(own.i, 0), v = part(j, 1), G = cuda::load_word<V>(dtotals + own.jet * 2 * C + c);
    auto dx = pack_of<V, T>([&](int k) { return (u.at[k] / n + G.at[k] / (n * n)) + v.at[k] / n; });
    if (add) {
      const auto other = cuda::load_word<V>(add + pair * C + c);
      dx = pack_of<V, T>([&](int k) { return other.at[k] + dx.at[k]; });
    }
    if (own.i == j) {
      const Pack<T, V> w = part(j, 2), D = cuda::load_word<V>(dtotals + (own.jet * 2 + 1) * C + c);
      dx = pack_of<V, T>([&](int k) { return dx.at[k] + (w.at[k] + D.at[k] / (n * n)); });
    }
    return dx;
  });
}

template <int V, class T>
__global__ void combine_kernel(Rows<V, T> rows, const T* ab, const T* tokens) {
  const int64_t C = rows.C;
  rows.each([&](const Constituent& own, int j, int64_t pair, int64_t c) {
    auto part = [&](int i, int which) { return cuda::load_word<V>(tokens + (3 * (own.first + i) + which) * C + c); };
    const Pack<T, V> u = part(own.i, 0), v = part(j, 1);
    auto y = pack_of<V, T>([&](int k) { return u.at[k] + v.at[k]; });
    if (ab) {
      const auto a = cuda::load_word<V>(ab + pair * 2 * C + c),
                 b = cuda::load_word<V>(ab + (own.pair(j, own.i) * 2 + 1) * C + c);
      y = pack_of<V, T>([&](int k) { return (a.at[k] + b.at[k]) + y.at[k]; });
    }
    if (own.i == j) {
      const Pack<T, V> w = part(j, 2);
      y = pack_of<V, T>([&](int k) { return y.at[k] + w.at[k]; });
    }
    return y;
  });
}

// Rows of dab, 2C wide: dy of the pair and of the transposed one side by side.
template <int V, class T>
__global__ void combine_backward_kernel(Rows<V, T> rows, const T* dy) {
  const int64_t C = rows.C / 2;
  rows.each([&](const Constituent& own, int j, int64_t pair, int64_t c) {
    return cuda::load_word<V>(dy + (c < C ? pair * C + c : own.pair(j, own.i) * C + c - C));
  });
}

/// f(Rows<V, T>) for y with C columns, with V as many of C / parts as travel as one word in all of `in` and y.
template <class T, class F, class... In>
void with_rows(Jets jets, int64_t C, int64_t parts, T* y, F&& f, const In*... in) {
  constexpr int V = cuda::pack_size<T>;
  if (C / parts % V == 0 && cuda::aligned<V>(y, in...))
    f(Rows<V, T>{jets, C, y});
  else
    f(Rows<1, T>{jets, C, y});
}

using aggregation::Coefficient;

/// Where the block of each map is in its matrix: in the parameters of a kernel, or in memory where maps are very many.
template <class T>
struct Places {
  struct Block {
    T* first;  ///< null: none
    int64_t row;
  };
  static constexpr int64_t most = 128;
  Block blocks[most];
  const Block* all;

  /// Number e of the map's plane.
  __device__ T* operator()(int64_t m, int64_t e, int64_t in) const {
    const Block b = all ? all[m] : blocks[m];
    return b.first ? b.first + e / in * b.row + e % in : nullptr;
  }
};

/// Gradients that are sums; null where there is none.
template <class T>
struct Sums {
  T *c00, *c01, *c10, *c11, *multipliers, *scale;
};

// A thread takes one number of a map's plane at a time; the maps' planes stand one after the other.
template <class T>
__global__ void matrices_kernel(Coefficient<T> k, const __grid_constant__ Places<T> places) {
  const int64_t plane = k.in * k.out;
  for (cuda::Place at(plane); at.row < k.M; at.next())
    if (T* const x = places(at.row, at.col, k.in))
      *x = k(at.col / k.out, at.col % k.out, at.row) * k.by_map(at.row) * k.by_channel(at.col);
}

// As matrices_kernel; zero for maps without a place.
template <class T>
__global__ void direct_backward_kernel(Coefficient<T> k, const __grid_constant__ Places<const T> places, T* direct) {
  const int64_t plane = k.in * k.out;
  for (cuda::Place at(plane); at.row < k.M; at.next()) {
    const T* const dy = places(at.row, at.col, k.in);
    direct[at.col * k.M + at.row] = dy ? *dy * k.by_map(at.row) * k.by_channel(at.col) : T(0);
  }
}

// A warp owns one number of one of the gradients that are sums, which stand one after the other here; a lane takes
// every 32nd of its terms.
template <class T>
__global__ void coefficient_sums_kernel(Coefficient<T> k, const __grid_constant__ Places<const T> places, Sums<T> to) {
  const int64_t in = k.in, out = k.out, M = k.M;
  int64_t index = cuda::warp_index();
  auto dy = [&](int64_t c, int64_t o, int64_t m) {
    const T* const x = places(m, c * out + o, in);
    return x ? *x : T(0);
  };
  auto dx = [&](int64_t c, int64_t o, int64_t m) { return dy(c, o, m) * k.by_map(m) * k.by_channel(c * out + o); };
  /// Whether this is one of n numbers at `x`, then the sum of term(number, s) over s < terms; else what comes next is.
  auto one_of = [&](T* x, int64_t n, int64_t terms, auto term) {
    if (!x) return false;
    if (index >= n) {
      index -= n;
      return false;
    }
    T sum = 0;
    for (int64_t s = lane_index(); s < terms; s += 32) sum += term(index, s);
    sum = warp_sum(sum);
    if (lane_index() == 0) x[index] = sum;
    return true;
  };
  [[maybe_unused]] const bool found =
      one_of(to.c00, in * M, out, [&](int64_t n, int64_t o) { return dx(n / M, o, n % M) * k.c10[n / M * out + o]; }) ||
      one_of(to.c01, out * M, in, [&](int64_t n, int64_t c) { return dx(c, n / M, n % M) * k.c11[c * out + n / M]; }) ||
      one_of(to.c10, in * out, M,
             [&](int64_t n, int64_t m) { return dx(n / out, n % out, m) * k.c00[n / out * M + m]; }) ||
      one_of(to.c11, in * out, M,
             [&](int64_t n, int64_t m) { return dx(n / out, n % out, m) * k.c01[n % out * M + m]; }) ||
      one_of(
          to.multipliers, M, in * out,
          [&](int64_t m, int64_t e) { return dy(e / out, e % out, m) * k(e / out, e % out, m) * k.by_channel(e); }) ||
      one_of(to.scale, in, out * M, [&](int64_t n, int64_t s) {
        const int64_t e = s / M * in + n, m = s % M;
        return dy(e / out, e % out, m) * k(e / out, e % out, m) * k.by_map(m);
      });
}

template <class T>
T* data_of(Tensor* t) {
  return t && t->defined() ? t->data<T>() : nullptr;
}
template <class T>
const T* data_of(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

template <class T>
void pools(Context& ctx, const char* where, Jets jets, int64_t tokens, int64_t C, const T* x, bool mean, T* to) {
  cuda::launch(ctx, where, pools_kernel<T>, {C ? tokens : 0, block_threads}, jets, C, x, mean, to);
}

/// f(Places of the maps in these matrices)
template <class T, class Matrices, class F>
void with_places(Context& ctx, const std::vector<MatrixOfMaps>& layout, Matrices& matrices, const Coefficient<T>& k,
                 F&& f) {
  using Element = std::remove_pointer_t<decltype(matrices[0].template data<T>())>;
  using Block = typename Places<Element>::Block;
  std::vector<Block> blocks(k.M);
  for (size_t t = 0; t < layout.size(); ++t)
    for (int64_t b = 0; b < layout[t].rows * layout[t].columns; ++b) {
      const int64_t row = layout[t].columns * k.in;
      if (const int m = layout[t].maps[b]; m >= 0)
        blocks[m] = {
            matrices[t].template data<T>() + b / layout[t].columns * k.out * row + b % layout[t].columns * k.in, row};
    }
  const bool many = k.M > Places<Element>::most;
  auto all = ctx.scratch<Block>(many ? k.M : 0);
  Places<Element> places{};
  if (many) {
    ctx.allocator().copy_in(all.data(), blocks.data(), blocks.size() * sizeof(Block));
    places.all = all.data();
  } else {
    std::copy(blocks.begin(), blocks.end(), places.blocks);
  }
  f(places);
}

template <class T>
Coefficient<T> coefficient(const AggregationCoefficients& k, int64_t in, int64_t out, int64_t M) {
  return {data_of<T>(k.direct),
          data_of<T>(k.c00),
          data_of<T>(k.c01),
          data_of<T>(k.c10),
          data_of<T>(k.c11),
          data_of<T>(k.multipliers),
          data_of<T>(k.scale),
          in,
          out,
          M};
}

}  // namespace

namespace cuda {

void pair_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& tokens, Tensor& totals) {
  const PairsOf pairs(ctx, ptr);
  const bool mean = pool == Pool::mean;
  const int64_t C = x.dim(1);
  dispatch_momentum("pair_pool", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    pools(ctx, "pair_pool", pairs, tokens.dim(0), C, x.data<T>(), mean, tokens.data<T>());
    launch(ctx, "pair_pool", totals_kernel<T>, {C ? totals.dim(0) : 0, block_threads}, pairs, C, tokens.data<T>(), mean,
           totals.data<T>());
  });
}

void pair_pool_backward(Context& ctx, const Tensor& dtokens, const Tensor& dtotals, const Tensor& ptr, Pool pool,
                        const Tensor& add, Tensor& dx) {
  const char* where = "pair_pool_backward";
  const PairsOf pairs(ctx, ptr);
  dispatch_momentum(where, dx.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T *tokens = dtokens.data<T>(), *totals = dtotals.data<T>(), *other = data_of<T>(add);
    auto run = [&]<int V>(Rows<V, T> rows) {
      launch(ctx, where, pool_backward_kernel<V, T>, {rows.C ? dtokens.dim(0) : 0, block_threads}, rows, tokens, totals,
             pool == Pool::mean, other);
    };
    with_rows(pairs, dx.dim(1), 1, dx.data<T>(), run, tokens, totals, other);
  });
}

void pair_combine(Context& ctx, const Tensor& ab, const Tensor& tokens, const Tensor& ptr, Tensor& y) {
  const PairsOf pairs(ctx, ptr);
  dispatch_momentum("pair_combine", y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T *both = data_of<T>(ab), *uvw = tokens.data<T>();
    auto run = [&]<int V>(Rows<V, T> rows) {
      launch(ctx, "pair_combine", combine_kernel<V, T>, {rows.C ? tokens.dim(0) : 0, block_threads}, rows, both, uvw);
    };
    with_rows(pairs, y.dim(1), 1, y.data<T>(), run, both, uvw);
  });
}

void pair_combine_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, Tensor* dab, Tensor* dtokens) {
  const char* where = "pair_combine_backward";
  const PairsOf pairs(ctx, ptr);
  const int64_t tokens = ptr.offsets().back();
  dispatch_momentum(where, dy.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T* from = dy.data<T>();
    if (dtokens) pools(ctx, where, pairs, tokens, dy.dim(1), from, false, dtokens->data<T>());
    if (!dab) return;
    auto run = [&]<int V>(Rows<V, T> rows) {
      launch(ctx, where, combine_backward_kernel<V, T>, {rows.C ? tokens : 0, block_threads}, rows, from);
    };
    with_rows(pairs, 2 * dy.dim(1), 2, dab->data<T>(), run, from);
  });
}

void aggregation_matrices(Context& ctx, const AggregationCoefficients& k, int64_t in, int64_t out, int64_t M,
                          const std::vector<MatrixOfMaps>& layout, std::vector<Tensor>& matrices) {
  for (Tensor& matrix : matrices) ctx.allocator().clear(matrix.raw(), matrix.bytes());
  if (matrices.empty()) return;
  dispatch_momentum("aggregation_matrices", matrices[0].dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto value = coefficient<T>(k, in, out, M);
    with_places(ctx, layout, matrices, value, [&](const Places<T>& places) {
      launch(ctx, "aggregation_matrices", matrices_kernel<T>, {blocks_for(M * in * out), block_threads}, value, places);
    });
  });
}

void aggregation_matrices_backward(Context& ctx, const std::vector<Tensor>& dmatrices, const AggregationCoefficients& k,
                                   int64_t in, int64_t out, int64_t M, const std::vector<MatrixOfMaps>& layout,
                                   AggregationCoefficients& to) {
  const char* where = "aggregation_matrices_backward";
  dispatch_momentum(where, (k.direct.defined() ? k.direct : k.c00).dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto value = coefficient<T>(k, in, out, M);
    auto gradient = [](const Tensor& of, Tensor& g) { return of.defined() ? g.data<T>() : nullptr; };
    const Sums<T> sums{gradient(k.c00, to.c00),
                       gradient(k.c01, to.c01),
                       gradient(k.c10, to.c10),
                       gradient(k.c11, to.c11),
                       gradient(k.multipliers, to.multipliers),
                       gradient(k.scale, to.scale)};
    const int64_t numbers =
        (sums.c00 ? (in + out) * M + 2 * in * out : 0) + (sums.multipliers ? M : 0) + (sums.scale ? in : 0);
    with_places(ctx, layout, dmatrices, value, [&](const Places<const T>& places) {
      if (k.direct.defined())
        launch(ctx, where, direct_backward_kernel<T>, {blocks_for(M * in * out), block_threads}, value, places,
               to.direct.data<T>());
      launch(ctx, where, coefficient_sums_kernel<T>, {blocks_of_warps(numbers), block_threads}, value, places, sums);
    });
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
