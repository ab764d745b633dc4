#include "kernels/minkowski.h"

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/minkowski_math.h"

namespace lightcone::kernels {

namespace cpu {
using namespace minkowski_math;
constexpr int64_t grain = 2048;  // items per chunk; whole blocks

template <class F>
void per_item(Context& ctx, int64_t n, F&& f) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}
template <class F>
void per_block(Context& ctx, int64_t n, F&& f) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += block) f(i, std::min(block, end - i));
  });
}

template <class Quantity, class T>
void kinematic(Context& ctx, int64_t n, const T* p, T* y) {
  per_block(ctx, n, [&](int64_t i, int64_t count) {
    const Block in(p + 4 * i, count);
    double out[block];
#pragma omp simd
    for (int64_t k = 0; k < block; ++k) out[k] = Quantity::value(in.E[k], in.px[k], in.py[k], in.pz[k]);
    for (int64_t k = 0; k < count; ++k) y[i + k] = T(out[k]);
  });
}

template <class Quantity, class T>
void kinematic_backward(Context& ctx, int64_t n, const T* dy, const T* p, T* dp) {
  per_block(ctx, n, [&](int64_t i, int64_t count) {
    const Block in(p + 4 * i, count);
    const vector_math::PaddedBlock<T> g(dy + i, count);
    Block out;
#pragma omp simd
    for (int64_t k = 0; k < block; ++k) {
      double dE, dx, dy, dz;
      Quantity::gradient(in.E[k], in.px[k], in.py[k], in.pz[k], dE, dx, dy, dz);
      const double gk = g.values[k];
      out.E[k] = gk * dE, out.px[k] = gk * dx, out.py[k] = gk * dy, out.pz[k] = gk * dz;
    }
    out.store(dp + 4 * i, count);
  });
}

template <int N, class T>
std::array<double, N> load(const T* x) {
  std::array<double, N> out;
  for (int i = 0; i < N; ++i) out[i] = x[i];
  return out;
}
}  // namespace cpu

namespace cuda {  // minkowski.cu
void minkowski_inner(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y);
void minkowski_inner_backward(Context& ctx, const Tensor& dy, const Tensor& b, Tensor& da);
void kinematic(Context& ctx, Kinematic quantity, const Tensor& p, Tensor& y);
void kinematic_backward(Context& ctx, Kinematic quantity, const Tensor& dy, const Tensor& p, Tensor& dp);
void restframe_boost(Context& ctx, const Tensor& p, Tensor& boost);
void restframe_boost_backward(Context& ctx, const Tensor& dboost, const Tensor& p, Tensor& dp);
void lorentz_transform(Context& ctx, const char* where, bool transposed, const Tensor& matrices, const Tensor& vectors,
                       int64_t N, Tensor& y);
void lorentz_transform_backward_matrices(Context& ctx, const Tensor& dy, const Tensor& vectors, int64_t N,
                                         Tensor& dmatrices);
}  // namespace cuda

// All but the last axis; those of `tokens` with its last one.
static Shape without_last(const Tensor& p) {
  Shape shape;
  for (int axis = 0; axis + 1 < p.rank(); ++axis) shape.append(p.dim(axis));
  return shape;
}
static int64_t items(const Tensor& p) { return p.numel() / 4; }

void minkowski_inner(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y) {
  check(ctx, "minkowski_inner", "a", a).columns(4).momentum();
  check(ctx, "minkowski_inner", "b", b).like(a);
  check(ctx, "minkowski_inner", "y", y).shape(without_last(a)).dtype(a.dtype());
  const auto scope = ctx.profiler().scope("minkowski_inner", 2. * a.bytes() + y.bytes(), 7. * items(a));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::minkowski_inner(ctx, a, b, y);
  dispatch_momentum("minkowski_inner", a.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::per_item(ctx, items(a), [a = a.data<T>(), b = b.data<T>(), y = y.data<T>()](int64_t i) {
      const auto u = cpu::load<4>(a + 4 * i), v = cpu::load<4>(b + 4 * i);
      y[i] = T(u[0] * v[0] - u[1] * v[1] - u[2] * v[2] - u[3] * v[3]);
    });
  });
}

void minkowski_inner_backward(Context& ctx, const Tensor& dy, const Tensor& b, Tensor& da) {
  check(ctx, "minkowski_inner_backward", "b", b).columns(4).momentum();
  check(ctx, "minkowski_inner_backward", "dy", dy).shape(without_last(b)).dtype(b.dtype());
  check(ctx, "minkowski_inner_backward", "da", da).like(b);
  const auto scope = ctx.profiler().scope("minkowski_inner_backward", 2. * b.bytes() + dy.bytes(), 4. * items(b));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::minkowski_inner_backward(ctx, dy, b, da);
  dispatch_momentum("minkowski_inner_backward", b.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::per_item(ctx, items(b), [dy = dy.data<T>(), b = b.data<T>(), da = da.data<T>()](int64_t i) {
      da[4 * i] = dy[i] * b[4 * i];
      for (int64_t c = 1; c < 4; ++c) da[4 * i + c] = -dy[i] * b[4 * i + c];
    });
  });
}

void kinematic(Context& ctx, Kinematic quantity, const Tensor& p, Tensor& y) {
  check(ctx, "kinematic", "p", p).columns(4).momentum();
  check(ctx, "kinematic", "y", y).shape(without_last(p)).dtype(p.dtype());
  const auto scope = ctx.profiler().scope("kinematic", p.bytes() + y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::kinematic(ctx, quantity, p, y);
  dispatch_momentum("kinematic", p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    minkowski_math::dispatch_quantity(
        quantity, [&](auto q) { cpu::kinematic<decltype(q)>(ctx, items(p), p.data<T>(), y.data<T>()); });
  });
}

void kinematic_backward(Context& ctx, Kinematic quantity, const Tensor& dy, const Tensor& p, Tensor& dp) {
  check(ctx, "kinematic_backward", "p", p).columns(4).momentum();
  check(ctx, "kinematic_backward", "dy", dy).shape(without_last(p)).dtype(p.dtype());
  check(ctx, "kinematic_backward", "dp", dp).like(p);
  const auto scope = ctx.profiler().scope("kinematic_backward", 2. * p.bytes() + dy.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::kinematic_backward(ctx, quantity, dy, p, dp);
  dispatch_momentum("kinematic_backward", p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    minkowski_math::dispatch_quantity(quantity, [&](auto q) {
      cpu::kinematic_backward<decltype(q)>(ctx, items(p), dy.data<T>(), p.data<T>(), dp.data<T>());
    });
  });
}

void restframe_boost(Context& ctx, const Tensor& p, Tensor& boost) {
  check(ctx, "restframe_boost", "p", p).rank(2).columns(4).momentum();
  check(ctx, "restframe_boost", "boost", boost).shape({p.dim(0), 4, 4}).dtype(p.dtype());
  const auto scope = ctx.profiler().scope("restframe_boost", p.bytes() + boost.bytes(), 40. * items(p));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::restframe_boost(ctx, p, boost);
  dispatch_momentum("restframe_boost", p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::per_item(ctx, items(p), [p = p.data<T>(), boost = boost.data<T>()](int64_t t) {
      double matrix[16];
      minkowski_math::RestFrame(cpu::load<4>(p + 4 * t).data()).matrix(matrix);
      for (int i = 0; i < 16; ++i) boost[16 * t + i] = T(matrix[i]);
    });
  });
}

void restframe_boost_backward(Context& ctx, const Tensor& dboost, const Tensor& p, Tensor& dp) {
  check(ctx, "restframe_boost_backward", "p", p).rank(2).columns(4).momentum();
  check(ctx, "restframe_boost_backward", "dboost", dboost).shape({p.dim(0), 4, 4}).dtype(p.dtype());
  check(ctx, "restframe_boost_backward", "dp", dp).like(p);
  const auto scope = ctx.profiler().scope("restframe_boost_backward", 2. * p.bytes() + dboost.bytes(), 110. * items(p));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::restframe_boost_backward(ctx, dboost, p, dp);
  dispatch_momentum("restframe_boost_backward", p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::per_item(ctx, items(p), [g = dboost.data<T>(), p = p.data<T>(), dp = dp.data<T>()](int64_t t) {
      double out[4];
      minkowski_math::restframe_boost_backward(cpu::load<4>(p + 4 * t).data(), cpu::load<16>(g + 16 * t).data(), out);
      for (int i = 0; i < 4; ++i) dp[4 * t + i] = T(out[i]);
    });
  });
}

// [T, 4] or [T, N, 4] with the T of `matrices`; returns N.
static int64_t check_vectors(const Context& ctx, const char* operation, const char* argument, const Tensor& vectors,
                             const Tensor& matrices) {
  check(ctx, operation, "matrices", matrices).rank(3).momentum().shape({matrices.dim(0), 4, 4});
  const int64_t T = matrices.dim(0);
  if (vectors.rank() == 2)
    check(ctx, operation, argument, vectors).shape({T, 4}).dtype(matrices.dtype());
  else
    check(ctx, operation, argument, vectors).rank(3).shape({T, vectors.dim(1), 4}).dtype(matrices.dtype());
  return vectors.rank() == 2 ? 1 : vectors.dim(1);
}

// y = L v, or L^T v.
template <bool transposed>
static void transform(Context& ctx, const char* name, const Tensor& matrices, const Tensor& vectors, Tensor& y) {
  const int64_t N = check_vectors(ctx, name, transposed ? "dy" : "vectors", vectors, matrices);
  check(ctx, name, transposed ? "dvectors" : "y", y).like(vectors);
  const auto scope = ctx.profiler().scope(name, matrices.bytes() + 2. * y.bytes(), 28. * items(y));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::lorentz_transform(ctx, name, transposed, matrices, vectors, N, y);
  dispatch_momentum(name, y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::per_item(ctx, matrices.dim(0), [N, m = matrices.data<T>(), v = vectors.data<T>(), y = y.data<T>()](int64_t t) {
      auto matrix = cpu::load<16>(m + 16 * t);
      if constexpr (transposed)
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < i; ++j) std::swap(matrix[4 * i + j], matrix[4 * j + i]);
      for (int64_t n = t * N; n < (t + 1) * N; ++n) {
        double out[4];
        minkowski_math::transform(matrix.data(), cpu::load<4>(v + 4 * n).data(), out);
        for (int i = 0; i < 4; ++i) y[4 * n + i] = T(out[i]);
      }
    });
  });
}

void lorentz_transform(Context& ctx, const Tensor& matrices, const Tensor& vectors, Tensor& y) {
  transform<false>(ctx, "lorentz_transform", matrices, vectors, y);
}

void lorentz_transform_backward_vectors(Context& ctx, const Tensor& dy, const Tensor& matrices, Tensor& dvectors) {
  transform<true>(ctx, "lorentz_transform_backward_vectors", matrices, dy, dvectors);
}

void lorentz_transform_backward_matrices(Context& ctx, const Tensor& dy, const Tensor& vectors, Tensor& dmatrices) {
  const int64_t N = check_vectors(ctx, "lorentz_transform_backward_matrices", "vectors", vectors, dmatrices);
  check(ctx, "lorentz_transform_backward_matrices", "dy", dy).like(vectors);
  const auto scope =
      ctx.profiler().scope("lorentz_transform_backward_matrices", dmatrices.bytes() + 2. * dy.bytes(), 32. * items(dy));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::lorentz_transform_backward_matrices(ctx, dy, vectors, N, dmatrices);
  dispatch_momentum("lorentz_transform_backward_matrices", dy.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::per_item(ctx, dmatrices.dim(0),
                  [N, g = dy.data<T>(), v = vectors.data<T>(), dm = dmatrices.data<T>()](int64_t t) {
                    double sum[16] = {};
                    for (int64_t n = t * N; n < (t + 1) * N; ++n)
                      for (int i = 0; i < 4; ++i)
                        for (int j = 0; j < 4; ++j) sum[4 * i + j] += double(g[4 * n + i]) * v[4 * n + j];
                    for (int i = 0; i < 16; ++i) dm[16 * t + i] = T(sum[i]);
                  });
  });
}

}  // namespace lightcone::kernels
