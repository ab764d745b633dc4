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

// Gradient to a four-momentum from those to its ln pt, ln E, phi and eta.
inline void to_momentum(double E, double x, double y, double z, double g_log_pt, double g_log_E, double g_phi,
                        double g_eta, double& dE, double& dx, double& dy, double& dz) {
  const double pt2 = x * x + y * y, a = away_from_zero(x), b = away_from_zero(y);
  const Eta e = eta(pt2, z);
  const double by_pt2 = (pt2 < epsilon ? 0.0 : 0.5 * g_log_pt / pt2) + g_eta * e.by_pt2;
  const double by_phi = g_phi / (a * a + b * b);
  dE = E < epsilon ? 0.0 : g_log_E / E;
  dx = 2 * x * by_pt2 - (a == x ? b * by_phi : 0.0);
  dy = 2 * y * by_pt2 + (b == y ? a * by_phi : 0.0);
  dz = g_eta * e.by_pz;
}

template <class T, class Out>
void jet_features_backward(TaggingFeatures which, int64_t n, const Out* dy, const T* p, const T* jet, T* dp, T* djet) {
  const auto selected = columns(which);
  const auto F = static_cast<int64_t>(selected.size());
  double g[7][block] = {};
  for (int64_t t = 0; t < n; t += block) {
    const int64_t count = std::min(block, n - t);
    const Block a(p + 4 * t, count), j(jet + 4 * t, count);
    for (int64_t c = 0; c < F; ++c)
      for (int64_t k = 0; k < count; ++k)
        g[selected[c]][k] = double(dy[(t + k) * F + c]) * standard[selected[c]].factor;
    Block da, dj;
#pragma omp simd
    for (int64_t k = 0; k < block; ++k) {
      const double dphi = angle_between(away_from_zero(a.px[k]), away_from_zero(a.py[k]), away_from_zero(j.px[k]),
                                        away_from_zero(j.py[k]));
      const double deta = eta(j.px[k] * j.px[k] + j.py[k] * j.py[k], j.pz[k]).value -
                          eta(a.px[k] * a.px[k] + a.py[k] * a.py[k], a.pz[k]).value;
      const double dr2 = dphi * dphi + deta * deta, by_dr = dr2 < epsilon ? 0.0 : g[6][k] / std::sqrt(dr2);
      const double g_phi = g[4][k] + by_dr * dphi, g_eta = g[5][k] + by_dr * deta;
      to_momentum(a.E[k], a.px[k], a.py[k], a.pz[k], g[0][k] + g[2][k], g[1][k] + g[3][k], g_phi, -g_eta, da.E[k],
                  da.px[k], da.py[k], da.pz[k]);
      to_momentum(j.E[k], j.px[k], j.py[k], j.pz[k], -g[2][k], -g[3][k], -g_phi, g_eta, dj.E[k], dj.px[k], dj.py[k],
                  dj.pz[k]);
    }
    if (dp) da.store(dp + 4 * t, count);
    if (djet) dj.store(djet + 4 * t, count);
  }
}
}  // namespace cpu

int64_t num_tagging_features(TaggingFeatures which) {
  return static_cast<int64_t>(jet_features_math::columns(which).size());
}

TaggingFeatures tagging_features_from(std::string_view name) {
  if (name == "all") return TaggingFeatures::all;
  if (name == "zinvariant") return TaggingFeatures::zinvariant;
  if (name == "so3invariant") return TaggingFeatures::so3invariant;
  fail("tagging_features", "unknown selection '{}'; expected all, zinvariant, so3invariant or null", name);
}

static void check_operands(const char* operation, const char* name, TaggingFeatures which, const Tensor& p,
                           const Tensor& jet, const Tensor& y) {
  check(operation, "p", p).rank(2).columns(4).momentum();
  check(operation, "jet", jet).like(p);
  check(operation, name, y).shape({p.dim(0), num_tagging_features(which)}).compute();
}

void jet_features(Context& ctx, TaggingFeatures which, const Tensor& p, const Tensor& jet, Tensor& y) {
  check_operands("jet_features", "y", which, p, jet, y);
  const auto scope = ctx.profiler().scope("jet_features", 2. * p.bytes() + y.bytes());
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
  check_operands("jet_features_backward", "dy", which, p, jet, dy);
  if (dp) check("jet_features_backward", "dp", *dp).like(p);
  if (djet) check("jet_features_backward", "djet", *djet).like(p);
  const auto scope = ctx.profiler().scope("jet_features_backward", 4. * p.bytes() + dy.bytes());
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
