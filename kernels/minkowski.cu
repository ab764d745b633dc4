#include "kernels/four_vectors.cuh"
#include "kernels/minkowski_math.h"

// Compiled with -fmad=false (CMakeLists.txt): forward and backward kernels decide alike, to the last bit, what is below
// a bound. In all kernels a thread takes an item at a time.
namespace lightcone::kernels {

namespace {

using namespace minkowski_math;

template <class T>
__global__ void inner_kernel(int64_t n, bool words, const T* a, const T* b, T* y) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double u[4], v[4];
    cuda::load(a + 4 * t, words, u);
    cuda::load(b + 4 * t, words, v);
    y[t] = T(u[0] * v[0] - u[1] * v[1] - u[2] * v[2] - u[3] * v[3]);
  }
}

template <class T>
__global__ void inner_backward_kernel(int64_t n, bool words, const T* dy, const T* b, T* da) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    T v[4];
    cuda::load(b + 4 * t, words, v);
    const T d[4] = {dy[t] * v[0], -dy[t] * v[1], -dy[t] * v[2], -dy[t] * v[3]};
    cuda::store(d, words, da + 4 * t);
  }
}

template <class Quantity, class T>
__global__ void kinematic_kernel(int64_t n, bool words, const T* p, T* y) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double q[4];
    cuda::load(p + 4 * t, words, q);
    y[t] = T(Quantity::value(q[0], q[1], q[2], q[3]));
  }
}

template <class Quantity, class T>
__global__ void kinematic_backward_kernel(int64_t n, bool words, const T* dy, const T* p, T* dp) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double q[4], d[4];
    cuda::load(p + 4 * t, words, q);
    Quantity::gradient(q[0], q[1], q[2], q[3], d[0], d[1], d[2], d[3]);
    const double g = dy[t];
#pragma unroll
    for (int c = 0; c < 4; ++c) d[c] *= g;
    cuda::store(d, words, dp + 4 * t);
  }
}

template <class T>
__global__ void boost_kernel(int64_t n, bool words, const T* p, T* boost) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double q[4], matrix[16];
    cuda::load(p + 4 * t, words, q);
    RestFrame(q).matrix(matrix);
    cuda::store(matrix, words, boost + 16 * t);
  }
}

template <class T>
__global__ void boost_backward_kernel(int64_t n, bool words, const T* dboost, const T* p, T* dp) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double q[4], G[16], d[4];
    cuda::load(p + 4 * t, words, q);
    cuda::load(dboost + 16 * t, words, G);
    minkowski_math::restframe_boost_backward(q, G, d);
    cuda::store(d, words, dp + 4 * t);
  }
}

// An item is a vector; its matrix comes from the cache for all but the first of a token's N.
template <bool transposed, class T>
__global__ void transform_kernel(int64_t n, int64_t N, bool words, const T* matrices, const T* vectors, T* y) {
  cuda::Place place(N);
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next()) {
    double m[16], v[4], out[4];
    cuda::load(matrices + 16 * place.row, words, m);
    cuda::load(vectors + 4 * i, words, v);
    if constexpr (transposed) {
#pragma unroll
      for (int r = 0; r < 4; ++r) out[r] = m[r] * v[0] + m[4 + r] * v[1] + m[8 + r] * v[2] + m[12 + r] * v[3];
    } else {
      transform(m, v, out);
    }
    cuda::store(out, words, y + 4 * i);
  }
}

// An item is a row of a token's matrix.
template <class T>
__global__ void transform_matrices_kernel(int64_t n, int64_t N, bool words, const T* dy, const T* vectors, T* dm) {
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step()) {
    const T *g = dy + i / 4 * N * 4 + i % 4, *from = vectors + i / 4 * N * 4;
    double sum[4] = {};
    for (int64_t k = 0; k < N; ++k) {
      double v[4];
      cuda::load(from + 4 * k, words, v);
      const double d = g[4 * k];
#pragma unroll
      for (int c = 0; c < 4; ++c) sum[c] += d * v[c];
    }
    cuda::store(sum, words, dm + 4 * i);
  }
}

}  // namespace

namespace cuda {

void minkowski_inner(Context& ctx, const Tensor& a, const Tensor& b, Tensor& y) {
  const char* where = "minkowski_inner";
  const int64_t n = y.numel();
  dispatch_momentum(where, y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, inner_kernel<T>, {blocks_for(n), block_threads}, n, in_words(a.data<T>(), b.data<T>()),
           a.data<T>(), b.data<T>(), y.data<T>());
  });
}

void minkowski_inner_backward(Context& ctx, const Tensor& dy, const Tensor& b, Tensor& da) {
  const char* where = "minkowski_inner_backward";
  const int64_t n = dy.numel();
  dispatch_momentum(where, dy.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, inner_backward_kernel<T>, {blocks_for(n), block_threads}, n, in_words(b.data<T>(), da.data<T>()),
           dy.data<T>(), b.data<T>(), da.data<T>());
  });
}

void kinematic(Context& ctx, Kinematic quantity, const Tensor& p, Tensor& y) {
  const char* where = "kinematic";
  const int64_t n = y.numel();
  dispatch_momentum(where, p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    dispatch_quantity(quantity, [&](auto q) {
      launch(ctx, where, kinematic_kernel<decltype(q), T>, {blocks_for(n), block_threads}, n, in_words(p.data<T>()),
             p.data<T>(), y.data<T>());
    });
  });
}

void kinematic_backward(Context& ctx, Kinematic quantity, const Tensor& dy, const Tensor& p, Tensor& dp) {
  const char* where = "kinematic_backward";
  const int64_t n = dy.numel();
  dispatch_momentum(where, p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    dispatch_quantity(quantity, [&](auto q) {
      launch(ctx, where, kinematic_backward_kernel<decltype(q), T>, {blocks_for(n), block_threads}, n,
             in_words(p.data<T>(), dp.data<T>()), dy.data<T>(), p.data<T>(), dp.data<T>());
    });
  });
}

void restframe_boost(Context& ctx, const Tensor& p, Tensor& boost) {
  const char* where = "restframe_boost";
  const int64_t n = p.dim(0);
  dispatch_momentum(where, p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, boost_kernel<T>, {blocks_for(n), block_threads}, n, in_words(p.data<T>(), boost.data<T>()),
           p.data<T>(), boost.data<T>());
  });
}

void restframe_boost_backward(Context& ctx, const Tensor& dboost, const Tensor& p, Tensor& dp) {
  const char* where = "restframe_boost_backward";
  const int64_t n = p.dim(0);
  dispatch_momentum(where, p.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, boost_backward_kernel<T>, {blocks_for(n), block_threads}, n,
           in_words(dboost.data<T>(), p.data<T>(), dp.data<T>()), dboost.data<T>(), p.data<T>(), dp.data<T>());
  });
}

void lorentz_transform(Context& ctx, const char* where, bool transposed, const Tensor& matrices, const Tensor& vectors,
                       int64_t N, Tensor& y) {
  const int64_t n = y.numel() / 4;
  dispatch_momentum(where, y.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, transposed ? transform_kernel<true, T> : transform_kernel<false, T>,
           {blocks_for(n), block_threads}, n, N, in_words(matrices.data<T>(), vectors.data<T>(), y.data<T>()),
           matrices.data<T>(), vectors.data<T>(), y.data<T>());
  });
}

void lorentz_transform_backward_matrices(Context& ctx, const Tensor& dy, const Tensor& vectors, int64_t N,
                                         Tensor& dmatrices) {
  const char* where = "lorentz_transform_backward_matrices";
  const int64_t n = dmatrices.numel() / 4;
  dispatch_momentum(where, dy.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, transform_matrices_kernel<T>, {blocks_for(n), block_threads}, n, N,
           in_words(vectors.data<T>(), dmatrices.data<T>()), dy.data<T>(), vectors.data<T>(), dmatrices.data<T>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
