#include "kernels/device.cuh"
#include "kernels/elementwise.h"
#include "kernels/equi_linear_math.h"
#include "kernels/geometric_algebra_math.h"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using geometric_algebra::unrolled;

/// r, i and d of an element.
struct Indices {
  int64_t r, i, d;
  __device__ Indices(const equi::Extents& n, int64_t element)
      : r(element / (n.inner * n.depth)), i(element / n.depth % n.inner), d(element % n.depth) {}
};

// f(part, its extents, element) for the item of a thread among the parameters that are there, one tensor behind the
// other.
template <class W, class F>
__device__ void with_parameter(const equi::Map& map, const equi::Parameters<W>& there, int64_t item, F&& f) {
  unrolled<equi::parts>([&](auto p) {
    constexpr auto part = static_cast<equi::Part>(p());
    if (!there.of[part]) return;
    const equi::Extents n = equi::extents(map, part);
    if (item >= 0 && item < n.count()) f(part, n, item);
    item -= n.count();
  });
}
template <class W>
int64_t count(const equi::Map& map, const equi::Parameters<W>& there) {
  int64_t sum = 0;
  for (int p = 0; p < equi::parts; ++p)
    if (there.of[p]) sum += equi::extents(map, static_cast<equi::Part>(p)).count();
  return sum;
}

// A thread takes one parameter at a time; no two make the same entry of a matrix.
template <class W>
__global__ void assemble_kernel(int64_t n, equi::Map map, equi::Parameters<const W> from, const W* scale,
                                equi::Matrices<W> to) {
  using S = sum_type<W>;
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step())
    with_parameter(map, from, item, [&](equi::Part part, const equi::Extents& n, int64_t element) {
      const Indices at(n, element);
      const int64_t head = equi::head_of(map, n, element);
      const S value = S(from.of[part][element]), factor = head < 0 ? S(1) : S(scale[head]);
      equi::spread(map, part, at.r, at.i, at.d, value * factor, to);
    });
}

// As above, for the gradients that are wanted.
template <class W>
__global__ void gather_kernel(int64_t n, equi::Map map, equi::Matrices<const W> from, const W* scale,
                              equi::Parameters<W> to) {
  using S = sum_type<W>;
  for (int64_t item = cuda::first_item(); item < n; item += cuda::item_step())
    with_parameter(map, to, item, [&](equi::Part part, const equi::Extents& n, int64_t element) {
      const Indices at(n, element);
      const int64_t head = equi::head_of(map, n, element);
      const S value = equi::gathered<S>(map, part, at.r, at.i, at.d, from), factor = head < 0 ? S(1) : S(scale[head]);
      to.of[part][element] = W(value * factor);
    });
}

// A block owns one head and adds to its sum what this map's parameters bring; behind the last map it is the result.
template <class W, class S>
__global__ void gather_heads_kernel(equi::Map map, equi::Parameters<const W> parameters, equi::Matrices<const W> from,
                                    bool first, S* sums, W* result) {
  const int64_t head = blockIdx.x;
  S sum = 0;
  unrolled<equi::parts>([&](auto p) {
    constexpr auto part = static_cast<equi::Part>(p());
    const equi::Extents n = equi::extents(map, part);
    if (!parameters.of[part] || n.heads_run == 0) return;
    for (int64_t mine = threadIdx.x; mine < n.count() / map.heads; mine += block_threads) {
      const int64_t element = (mine / n.heads_run * map.heads + head) * n.heads_run + mine % n.heads_run;
      const Indices at(n, element);
      sum += equi::gathered<S>(map, part, at.r, at.i, at.d, from) * S(parameters.of[part][element]);
    }
  });
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
  __shared__ S of_warp[block_threads / 32];
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  S all = first ? S(0) : sums[head];
#pragma unroll
  for (int warp = 0; warp < block_threads / 32; ++warp) all += of_warp[warp];
  sums[head] = all;
  if (result) result[head] = W(all);
}

template <class W>
const W* data(const Tensor& t) {
  return t.defined() ? t.data<W>() : nullptr;
}

/// `count` pairs of multivectors as the rows of a matrix.
Tensor rows_of(const Tensor& x, int64_t first, int64_t count) {
  return x.narrow(first, count).reshape({count * x.dim(1), x.dim(2)});
}
/// Pair 0 and the scalars side by side; either may be undefined: zeros, of `columns`.
Tensor joined(Context& ctx, const Tensor& x, int64_t columns, const Tensor& s, int64_t scalars) {
  if (scalars == 0) return rows_of(x, 0, 1);
  const Tensor& there = x.defined() ? x : s;
  const int64_t T = x.defined() ? x.dim(1) : s.dim(0);
  const Tensor both[] = {x.defined() ? rows_of(x, 0, 1) : ctx.zeros({T, columns}, there.dtype()),
                         s.defined() ? s : ctx.zeros({T, scalars}, there.dtype())};
  Tensor out = ctx.empty({T, columns + scalars}, there.dtype());
  concat(ctx, both, out);
  return out;
}

struct Pairs {
  int64_t first, count;
  const Weights& matrix;
};

}  // namespace

namespace cuda {

void assemble(Context& ctx, const equi::Map& map, const EquiLinearWeights& w, const Tensor& head_scale,
              const Tensor& scalars, const Tensor& bias, const Tensor& vectors, const Tensor& bivectors) {
  dispatch_compute("equi_linear", bias.dtype(), [&](auto type) {
    using W = typename decltype(type)::type;
    Tensor to[] = {scalars, bias, vectors, bivectors};
    const auto from = equi::parameters<const W>(w);
    const int64_t n = count(map, from);
    launch(ctx, "equi_linear_matrices", assemble_kernel<W>, {blocks_for(n), block_threads}, n, map, from,
           kernels::data<W>(head_scale), {to[0].data<W>(), to[1].data<W>(), to[2].data<W>(), to[3].data<W>()});
  });
}

void gather(Context& ctx, std::span<const equi::Map> maps, std::span<const EquiLinearWeights> weights,
            const Tensor& head_scale, const Tensor& dscalars, const Tensor& dbias, const Tensor& dvectors,
            const Tensor& dbivectors, std::span<EquiLinearWeights> gradients, Tensor* dhead_scale) {
  const char* where = "equi_linear_gradients";
  dispatch_compute(where, dbias.dtype(), [&](auto type) {
    using W = typename decltype(type)::type;
    using S = sum_type<W>;
    const equi::Matrices<const W> from = {dscalars.data<W>(), dbias.data<W>(), dvectors.data<W>(),
                                          dbivectors.data<W>()};
    auto sums = ctx.scratch<S>(dhead_scale ? dhead_scale->numel() : 0);
    for (size_t m = 0; m < maps.size(); ++m) {
      const auto to = equi::parameters<W>(gradients[m]);
      const int64_t n = count(maps[m], to);
      launch(ctx, where, gather_kernel<W>, {blocks_for(n), block_threads}, n, maps[m], from,
             kernels::data<W>(head_scale), to);
      if (dhead_scale)
        launch(ctx, where, gather_heads_kernel<W, S>, {maps[m].heads, block_threads}, maps[m],
               equi::parameters<const W>(weights[m]), from, m == 0, sums.data(),
               m + 1 == maps.size() ? dhead_scale->data<W>() : nullptr);
    }
  });
}

// Products of tall matrices: four pairs of vectors, three of bivectors, and pair 0 with the scalars beside it.
void equi_linear(Context& ctx, const Tensor& x, const Tensor& s, const EquiLinearMatrices& m, const Tensor& residual,
                 const Tensor& residual_s, Tensor& y, Tensor& y_s) {
  const int64_t in = 2 * m.channels_in(), out = 2 * m.channels_out(), So = m.scalars_out();
  auto product = [&](const Tensor& x, const Weights& w, const Tensor& b, const Tensor& residual, Tensor y) {
    residual.defined() ? linear_residual(ctx, x, w, b, residual, y) : linear(ctx, x, w, b, y);
  };
  for (const Pairs& p : {Pairs{1, 4, m.vectors()}, {5, 3, m.bivectors()}})
    product(rows_of(x, p.first, p.count), p.matrix, {},
            residual.defined() ? rows_of(residual, p.first, p.count) : Tensor(), rows_of(y, p.first, p.count));

  const bool more = residual.defined() || (So && residual_s.defined());
  const Tensor add = more ? joined(ctx, residual, out, residual_s, So) : Tensor();
  Tensor y_0 = rows_of(y, 0, 1), both = So ? ctx.empty({x.dim(1), out + So}, y.dtype()) : y_0;
  product(joined(ctx, x, in, s, m.scalars_in()), m.scalars(), m.bias(), add, both);
  if (So == 0) return;
  slice(ctx, both, 0, y_0);
  slice(ctx, both, out, y_s);
}

void equi_linear_backward(Context& ctx, const Tensor& dy, const Tensor& dy_s, const Tensor& x, const Tensor& s,
                          const EquiLinearMatrices& m, Tensor* dx, Tensor* ds, Tensor* dscalars, Tensor* dbias,
                          Tensor* dvectors, Tensor* dbivectors) {
  const int64_t in = 2 * m.channels_in(), S = m.scalars_in();
  Tensor dx_0 = dx ? rows_of(*dx, 0, 1) : Tensor(), both = dx_0;
  if (S && (dx || ds)) both = ctx.empty({x.dim(1), in + S}, x.dtype());
  linear_backward(ctx, joined(ctx, dy, 2 * m.channels_out(), dy_s, m.scalars_out()), joined(ctx, x, in, s, S),
                  m.scalars(), both.defined() ? &both : nullptr, dscalars, dbias);
  if (S && dx) slice(ctx, both, 0, dx_0);
  if (S && ds) slice(ctx, both, in, *ds);
  for (const Pairs& p : {Pairs{1, 4, m.vectors()}, {5, 3, m.bivectors()}}) {
    Tensor dx_p = dx ? rows_of(*dx, p.first, p.count) : Tensor();
    linear_backward(ctx, rows_of(dy, p.first, p.count), rows_of(x, p.first, p.count), p.matrix, dx ? &dx_p : nullptr,
                    p.first == 1 ? dvectors : dbivectors, nullptr);
  }
}

}  // namespace cuda

}  // namespace lightcone::kernels
