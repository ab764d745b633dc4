#include "kernels/four_vectors.cuh"
#include "kernels/jet_features_math.h"

// Compiled with -fmad=false (CMakeLists.txt): forward and backward kernels decide alike, to the last bit, what is below
// a bound. In all kernels a thread takes a constituent at a time.
namespace lightcone::kernels {

namespace {

using namespace jet_features_math;

/// Where each of the features stands among the columns, -1 for nowhere.
struct Columns {
  int64_t count;
  int place[7] = {-1, -1, -1, -1, -1, -1, -1};
  explicit Columns(TaggingFeatures which) : count(num_tagging_features(which)) {
    const auto selected = columns(which);
    for (int c = 0; c < count; ++c) place[selected[c]] = c;
  }
};

template <class T, class Out>
__global__ void features_kernel(int64_t n, Columns columns, bool words, const T* p, const T* jet, Out* y) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double a[4], j[4], f[7];
    cuda::load(p + 4 * t, words, a);
    cuda::load(jet + 4 * t, words, j);
    features(a, j, f);
#pragma unroll
    for (int c = 0; c < 7; ++c)
      if (columns.place[c] >= 0)
        y[t * columns.count + columns.place[c]] = Out((f[c] - standard(c).mean) * standard(c).factor);
  }
}

template <class T, class Out>
__global__ void features_backward_kernel(int64_t n, Columns columns, bool words, const Out* dy, const T* p,
                                         const T* jet, T* dp, T* djet) {
  for (int64_t t = cuda::first_item(); t < n; t += cuda::item_step()) {
    double a[4], j[4], g[7], da[4], dj[4];
    cuda::load(p + 4 * t, words, a);
    cuda::load(jet + 4 * t, words, j);
#pragma unroll
    for (int c = 0; c < 7; ++c)
      g[c] = columns.place[c] < 0 ? 0.0 : double(dy[t * columns.count + columns.place[c]]) * standard(c).factor;
    features_backward(g, a, j, da, dj);
    if (dp) cuda::store(da, words, dp + 4 * t);
    if (djet) cuda::store(dj, words, djet + 4 * t);
  }
}

// f(type of the momenta, type of the features)
template <class F>
void dispatch(const char* where, const Tensor& p, const Tensor& y, F f) {
  dispatch_momentum(where, p.dtype(),
                    [&](auto type) { dispatch_compute(where, y.dtype(), [&](auto out_type) { f(type, out_type); }); });
}

}  // namespace

namespace cuda {

void jet_features(Context& ctx, TaggingFeatures which, const Tensor& p, const Tensor& jet, Tensor& y) {
  const char* where = "jet_features";
  const int64_t n = p.dim(0);
  const Columns columns(which);
  if (columns.count == 0) return;
  dispatch(where, p, y, [&](auto type, auto out_type) {
    using T = typename decltype(type)::type;
    using Out = typename decltype(out_type)::type;
    launch(ctx, where, features_kernel<T, Out>, {blocks_for(n), block_threads}, n, columns,
           in_words(p.data<T>(), jet.data<T>()), p.data<T>(), jet.data<T>(), y.data<Out>());
  });
}

void jet_features_backward(Context& ctx, TaggingFeatures which, const Tensor& dy, const Tensor& p, const Tensor& jet,
                           Tensor* dp, Tensor* djet) {
  const char* where = "jet_features_backward";
  const int64_t n = p.dim(0);
  dispatch(where, p, dy, [&](auto type, auto out_type) {
    using T = typename decltype(type)::type;
    using Out = typename decltype(out_type)::type;
    T *to_p = dp ? dp->data<T>() : nullptr, *to_jet = djet ? djet->data<T>() : nullptr;
    launch(ctx, where, features_backward_kernel<T, Out>, {blocks_for(n), block_threads}, n, Columns(which),
           in_words(p.data<T>(), jet.data<T>(), to_p, to_jet), dy.data<Out>(), p.data<T>(), jet.data<T>(), to_p,
           to_jet);
  });
}

}  // namespace cuda

}  // namespace lightcone::kernels
