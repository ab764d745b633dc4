#include "kernels/orthonormal.h"

#include "kernels/orthonormal_particle.cuh"

// Compiled with -fmad=false (CMakeLists.txt): forward and backward decide alike, to the last bit, which sets are
// degenerate, and what becomes a fused multiply-add is the compiler's choice for each kernel.
namespace lightcone::kernels {

namespace {

using namespace orthonormal_math;
using namespace cuda::orthonormal;

/// What a thread found among its particles. Sums of integers do not depend on their order.
struct Found {
  unsigned lightlike = 0, dependent = 0, improper = 0;
  /// All threads of a warp together.
  __device__ void add_to(unsigned long long* counts) const {
    const unsigned mine[3] = {lightlike, dependent, improper};
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const unsigned all = __reduce_add_sync(~0u, mine[i]);
      if (all && threadIdx.x % 32 == 0) atomicAdd(counts + i, static_cast<unsigned long long>(all));
    }
  }
};

template <class T>
__device__ bool all_finite(const T* x, int n) {
  bool finite = true;
  for (int i = 0; i < n; ++i) finite = finite && std::isfinite(x[i]);
  return finite;
}
__device__ double size(const Vec4& v) { return std::abs(v.t) + std::abs(v.x) + std::abs(v.y) + std::abs(v.z); }
template <class T>
__device__ bool overflows(double size) {
  return !(size <= static_cast<double>(std::numeric_limits<T>::max()));
}

// In all kernels a thread takes a particle at a time.

template <class Vectors, class T>
__global__ void frames_kernel(int64_t n, Regularisation by, bool words, const T* vectors, double* frames,
                              unsigned long long* counts) {
  Found found;
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double x[12];
    load(vectors + 12 * t, words, x);
    found.lightlike += regularise_lightlike(by, t, x);
    found.dependent += regularise_coplanar(by, t, x);
    const Vectors f(vec4(x), vec4(x + 4), vec4(x + 8), by.eps_norm);
    const Vec4 e0 = f.e0(), e1 = f.e1(), e2 = f.e2(), e3 = f.e3();
    store(lowered(e0), words, frames + 16 * t);
    store(-lowered(e1), words, frames + 16 * t + 4);
    store(-lowered(e2), words, frames + 16 * t + 8);
    store(-lowered(e3), words, frames + 16 * t + 12);
    found.improper += (inner(e0, e0) > 0) + (inner(e1, e1) > 0) + (inner(e2, e2) > 0) + (inner(e3, e3) > 0) != 1;
  }
  found.add_to(counts);
}

template <class Vectors, class T>
__global__ void frames_backward_kernel(int64_t n, Regularisation by, bool words, const double* dframes,
                                       const T* vectors, T* dvectors) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double x[12], g[16];
    load(vectors + 12 * t, words, x);
    regularise_lightlike(by, t, x);
    regularise_coplanar(by, t, x);
    load(dframes + 16 * t, words, g);
    const Vectors f(vec4(x), vec4(x + 4), vec4(x + 8), by.eps_norm);
    Vec4 d0, d1, d2;
    f.backward(lowered(vec4(g)), -lowered(vec4(g + 4)), -lowered(vec4(g + 8)), -lowered(vec4(g + 12)), d0, d1, d2);
    if (overflows<T>(size(d0) + size(d1) + size(d2)) && all_finite(vectors + 12 * t, 12) &&
        all_finite(dframes + 16 * t, 16))
      d0 = d1 = d2 = {};
    store(d0, words, dvectors + 12 * t);
    store(d1, words, dvectors + 12 * t + 4);
    store(d2, words, dvectors + 12 * t + 8);
  }
}

template <bool by_cross, class T>
__global__ void polar_kernel(int64_t n, Regularisation by, bool words, const T* boost, const T* references,
                             double* frames, unsigned long long* counts) {
  Found found;
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double p[4], r[8], rest[6];
    load(boost + 4 * t, words, p);
    load(references + 8 * t, words, r);
    found.lightlike += regularise_lightlike(by, t, p);
    const Boost b(vec4(p));
    found.dependent += rest_references(by, t, b, r, rest);
    const Orthonormal3<by_cross> f(vec3(rest), vec3(rest + 3), by.eps_norm);
    store(b.first_row(), words, frames + 16 * t);
    store(b.row(f.e0()), words, frames + 16 * t + 4);
    store(b.row(f.e1()), words, frames + 16 * t + 8);
    store(b.row(f.e2()), words, frames + 16 * t + 12);
    found.improper += !(inner(vec4(p), vec4(p)) > 0);
  }
  found.add_to(counts);
}

template <bool by_cross, class T>
__global__ void polar_backward_kernel(int64_t n, Regularisation by, bool words, const double* dframes, const T* boost,
                                      const T* references, T* dboost, T* dreferences) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double p[4], r[8], rest[6], g[16];
    load(boost + 4 * t, words, p);
    load(references + 8 * t, words, r);
    regularise_lightlike(by, t, p);
    const Boost b(vec4(p));
    rest_references(by, t, b, r, rest);
    load(dframes + 16 * t, words, g);
    const Orthonormal3<by_cross> f(vec3(rest), vec3(rest + 3), by.eps_norm);
    Boost::Gradient db = b.first_row_backward(vec4(g));
    const Vec3 de0 = b.row_backward(vec4(g + 4), f.e0(), db), de1 = b.row_backward(vec4(g + 8), f.e1(), db),
               de2 = b.row_backward(vec4(g + 12), f.e2(), db);
    Vec3 dr0, dr1;
    f.backward(de0, de1, de2, dr0, dr1);
    Vec4 d1 = b.spatial_backward(dr0, vec4(r), db), d2 = b.spatial_backward(dr1, vec4(r + 4), db),
         d0 = b.backward(db, p[0]);
    if (overflows<T>(size(d0) + size(d1) + size(d2)) && all_finite(boost + 4 * t, 4) &&
        all_finite(references + 8 * t, 8) && all_finite(dframes + 16 * t, 16))
      d0 = d1 = d2 = {};
    if (dboost) store(d0, words, dboost + 4 * t);
    if (dreferences) {
      store(d1, words, dreferences + 8 * t);
      store(d2, words, dreferences + 8 * t + 4);
    }
  }
}

/// The sum over a block, for its first thread: in pairs of threads 16, 8, … apart, then warps in order.
__device__ FactorSums block_sum(FactorSums sums) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2)
    sums += {__shfl_xor_sync(~0u, sums.sum, apart), __shfl_xor_sync(~0u, sums.largest, apart),
             __shfl_xor_sync(~0u, sums.above, apart)};
  constexpr int warps = cuda::block_threads / 32;
  __shared__ double sum[warps], largest[warps];
  __shared__ int64_t above[warps];
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) sum[warp] = sums.sum, largest[warp] = sums.largest, above[warp] = sums.above;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < warps; ++w) sums += {sum[w], largest[w], above[w]};
  return sums;
}

// A block sums what its threads took; their number depends on n alone.
template <class T>
__global__ void factors_kernel(int64_t n, double gamma_max, bool words, const T* v, FactorSums* partial) {
  FactorSums sums;
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double x[4];
    load(v + 4 * t, words, x);
    const double gamma = lorentz_factor(vec4(x));
    sums += {gamma, gamma, gamma > gamma_max};
  }
  sums = block_sum(sums);
  if (threadIdx.x == 0) partial[blockIdx.x] = sums;
}
// One block sums what the others left.
__global__ void statistics_kernel(int64_t n, int64_t blocks, bool limited, const FactorSums* partial,
                                  double* statistics) {
  FactorSums sums;
  for (int64_t b = threadIdx.x; b < blocks; b += cuda::block_threads) sums += partial[b];
  sums = block_sum(sums);
  if (threadIdx.x != 0) return;
  statistics[0] = n ? sums.sum / n : 0;
  statistics[1] = n ? sums.largest : 0;
  statistics[2] = limited ? sums.above : -1;
}

template <bool soft, class T>
__global__ void clamp_kernel(int64_t n, double gamma_max, double hardness, bool words, const T* v, T* y) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double x[4];
    load(v + 4 * t, words, x);
    store(ClampedBoost<soft>(vec4(x), gamma_max, hardness).value(), words, y + 4 * t);
  }
}

template <bool soft, class T>
__global__ void clamp_backward_kernel(int64_t n, double gamma_max, double hardness, bool words, const T* dy, const T* v,
                                      T* dv) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double x[4], g[4];
    load(v + 4 * t, words, x);
    load(dy + 4 * t, words, g);
    Vec4 d = ClampedBoost<soft>(vec4(x), gamma_max, hardness).backward(vec4(g), vec4(x));
    if (overflows<T>(size(d)) && all_finite(v + 4 * t, 4) && all_finite(dy + 4 * t, 4)) d = {};
    store(d, words, dv + 4 * t);
  }
}

unsigned long long* cleared(Context& ctx, Tensor& counts) {
  static_assert(sizeof(unsigned long long) == sizeof(int64_t));
  ctx.allocator().clear(counts.raw(), counts.bytes());
  return reinterpret_cast<unsigned long long*>(counts.data<int64_t>());
}
template <bool by_cross>
using Vectors = std::conditional_t<by_cross, Cross4, GramSchmidt4>;

// f(type, bool_constant)
template <class F>
void dispatch(const char* where, DType dtype, bool flag, F f) {
  dispatch_momentum(where, dtype, [&](auto type) { flag ? f(type, std::true_type{}) : f(type, std::false_type{}); });
}

}  // namespace

namespace cuda {

using Method = Orthonormalisation::Method;

void orthonormal_frames(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& vectors,
                        Tensor& frames, Tensor& counts) {
  const char* where = "orthonormal_frames";
  const int64_t n = vectors.dim(0);
  const Regulariser by(ctx, how, noise);
  unsigned long long* to = cleared(ctx, counts);
  dispatch(where, vectors.dtype(), how.method == Method::cross, [&](auto type, auto by_cross) {
    using T = typename decltype(type)::type;
    launch(ctx, where, frames_kernel<Vectors<by_cross>, T>, {blocks_for(n), block_threads}, n, by,
           in_words(vectors.data<T>(), frames.data<double>()), vectors.data<T>(), frames.data<double>(), to);
  });
}

void orthonormal_frames_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                 const Tensor& dframes, const Tensor& vectors, Tensor& dvectors) {
  const char* where = "orthonormal_frames_backward";
  const int64_t n = vectors.dim(0);
  const Regulariser by(ctx, how, noise);
  dispatch(where, vectors.dtype(), how.method == Method::cross, [&](auto type, auto by_cross) {
    using T = typename decltype(type)::type;
    launch(ctx, where, frames_backward_kernel<Vectors<by_cross>, T>, {blocks_for(n), block_threads}, n, by,
           in_words(vectors.data<T>(), dvectors.data<T>(), dframes.data<double>()), dframes.data<double>(),
           vectors.data<T>(), dvectors.data<T>());
  });
}

void polar_decomposition(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& boost,
                         const Tensor& references, Tensor& frames, Tensor& counts) {
  const char* where = "polar_decomposition";
  const int64_t n = boost.dim(0);
  const Regulariser by(ctx, how, noise);
  unsigned long long* to = cleared(ctx, counts);
  dispatch(where, boost.dtype(), how.method == Method::cross, [&](auto type, auto by_cross) {
    using T = typename decltype(type)::type;
    launch(ctx, where, polar_kernel<by_cross, T>, {blocks_for(n), block_threads}, n, by,
           in_words(boost.data<T>(), references.data<T>(), frames.data<double>()), boost.data<T>(),
           references.data<T>(), frames.data<double>(), to);
  });
}

void polar_decomposition_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                  const Tensor& dframes, const Tensor& boost, const Tensor& references, Tensor* dboost,
                                  Tensor* dreferences) {
  const char* where = "polar_decomposition_backward";
  const int64_t n = boost.dim(0);
  const Regulariser by(ctx, how, noise);
  dispatch(where, boost.dtype(), how.method == Method::cross, [&](auto type, auto by_cross) {
    using T = typename decltype(type)::type;
    T *dp = dboost ? dboost->data<T>() : nullptr, *dr = dreferences ? dreferences->data<T>() : nullptr;
    launch(ctx, where, polar_backward_kernel<by_cross, T>, {blocks_for(n), block_threads}, n, by,
           in_words(boost.data<T>(), references.data<T>(), dp, dr, dframes.data<double>()), dframes.data<double>(),
           boost.data<T>(), references.data<T>(), dp, dr);
  });
}

void lorentz_factors(Context& ctx, std::optional<double> gamma_max, const Tensor& v, Tensor& statistics) {
  const char* where = "lorentz_factors";
  const int64_t n = v.dim(0), blocks = std::min<int64_t>(blocks_for(n), 1024);
  auto partial = ctx.scratch<FactorSums>(blocks);
  dispatch_momentum(where, v.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    launch(ctx, where, factors_kernel<T>, {blocks, block_threads}, n, gamma_max.value_or(0), in_words(v.data<T>()),
           v.data<T>(), partial.data());
  });
  launch(ctx, where, statistics_kernel, {1, block_threads}, n, blocks, gamma_max.has_value(), partial.data(),
         statistics.data<double>());
}

void clamp_boost(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& v, Tensor& y) {
  const int64_t n = v.dim(0);
  dispatch("clamp_boost", v.dtype(), hardness.has_value(), [&](auto type, auto soft) {
    using T = typename decltype(type)::type;
    launch(ctx, "clamp_boost", clamp_kernel<soft, T>, {blocks_for(n), block_threads}, n, gamma_max,
           hardness.value_or(0), in_words(v.data<T>(), y.data<T>()), v.data<T>(), y.data<T>());
  });
}

void clamp_boost_backward(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& dy,
                          const Tensor& v, Tensor& dv) {
  const int64_t n = v.dim(0);
  dispatch("clamp_boost_backward", v.dtype(), hardness.has_value(), [&](auto type, auto soft) {
    using T = typename decltype(type)::type;
    launch(ctx, "clamp_boost_backward", clamp_backward_kernel<soft, T>, {blocks_for(n), block_threads}, n, gamma_max,
           hardness.value_or(0), in_words(v.data<T>(), dy.data<T>(), dv.data<T>()), dy.data<T>(), v.data<T>(),
           dv.data<T>());
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
