#include "kernels/orthonormal.h"

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/orthonormal_block.h"

namespace lightcone::kernels {

using Method = Orthonormalisation::Method;

namespace cpu {
using namespace minkowski_math;
using namespace orthonormal_math;
constexpr int64_t grain = 512;  // particles per chunk; whole blocks

struct Counts {
  int64_t lightlike = 0, dependent = 0, improper = 0;
  Counts& operator+=(const Counts& c) {
    lightlike += c.lightlike, dependent += c.dependent, improper += c.improper;
    return *this;
  }
};

template <class F>
void blocks(int64_t begin, int64_t end, F&& f) {
  for (int64_t i = begin; i < end; i += block) f(Particles{i, std::min(block, end - i)});
}

template <class Vectors, class T>
Counts orthonormal_frames(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, int64_t n, const T* x,
                          double* frames) {
  return parallel_sum<Counts>(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    Counts counts;
    blocks(begin, end, [&](Particles p) {
      p.shared_noise = noise.shared;
      Block v[3], L[4];
      double timelike[block];
      load(x + 12 * p.first, p.count, v);
      counts.lightlike += regularise_lightlike(p, how.eps_lightlike, noise.lightlike, v, 3);
      counts.dependent += regularise_coplanar(p, how.eps_dependent, noise.dependent, v);
      const double eps = how.eps_norm;
      each_lane([&](int64_t k) LIGHTCONE_LANE {
        const Vectors f(at(v[0], k), at(v[1], k), at(v[2], k), eps);
        set(L[0], k, lowered(f.e0()));
        set(L[1], k, -lowered(f.e1()));
        set(L[2], k, -lowered(f.e2()));
        set(L[3], k, -lowered(f.e3()));
        timelike[k] = (inner(f.e0(), f.e0()) > 0 ? 1.0 : 0.0) + (inner(f.e1(), f.e1()) > 0 ? 1.0 : 0.0) +
                      (inner(f.e2(), f.e2()) > 0 ? 1.0 : 0.0) + (inner(f.e3(), f.e3()) > 0 ? 1.0 : 0.0);
      });
      for (int64_t k = 0; k < p.count; ++k) counts.improper += timelike[k] != 1;
      store(L, p.count, frames + 16 * p.first);
    });
    return counts;
  });
}

template <class Vectors, class T>
void orthonormal_frames_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, int64_t n,
                                 const double* dframes, const T* x, T* dx) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    blocks(begin, end, [&](Particles p) {
      p.shared_noise = noise.shared;
      Block v[3], dL[4], dv[3];
      load(x + 12 * p.first, p.count, v);
      load(dframes + 16 * p.first, p.count, dL);
      regularise_lightlike(p, how.eps_lightlike, noise.lightlike, v, 3);
      regularise_coplanar(p, how.eps_dependent, noise.dependent, v);
      const double eps = how.eps_norm;
      each_lane([&](int64_t k) LIGHTCONE_LANE {
        const Vectors f(at(v[0], k), at(v[1], k), at(v[2], k), eps);
        Vec4 d0, d1, d2;
        f.backward(lowered(at(dL[0], k)), -lowered(at(dL[1], k)), -lowered(at(dL[2], k)), -lowered(at(dL[3], k)), d0,
                   d1, d2);
        set(dv[0], k, d0);
        set(dv[1], k, d1);
        set(dv[2], k, d2);
      });
      end_overflows<T>(p.count, dv, [&](int64_t k) {
        return all_finite(x + 12 * (p.first + k), 12) && all_finite(dframes + 16 * (p.first + k), 16);
      });
      store(dv, p.count, dx + 12 * p.first);
    });
  });
}

template <bool by_cross, class T>
Counts polar_decomposition(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, int64_t n,
                           const T* boost, const T* references, double* frames) {
  return parallel_sum<Counts>(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    Counts counts;
    blocks(begin, end, [&](Particles p) {
      p.shared_noise = noise.shared;
      Block v[1], r[2], L[4];
      double square[block];
      load(boost + 4 * p.first, p.count, v);
      load(references + 8 * p.first, p.count, r);
      counts.lightlike += regularise_lightlike(p, how.eps_lightlike, noise.lightlike, v, 1);
      counts.dependent += rest_references(p, how.eps_dependent, noise.dependent, v[0], r);
      const double eps = how.eps_norm;
      each_lane([&](int64_t k) LIGHTCONE_LANE {
        const Boost b(at(v[0], k));
        const Orthonormal3<by_cross> f(spatial_at(r[0], k), spatial_at(r[1], k), eps);
        set(L[0], k, b.first_row());
        set(L[1], k, b.row(f.e0()));
        set(L[2], k, b.row(f.e1()));
        set(L[3], k, b.row(f.e2()));
        square[k] = inner(at(v[0], k), at(v[0], k));
      });
      for (int64_t k = 0; k < p.count; ++k) counts.improper += !(square[k] > 0);
      store(L, p.count, frames + 16 * p.first);
    });
    return counts;
  });
}

template <bool by_cross, class T>
void polar_decomposition_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, int64_t n,
                                  const double* dframes, const T* boost, const T* references, T* dboost,
                                  T* dreferences) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    blocks(begin, end, [&](Particles p) {
      p.shared_noise = noise.shared;
      Block v[1], r[2], rest[2], dL[4], d[3];
      load(boost + 4 * p.first, p.count, v);
      load(references + 8 * p.first, p.count, r);
      load(dframes + 16 * p.first, p.count, dL);
      regularise_lightlike(p, how.eps_lightlike, noise.lightlike, v, 1);
      rest[0] = r[0], rest[1] = r[1];
      rest_references(p, how.eps_dependent, noise.dependent, v[0], rest);
      const double eps = how.eps_norm;
      each_lane([&](int64_t k) LIGHTCONE_LANE {
        const Boost b(at(v[0], k));
        const Orthonormal3<by_cross> f(spatial_at(rest[0], k), spatial_at(rest[1], k), eps);
        Boost::Gradient db = b.first_row_backward(at(dL[0], k));
        const Vec3 de0 = b.row_backward(at(dL[1], k), f.e0(), db), de1 = b.row_backward(at(dL[2], k), f.e1(), db),
                   de2 = b.row_backward(at(dL[3], k), f.e2(), db);
        Vec3 dr0, dr1;
        f.backward(de0, de1, de2, dr0, dr1);
        set(d[1], k, b.spatial_backward(dr0, at(r[0], k), db));
        set(d[2], k, b.spatial_backward(dr1, at(r[1], k), db));
        set(d[0], k, b.backward(db, v[0].E[k]));
      });
      end_overflows<T>(p.count, d, [&](int64_t k) {
        const int64_t t = p.first + k;
        return all_finite(boost + 4 * t, 4) && all_finite(references + 8 * t, 8) && all_finite(dframes + 16 * t, 16);
      });
      if (dboost) d[0].store(dboost + 4 * p.first, p.count);
      if (dreferences)
        for (int j = 0; j < 2; ++j) d[1 + j].store(dreferences + 8 * p.first + 4 * j, p.count, 8);
    });
  });
}

template <class T>
FactorSums lorentz_factors(Context& ctx, double gamma_max, int64_t n, const T* v) {
  return parallel_sum<FactorSums>(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    FactorSums sums;
    blocks(begin, end, [&](Particles p) {
      const Block in(v + 4 * p.first, p.count);
      double gamma[block];
      each_lane([&](int64_t k) LIGHTCONE_LANE { gamma[k] = lorentz_factor(at(in, k)); });
      for (int64_t k = 0; k < p.count; ++k) sums += {gamma[k], gamma[k], gamma[k] > gamma_max};
    });
    return sums;
  });
}

template <bool soft, class T>
void clamp_boost(Context& ctx, double gamma_max, double hardness, int64_t n, const T* v, T* y) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    blocks(begin, end, [&](Particles p) {
      const Block in(v + 4 * p.first, p.count);
      Block out;
      each_lane([&](int64_t k)
                    LIGHTCONE_LANE { set(out, k, ClampedBoost<soft>(at(in, k), gamma_max, hardness).value()); });
      out.store(y + 4 * p.first, p.count);
    });
  });
}

template <bool soft, class T>
void clamp_boost_backward(Context& ctx, double gamma_max, double hardness, int64_t n, const T* dy, const T* v, T* dv) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    blocks(begin, end, [&](Particles p) {
      const Block in(v + 4 * p.first, p.count), dout(dy + 4 * p.first, p.count);
      Block d[1];
      each_lane([&](int64_t k) LIGHTCONE_LANE {
        set(d[0], k, ClampedBoost<soft>(at(in, k), gamma_max, hardness).backward(at(dout, k), at(in, k)));
      });
      end_overflows<T>(p.count, d, [&](int64_t k) {
        return all_finite(v + 4 * (p.first + k), 4) && all_finite(dy + 4 * (p.first + k), 4);
      });
      store(d, p.count, dv + 4 * p.first);
    });
  });
}
}  // namespace cpu

namespace cuda {  // orthonormal.cu
void orthonormal_frames(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& vectors,
                        Tensor& frames, Tensor& counts);
void orthonormal_frames_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                 const Tensor& dframes, const Tensor& vectors, Tensor& dvectors);
void polar_decomposition(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& boost,
                         const Tensor& references, Tensor& frames, Tensor& counts);
void polar_decomposition_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                  const Tensor& dframes, const Tensor& boost, const Tensor& references, Tensor* dboost,
                                  Tensor* dreferences);
void lorentz_factors(Context& ctx, std::optional<double> gamma_max, const Tensor& v, Tensor& statistics);
void clamp_boost(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& v, Tensor& y);
void clamp_boost_backward(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& dy,
                          const Tensor& v, Tensor& dv);
}  // namespace cuda

namespace {
void check_parameters(const char* operation, const Orthonormalisation& how) {
  if (!(how.eps_norm > 0 && std::isfinite(how.eps_norm)))
    fail(operation, "eps_norm is {}, expected a number above 0", how.eps_norm);
  for (auto [name, eps] : {std::pair{"eps_lightlike", how.eps_lightlike}, {"eps_dependent", how.eps_dependent}})
    if (!(eps >= 0 && std::isfinite(eps))) fail(operation, "{} is {}, expected 0 or a number above", name, eps);
}
void check_noise(const char* operation, const char* argument, const Draw& draw, int64_t count) {
  if (draw.recorded && static_cast<int64_t>(draw.recorded->size()) < count)
    fail(operation, "{} recorded numbers in noise.{}, {} are needed", draw.recorded->size(), argument, count);
}
// What forward and backward of a function have in common; returns the number of particles.
int64_t check_vectors(const Context& ctx, const char* operation, const Orthonormalisation& how, const FrameNoise& noise,
                      const Tensor& vectors) {
  check(ctx, operation, "vectors", vectors).rank(3).momentum().shape({vectors.dim(0), 3, 4});
  check_parameters(operation, how);
  check_noise(operation, "lightlike", noise.lightlike, noise.shared ? 12 : vectors.numel());
  check_noise(operation, "dependent", noise.dependent, noise.shared ? 12 : vectors.numel());
  return vectors.dim(0);
}
int64_t check_polar(const Context& ctx, const char* operation, const Orthonormalisation& how, const FrameNoise& noise,
                    const Tensor& boost, const Tensor& references) {
  check(ctx, operation, "boost", boost).rank(2).columns(4).momentum();
  const int64_t T = boost.dim(0);
  check(ctx, operation, "references", references).shape({T, 2, 4}).dtype(boost.dtype());
  check_parameters(operation, how);
  check_noise(operation, "lightlike", noise.lightlike, noise.shared ? 4 : 4 * T);
  check_noise(operation, "dependent", noise.dependent, noise.shared ? 6 : 6 * T);
  return T;
}
void check_frames(const Context& ctx, const char* operation, const char* argument, const Tensor& frames, int64_t T) {
  check(ctx, operation, argument, frames).shape({T, 4, 4}).dtype(DType::f64);
}
void check_limits(const char* operation, double gamma_max, std::optional<double> hardness) {
  if (!(gamma_max >= 1 && std::isfinite(gamma_max)))
    fail(operation, "gamma_max is {}, expected 1 or a number above", gamma_max);
  if (hardness && !(*hardness > 0 && std::isfinite(*hardness)))
    fail(operation, "hardness is {}, expected a number above 0, or none for a hard limit", *hardness);
}
void write(const cpu::Counts& counts, Tensor& to) {
  int64_t* out = to.data<int64_t>();
  out[0] = counts.lightlike, out[1] = counts.dependent, out[2] = counts.improper;
}
// f(bool_constant)
template <class F>
auto dispatch_bool(bool value, F&& f) {
  return value ? f(std::true_type{}) : f(std::false_type{});
}
template <bool by_cross>
using Vectors = std::conditional_t<by_cross, orthonormal_math::Cross4, orthonormal_math::GramSchmidt4>;
}  // namespace

void orthonormal_frames(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& vectors,
                        Tensor& frames, Tensor& counts) {
  const int64_t T = check_vectors(ctx, "orthonormal_frames", how, noise, vectors);
  check_frames(ctx, "orthonormal_frames", "frames", frames, T);
  check(ctx, "orthonormal_frames", "counts", counts).shape({3}).dtype(DType::i64);
  const auto scope = ctx.profiler().scope("orthonormal_frames", vectors.bytes() + frames.bytes(), 270. * T);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::orthonormal_frames(ctx, how, noise, vectors, frames, counts);
  dispatch_momentum("orthonormal_frames", vectors.dtype(), [&](auto type) {
    using In = typename decltype(type)::type;
    dispatch_bool(how.method == Method::cross, [&](auto by_cross) {
      write(cpu::orthonormal_frames<Vectors<by_cross>>(ctx, how, noise, T, vectors.data<In>(), frames.data<double>()),
            counts);
    });
  });
}

void orthonormal_frames_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                 const Tensor& dframes, const Tensor& vectors, Tensor& dvectors) {
  const int64_t T = check_vectors(ctx, "orthonormal_frames_backward", how, noise, vectors);
  check_frames(ctx, "orthonormal_frames_backward", "dframes", dframes, T);
  check(ctx, "orthonormal_frames_backward", "dvectors", dvectors).like(vectors);
  const auto scope =
      ctx.profiler().scope("orthonormal_frames_backward", 2. * vectors.bytes() + dframes.bytes(), 700. * T);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::orthonormal_frames_backward(ctx, how, noise, dframes, vectors, dvectors);
  dispatch_momentum("orthonormal_frames_backward", vectors.dtype(), [&](auto type) {
    using In = typename decltype(type)::type;
    dispatch_bool(how.method == Method::cross, [&](auto by_cross) {
      cpu::orthonormal_frames_backward<Vectors<by_cross>>(ctx, how, noise, T, dframes.data<double>(),
                                                          vectors.data<In>(), dvectors.data<In>());
    });
  });
}

void polar_decomposition(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise, const Tensor& boost,
                         const Tensor& references, Tensor& frames, Tensor& counts) {
  const int64_t T = check_polar(ctx, "polar_decomposition", how, noise, boost, references);
  check_frames(ctx, "polar_decomposition", "frames", frames, T);
  check(ctx, "polar_decomposition", "counts", counts).shape({3}).dtype(DType::i64);
  const auto scope =
      ctx.profiler().scope("polar_decomposition", boost.bytes() + references.bytes() + frames.bytes(), 180. * T);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::polar_decomposition(ctx, how, noise, boost, references, frames, counts);
  dispatch_momentum("polar_decomposition", boost.dtype(), [&](auto type) {
    using In = typename decltype(type)::type;
    dispatch_bool(how.method == Method::cross, [&](auto by_cross) {
      write(cpu::polar_decomposition<by_cross>(ctx, how, noise, T, boost.data<In>(), references.data<In>(),
                                               frames.data<double>()),
            counts);
    });
  });
}

void polar_decomposition_backward(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise,
                                  const Tensor& dframes, const Tensor& boost, const Tensor& references, Tensor* dboost,
                                  Tensor* dreferences) {
  const int64_t T = check_polar(ctx, "polar_decomposition_backward", how, noise, boost, references);
  check_frames(ctx, "polar_decomposition_backward", "dframes", dframes, T);
  if (dboost) check(ctx, "polar_decomposition_backward", "dboost", *dboost).like(boost);
  if (dreferences) check(ctx, "polar_decomposition_backward", "dreferences", *dreferences).like(references);
  const auto scope = ctx.profiler().scope("polar_decomposition_backward",
                                          2. * (boost.bytes() + references.bytes()) + dframes.bytes(), 430. * T);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::polar_decomposition_backward(ctx, how, noise, dframes, boost, references, dboost, dreferences);
  dispatch_momentum("polar_decomposition_backward", boost.dtype(), [&](auto type) {
    using In = typename decltype(type)::type;
    dispatch_bool(how.method == Method::cross, [&](auto by_cross) {
      cpu::polar_decomposition_backward<by_cross>(ctx, how, noise, T, dframes.data<double>(), boost.data<In>(),
                                                  references.data<In>(), dboost ? dboost->data<In>() : nullptr,
                                                  dreferences ? dreferences->data<In>() : nullptr);
    });
  });
}

void lorentz_factors(Context& ctx, std::optional<double> gamma_max, const Tensor& v, Tensor& statistics) {
  check(ctx, "lorentz_factors", "v", v).rank(2).columns(4).momentum();
  check(ctx, "lorentz_factors", "statistics", statistics).shape({3}).dtype(DType::f64);
  const int64_t T = v.dim(0);
  const auto scope = ctx.profiler().scope("lorentz_factors", v.bytes(), 12. * T);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::lorentz_factors(ctx, gamma_max, v, statistics);
  dispatch_momentum("lorentz_factors", v.dtype(), [&](auto type) {
    using In = typename decltype(type)::type;
    const cpu::FactorSums sums = cpu::lorentz_factors(ctx, gamma_max.value_or(0), T, v.data<In>());
    double* out = statistics.data<double>();
    out[0] = T ? sums.sum / T : 0;
    out[1] = T ? sums.largest : 0;
    out[2] = gamma_max ? sums.above : -1;
  });
}

void clamp_boost(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& v, Tensor& y) {
  check(ctx, "clamp_boost", "v", v).rank(2).columns(4).momentum();
  check(ctx, "clamp_boost", "y", y).like(v);
  check_limits("clamp_boost", gamma_max, hardness);
  const auto scope = ctx.profiler().scope("clamp_boost", 2. * v.bytes(), 35. * v.dim(0));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::clamp_boost(ctx, gamma_max, hardness, v, y);
  dispatch_momentum("clamp_boost", v.dtype(), [&](auto type) {
    using In = typename decltype(type)::type;
    dispatch_bool(hardness.has_value(), [&](auto soft) {
      cpu::clamp_boost<soft>(ctx, gamma_max, hardness.value_or(0), v.dim(0), v.data<In>(), y.data<In>());
    });
  });
}

void clamp_boost_backward(Context& ctx, double gamma_max, std::optional<double> hardness, const Tensor& dy,
                          const Tensor& v, Tensor& dv) {
  check(ctx, "clamp_boost_backward", "v", v).rank(2).columns(4).momentum();
  check(ctx, "clamp_boost_backward", "dy", dy).like(v);
  check(ctx, "clamp_boost_backward", "dv", dv).like(v);
  check_limits("clamp_boost_backward", gamma_max, hardness);
  const auto scope = ctx.profiler().scope("clamp_boost_backward", 3. * v.bytes(), 75. * v.dim(0));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::clamp_boost_backward(ctx, gamma_max, hardness, dy, v, dv);
  dispatch_momentum("clamp_boost_backward", v.dtype(), [&](auto type) {
    using In = typename decltype(type)::type;
    dispatch_bool(hardness.has_value(), [&](auto soft) {
      cpu::clamp_boost_backward<soft>(ctx, gamma_max, hardness.value_or(0), v.dim(0), dy.data<In>(), v.data<In>(),
                                      dv.data<In>());
    });
  });
}

}  // namespace lightcone::kernels
