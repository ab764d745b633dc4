#include "kernels/jet_features.h"

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/jet_features_math.h"

namespace lightcone {

namespace jet_features_math {
std::span<const int> columns(kernels::TaggingFeatures which) {
  static constexpr int all[] = {0, 1, 2, 3, 4, 5, 6}, zinvariant[] = {0, 2, 4, 5, 6}, so3invariant[] = {1, 3};
  switch (which) {
    case kernels::TaggingFeatures::all:
      return all;
    case kernels::TaggingFeatures::zinvariant:
      return zinvariant;
    case kernels::TaggingFeatures::so3invariant:
      return so3invariant;
    case kernels::TaggingFeatures::none:
      break;
  }
  return {};
}
}  // namespace jet_features_math

namespace kernels {

namespace cpu {
using namespace jet_features_math;
constexpr int64_t grain = 1024;  // tokens per chunk; whole blocks

template <class T, class Out>
void jet_features_backward(TaggingFeatures which, int64_t n, const Out* dy, const T* p, const T* jet, T* dp, T* djet) {
  const auto selected = columns(which);
  const auto F = static_cast<int64_t>(selected.size());
  double g[7][block] = {};
  for (int64_t t = 0; t < n; t += block) {
    const int64_t count = std::min(block, n - t);
    const Block a(p + 4 * t, count), j(jet + 4 * t, count);
    for (int64_t c = 0; c < F; ++c) {
      const double factor = standard(selected[c]).factor;
      for (int64_t k = 0; k < count; ++k) g[selected[c]][k] = double(dy[(t + k) * F + c]) * factor;
    }
    Block da, dj;
#pragma omp simd
    for (int64_t k = 0; k < block; ++k) {
      const double all[7] = {g[0][k], g[1][k], g[2][k], g[3][k], g[4][k], g[5][k], g[6][k]};
      double to_a[4], to_j[4];
      features_backward(all, {a.E[k], a.px[k], a.py[k], a.pz[k]}, {j.E[k], j.px[k], j.py[k], j.pz[k]}, to_a, to_j);
      da.E[k] = to_a[0], da.px[k] = to_a[1], da.py[k] = to_a[2], da.pz[k] = to_a[3];
      dj.E[k] = to_j[0], dj.px[k] = to_j[1], dj.py[k] = to_j[2], dj.pz[k] = to_j[3];
    }
    if (dp) da.store(dp + 4 * t, count);
    if (djet) dj.store(djet + 4 * t, count);
  }
}
}  // namespace cpu

namespace cuda {  // jet_features.cu
void jet_features(Context& ctx, TaggingFeatures which, const Tensor& p, const Tensor& jet, Tensor& y);
void jet_features_backward(Context& ctx, TaggingFeatures which, const Tensor& dy, const Tensor& p, const Tensor& jet,
                           Tensor* dp, Tensor* djet);
}  // namespace cuda

int64_t num_tagging_features(TaggingFeatures which) {
  return static_cast<int64_t>(jet_features_math::columns(which).size());
}

TaggingFeatures tagging_features_from(std::string_view name) {
  if (name == "all") return TaggingFeatures::all;
  if (name == "zinvariant") return TaggingFeatures::zinvariant;
  if (name == "so3invariant") return TaggingFeatures::so3invariant;
  fail("tagging_features", "unknown selection '{}'; expected all, zinvariant, so3invariant or null", name);
}

static void check_operands(const Context& ctx, const char* operation, const char* name, TaggingFeatures which,
                           const Tensor& p, const Tensor& jet, const Tensor& y) {
  check(ctx, operation, "p", p).rank(2).columns(4).momentum();
  check(ctx, operation, "jet", jet).like(p);
  check(ctx, operation, name, y).shape({p.dim(0), num_tagging_features(which)}).compute();
}

void jet_features(Context& ctx, TaggingFeatures which, const Tensor& p, const Tensor& jet, Tensor& y) {
  check_operands(ctx, "jet_features", "y", which, p, jet, y);
  const auto scope = ctx.profiler().scope("jet_features", 2. * p.bytes() + y.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::jet_features(ctx, which, p, jet, y);
  dispatch_momentum("jet_features", p.dtype(), [&](auto type) {
    dispatch_compute("jet_features", y.dtype(), [&](auto out_type) {
      using T = typename decltype(type)::type;
      using Out = typename decltype(out_type)::type;
      parallel_chunks(ctx, p.dim(0), cpu::grain, [&](int64_t, int64_t begin, int64_t end) {
        jet_features_math::rows(which, end - begin, p.data<T>() + 4 * begin, jet.data<T>() + 4 * begin, 4,
                                y.data<Out>() + begin * y.dim(1));
      });
    });
  });
}

void jet_features_backward(Context& ctx, TaggingFeatures which, const Tensor& dy, const Tensor& p, const Tensor& jet,
                           Tensor* dp, Tensor* djet) {
  check_operands(ctx, "jet_features_backward", "dy", which, p, jet, dy);
  if (dp) check(ctx, "jet_features_backward", "dp", *dp).like(p);
  if (djet) check(ctx, "jet_features_backward", "djet", *djet).like(p);
  const auto scope = ctx.profiler().scope("jet_features_backward", 4. * p.bytes() + dy.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::jet_features_backward(ctx, which, dy, p, jet, dp, djet);
  dispatch_momentum("jet_features_backward", p.dtype(), [&](auto type) {
    dispatch_compute("jet_features_backward", dy.dtype(), [&](auto out_type) {
      using T = typename decltype(type)::type;
      using Out = typename decltype(out_type)::type;
      parallel_chunks(ctx, p.dim(0), cpu::grain, [&](int64_t, int64_t begin, int64_t end) {
        cpu::jet_features_backward(which, end - begin, dy.data<Out>() + begin * dy.dim(1), p.data<T>() + 4 * begin,
                                   jet.data<T>() + 4 * begin, dp ? dp->data<T>() + 4 * begin : nullptr,
                                   djet ? djet->data<T>() + 4 * begin : nullptr);
      });
    });
  });
}

}  // namespace kernels
}  // namespace lightcone
