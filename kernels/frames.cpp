#include "kernels/frames.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/frames_math.h"

namespace lightcone::kernels {

namespace cpu {
using namespace frames_math;

constexpr int64_t tokens_per_chunk = 64;

template <class E>
void transform(Context& ctx, int64_t T, int64_t columns, const E* x, const sum_type<E>* frames, const TensorReps& reps,
               FrameMap map, bool backward, E* y) {
  using S = sum_type<E>;
  const Form f = form(map, backward);
  const int64_t dim = reps.dim();
  parallel_chunks(ctx, T, tokens_per_chunk, [&](int64_t, int64_t begin, int64_t end) {
    auto features = ctx.scratch<S>(columns);
    for (int64_t t = begin; t < end; ++t) {
      convert(columns, x + t * columns, features.data());
      const Matrix<S> m(frames + 16 * t, f, true);
      for (int64_t c = 0; c < columns; c += dim) m.apply(reps, features.data() + c);
      convert(columns, features.data(), y + t * columns);
    }
  });
}

template <class E>
void gradient(Context& ctx, int64_t T, std::span<const FramedFeatures> features, const sum_type<E>* frames,
              const TensorReps& reps, sum_type<E>* dframes) {
  using S = sum_type<E>;
  const int64_t dim = reps.dim();
  const bool fours = in_fours(reps);
  int64_t most = 0;
  for (const FramedFeatures& f : features) most = std::max(most, f.copies * dim);
  auto mask = ctx.scratch<S>(fours ? most : 0);
  if (fours)
    for (int64_t i = 0; i < most; i += dim) {
      S* out = mask.data() + i;
      for (const auto& term : reps.terms()) out = std::fill_n(out, term.dim(), S(term.order));
    }
  parallel_chunks(ctx, T, tokens_per_chunk, [&](int64_t, int64_t begin, int64_t end) {
    auto copies = ctx.scratch<S>(2 * dim);
    S *x = copies.data(), *dx = x + dim;
    for (int64_t t = begin; t < end; ++t) {
      // dL = K L g with K = sum of P g (to_local) and g P^T (to_global).
      Four<S> local[4] = {}, global[4] = {};
      OuterProducts<S> local_fours, global_fours;
      for (const FramedFeatures& f : features) {
        const E *from = f.x.data<E>() + t * f.x.dim(1) + f.x_column,
                *from_d = f.dx.data<E>() + t * f.dx.dim(1) + f.dx_column;
        if (fours) {
          (f.made_by_to_local ? local_fours : global_fours).add(f.copies * dim, from, from_d, mask.data());
          continue;
        }
        for (int64_t c = 0; c < f.copies * dim; c += dim) {
          convert(dim, from + c, x);
          convert(dim, from_d + c, dx);
          add_outer(reps, x, dx, f.made_by_to_local ? local : global);
        }
      }
      for (int mu = 0; fours && mu < 4; ++mu) local[mu] = local_fours.row(mu), global[mu] = global_fours.row(mu);
      const Four<S> g = {1, -1, -1, -1};
      for (int mu = 0; mu < 4; ++mu) {
        Four<S> row = {};
        for (int nu = 0; nu < 4; ++nu)
          row += (local[mu][nu] * g[nu] + g[mu] * global[nu][mu]) * four(frames + 16 * t + 4 * nu);
        four(dframes + 16 * t + 4 * mu) = row * g;
      }
      auto finite = [](int64_t n, const auto* x) {
        return std::all_of(x, x + n, [](auto v) { return std::isfinite(S(v)); });
      };
      if (finite(16, dframes + 16 * t)) continue;
      const bool overflow = std::all_of(features.begin(), features.end(), [&](const FramedFeatures& f) {
        const int64_t n = f.copies * dim;
        return finite(n, f.x.data<E>() + t * f.x.dim(1) + f.x_column) &&
               finite(n, f.dx.data<E>() + t * f.dx.dim(1) + f.dx_column);
      });
      if (overflow) std::fill_n(dframes + 16 * t, 16, S(0));
    }
  });
}
}  // namespace cpu

namespace cuda {  // frames.cu
void frames_transform(Context& ctx, const char* where, const Tensor& x, const Tensor& frames, const TensorReps& reps,
                      FrameMap map, bool backward, Tensor& y);
void frames_gradient(Context& ctx, std::span<const FramedFeatures> features, const Tensor& frames,
                     const TensorReps& reps, Tensor& dframes);
}  // namespace cuda

namespace {

/// Returns the number of columns of x.
int64_t check_features(const Context& ctx, const char* where, const char* name, const Tensor& x, const Tensor& frames,
                       const TensorReps& reps) {
  check(ctx, where, name, x).rank(2).compute();
  const int64_t T = x.dim(0), columns = x.dim(1), dim = reps.dim();
  if (dim == 0 ? columns != 0 : columns % dim != 0)
    fail(where, "{} has {} columns, expected a multiple of {}, the dimension of {}", name, columns, dim, reps.text());
  check(ctx, where, "frames", frames).shape({T, 4, 4}).dtype(sum_dtype(x.dtype()));
  return columns;
}

void transform(const char* where, Context& ctx, const Tensor& x, const Tensor& frames, const TensorReps& reps,
               FrameMap map, bool backward, Tensor& y) {
  const int64_t columns = check_features(ctx, where, backward ? "dy" : "x", x, frames, reps);
  check(ctx, where, backward ? "dx" : "y", y).like(x);
  const auto scope = ctx.profiler().scope(where, x.bytes() + y.bytes() + frames.bytes(), 8. * x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::frames_transform(ctx, where, x, frames, reps, map, backward, y);
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::transform<E>(ctx, x.dim(0), columns, x.data<E>(), frames.data<sum_type<E>>(), reps, map, backward,
                      y.data<E>());
  });
}

}  // namespace

void frames_transform(Context& ctx, const Tensor& x, const Tensor& frames, const TensorReps& reps, FrameMap map,
                      Tensor& y) {
  transform("frames_transform", ctx, x, frames, reps, map, false, y);
}

void frames_transform_backward(Context& ctx, const Tensor& dy, const Tensor& frames, const TensorReps& reps,
                               FrameMap map, Tensor& dx) {
  transform("frames_transform_backward", ctx, dy, frames, reps, map, true, dx);
}

void frames_gradient(Context& ctx, std::span<const FramedFeatures> features, const Tensor& frames,
                     const TensorReps& reps, Tensor& dframes) {
  const char* where = "frames_gradient";
  if (features.empty()) fail(where, "no features, expected at least one pair with its gradient");
  if (features.size() > most_framed_features)
    fail(where, "{} pairs of features, expected at most {}", features.size(), most_framed_features);
  const int64_t T = frames.rank() == 3 ? frames.dim(0) : 0, dim = reps.dim();
  const DType dtype = features[0].x.dtype();
  double bytes = frames.bytes() + dframes.bytes(), copies = 0;
  for (const FramedFeatures& f : features) {
    auto check_columns = [&](const char* name, const Tensor& t, int64_t column) {
      check(ctx, where, name, t).rank(2).dtype(dtype);
      if (t.dim(0) != T) fail(where, "{} has {} rows, expected {} as frames has", name, t.dim(0), T);
      if (column < 0 || f.copies < 0 || column + f.copies * dim > t.dim(1))
        fail(where, "{} copies of {} features from column {} do not fit into the {} columns of {}", f.copies, dim,
             column, t.dim(1), name);
    };
    check_columns("x", f.x, f.x_column);
    check_columns("dx", f.dx, f.dx_column);
    bytes += 2. * size_of(dtype) * T * f.copies * dim;
    copies += f.copies;
  }
  check(ctx, where, "x", features[0].x).compute();
  check(ctx, where, "frames", frames).shape({T, 4, 4}).dtype(sum_dtype(dtype));
  check(ctx, where, "dframes", dframes).like(frames);
  const auto scope = ctx.profiler().scope(where, bytes, 8. * T * copies * dim);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::frames_gradient(ctx, features, frames, reps, dframes);
  dispatch_compute(where, dtype, [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::gradient<E>(ctx, T, features, frames.data<sum_type<E>>(), reps, dframes.data<sum_type<E>>());
  });
}

}  // namespace lightcone::kernels
