#include "kernels/four_vectors.cuh"
#include "kernels/frames_form.h"

namespace lightcone::kernels {

namespace {

using frames_math::Form;

/// M in registers: what reads it is unrolled.
template <class S>
struct Matrix {
  S at[4][4];
  __device__ Matrix(const S* frame, Form f, bool words) {
    S row[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) cuda::load(frame + 4 * i, words, row[i]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const S value = f.transposed ? row[j][i] : row[i][j];
        at[i][j] = (f.left && i) != (f.right && j) ? -value : value;
      }
  }
  /// On the index whose components are `stride` apart.
  template <int stride>
  __device__ void apply(S* x) const {
    S y[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      y[i] = at[i][0] * x[0] + at[i][1] * x[stride] + at[i][2] * x[2 * stride] + at[i][3] * x[3 * stride];
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i * stride] = y[i];
  }
  /// On both indices of a tensor of order 2.
  __device__ void apply_twice(S (&x)[16]) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) apply<4>(x + j);
#pragma unroll
    for (int i = 0; i < 16; i += 4) apply<1>(x + i);
  }
};
/// An element of M for indices that are not known to the compiler.
template <class S>
__device__ S element(const S* frame, Form f, int i, int j) {
  const S value = frame[f.transposed ? 4 * j + i : 4 * i + j];
  return (f.left && i) != (f.right && j) ? -value : value;
}
template <class S>
__device__ S parity(const S* frame, Form f, bool odd) {
  return odd && (frames_math::determinant(frame) < 0) != f.lowered ? S(-1) : S(1);
}

/// Terms of a representation; `first` counts pieces of a copy: four scalars, a vector or a tensor of order 2.
struct Terms {
  struct Term {
    int64_t first, column, end;
    int order;
    bool odd;
  };
  static constexpr int most = 16;
  Term at[most];
  int count = 0;
  int64_t pieces = 0;
};

// A thread takes a piece at a time, of one copy of a token's features. y may be x.
template <class E, class S = sum_type<E>>
__global__ void transform_kernel(int64_t n, int64_t copies, int64_t dim, const __grid_constant__ Terms terms,
                                 bool words, const E* x, const S* frames, Form f, E* y) {
  cuda::Place place(terms.pieces);
  for (int64_t i = cuda::first_item(); i < n; i += cuda::item_step(), place.next()) {
    int k = 0;
    while (k + 1 < terms.count && place.col >= terms.at[k + 1].first) ++k;
    const int order = terms.at[k].order;
    const int64_t column = terms.at[k].column + (place.col - terms.at[k].first) * (order == 2 ? 16 : 4);
    const S* frame = frames + place.row / copies * 16;
    const S sign = parity(frame, f, terms.at[k].odd);
    const E* from = x + place.row * dim + column;
    E* to = y + place.row * dim + column;
    if (order == 0) {
      for (int64_t j = 0; j < std::min<int64_t>(4, terms.at[k].end - column); ++j) to[j] = E(sign * S(from[j]));
      continue;
    }
    const Matrix<S> m(frame, f, words);
    if (order == 1) {
      S v[4];
      cuda::load(from, words, v);
      m.template apply<1>(v);
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] *= sign;
      cuda::store(v, words, to);
    } else {
      S v[16];
      cuda::load(from, words, v);
      m.apply_twice(v);
#pragma unroll
      for (int j = 0; j < 16; ++j) v[j] *= sign;
      cuda::store(v, words, to);
    }
  }
}

// Tensors of order 3 or 4, `multiplicity` of them from `column` on in each copy. 4 or 16 neighbouring threads own one;
// each makes the 16 components of its first or first two indices from all of the tensor. Warps go on together, with
// threads past the end idle: what is read is read by all before one writes, as y may be x.
template <class E, class S = sum_type<E>>
__global__ void tensor_kernel(int64_t n, int64_t copies, int64_t dim, int64_t column, int64_t multiplicity, int order,
                              bool odd, bool words, const E* x, const S* frames, Form f, E* y) {
  const int owners = order == 3 ? 4 : 16, mine = static_cast<int>(threadIdx.x) % owners;
  for (int64_t i = cuda::first_item(); i - threadIdx.x % 32 < n; i += cuda::item_step()) {
    const int64_t tensor = i / owners, row = tensor / multiplicity;
    const int64_t place = row * dim + column + tensor % multiplicity * (16 * owners);
    S v[16] = {};
    if (i < n) {
      const S* frame = frames + row / copies * 16;
      for (int from = 0; from < owners; ++from) {
        S factor = element(frame, f, mine & 3, from & 3);
        if (order == 4) factor *= element(frame, f, mine >> 2, from >> 2);
        S part[4];
#pragma unroll
        for (int j = 0; j < 16; j += 4) {
          cuda::load(x + place + 16 * from + j, words, part);
#pragma unroll
          for (int k = 0; k < 4; ++k) v[j + k] += factor * part[k];
        }
      }
      Matrix<S>(frame, f, words).apply_twice(v);
      const S sign = parity(frame, f, odd);
#pragma unroll
      for (int j = 0; j < 16; ++j) v[j] *= sign;
    }
    __syncwarp();
    if (i < n) cuda::store(v, words, y + place + 16 * mine);
  }
}

/// Features of FramedFeatures, from their column on.
template <class E>
struct Features {
  const E *x, *dx;
  int64_t x_row, dx_row, copies;
  bool made_by_to_local, words;
};
template <class E>
struct AllFeatures {
  Features<E> at[most_framed_features];
  int count;
};
/// Quadruples of components along one index of a tensor, those of all orders counted through for one copy.
struct Quadruples {
  int64_t column[4];  ///< of the first tensor of order 1 … 4
  int64_t end[4];     ///< of the quadruples up to this order
};

/// Their first component's column, and how far apart they are.
struct Quadruple {
  int64_t column, stride;
  __device__ Quadruple(const Quadruples& all, int64_t i) {
    int order = 1;
    int64_t first = 0, begin = all.column[0];
#pragma unroll
    for (int k = 1; k < 4; ++k)
      if (i >= all.end[k - 1]) order = k + 1, first = all.end[k - 1], begin = all.column[k];
    const int shift = 2 * (order - 1);  // 4^(order - 1) quadruples an index
    const auto q = static_cast<uint32_t>(i - first), tensor = (q >> shift) / order, index = (q >> shift) % order,
               j = q & ((1u << shift) - 1);
    stride = int64_t{1} << 2 * index;
    column = begin + tensor * (4ll << shift) + (j >> 2 * index) * 4 * stride + (j & (stride - 1));
  }
};

/// From 2 half sums of each of 2 half threads, the total of the thread's own one in sum[0].
template <int half, class S>
__device__ void meet_in_halves(unsigned owners, int mine, S* sum) {
  const bool upper = mine & half;
#pragma unroll
  for (int k = 0; k < half; ++k)
    sum[k] = (upper ? sum[k + half] : sum[k]) + __shfl_xor_sync(owners, upper ? sum[k] : sum[k + half], half);
  if constexpr (half > 1) meet_in_halves<half / 2>(owners, mine, sum);
}

// 16 threads own a token. Each sums a b^T over every 16th quadruple, of all features one after the other: of dx and
// g x, or of g x and dx. They meet in halves, so that thread 4 mu + nu ends with one element of K and writes that
// of K L g.
template <class E, class S = sum_type<E>>
__global__ void gradient_kernel(int64_t T, int64_t dim, const __grid_constant__ Quadruples quadruples,
                                const __grid_constant__ AllFeatures<E> features, const S* frames, S* dframes) {
  const int64_t t = (int64_t{blockIdx.x} * cuda::block_threads + threadIdx.x) / 16;
  const int mine = threadIdx.x % 16;
  const unsigned owners = 0xffffu << (threadIdx.x & 16);
  if (t >= T) return;
  S sum[16] = {};
  for (int s = 0; s < features.count; ++s) {
    const Features<E>& of = features.at[s];
    const auto per_copy = static_cast<uint32_t>(quadruples.end[3]),
               all = static_cast<uint32_t>(of.copies * quadruples.end[3]);
    const bool to_local = of.made_by_to_local;
    for (uint32_t i = mine; i < all; i += 16) {
      const Quadruple q(quadruples, i % per_copy);
      const int64_t column = i / per_copy * dim + q.column;
      const E *x = of.x + t * of.x_row + column, *dx = of.dx + t * of.dx_row + column;
      S v[4], d[4];
      if (q.stride == 1) {
        cuda::load(x, of.words, v);
        cuda::load(dx, of.words, d);
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) v[k] = S(x[k * q.stride]), d[k] = S(dx[k * q.stride]);
      }
#pragma unroll
      for (int k = 1; k < 4; ++k) v[k] = -v[k];
#pragma unroll
      for (int mu = 0; mu < 4; ++mu)
#pragma unroll
        for (int nu = 0; nu < 4; ++nu) sum[4 * mu + nu] += (to_local ? d[mu] : v[mu]) * (to_local ? v[nu] : d[nu]);
    }
  }
  meet_in_halves<8>(owners, mine, sum);
  S value = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    value += __shfl_sync(owners, sum[0], (mine & 12) + k, 16) * frames[16 * t + 4 * k + mine % 4];
  if (mine % 4) value = -value;
  if (__any_sync(owners, !std::isfinite(value))) {
    bool finite = true;
    for (int s = 0; s < features.count; ++s) {
      const Features<E>& of = features.at[s];
      for (int64_t c = mine; c < of.copies * dim; c += 16)
        finite = finite && std::isfinite(S(of.x[t * of.x_row + c])) && std::isfinite(S(of.dx[t * of.dx_row + c]));
    }
    if (__all_sync(owners, finite)) value = 0;
  }
  dframes[16 * t + mine] = value;
}

template <class E>
void transform(Context& ctx, const char* where, const Tensor& x, const Tensor& frames, const TensorReps& reps,
               FrameMap map, bool backward, Tensor& y) {
  using S = sum_type<E>;
  const int64_t dim = reps.dim();
  if (x.numel() == 0) return;
  const int64_t copies = x.dim(1) / dim, rows = x.dim(0) * copies;
  const E* from = x.data<E>();
  E* to = y.data<E>();
  const Form f = frames_math::form(map, backward);
  bool words = dim % 4 == 0 && cuda::in_words(from, to, frames.data<S>());
  int64_t column = 0;
  for (const auto& term : reps.terms()) {
    if (term.order > 0) words = words && column % 4 == 0;
    column += term.dim();
  }

  Terms terms;
  auto run = [&] {
    const int64_t n = rows * terms.pieces;
    cuda::launch(ctx, where, transform_kernel<E>, {cuda::blocks_for(n), cuda::block_threads}, n, copies, dim, terms,
                 words, from, frames.data<S>(), f, to);
    terms = {};
  };
  column = 0;
  for (const auto& term : reps.terms()) {
    const int64_t begin = column;
    column += term.dim();
    if (term.order > 2) {
      const int64_t n = rows * (term.dim() / 16);
      cuda::launch(ctx, where, tensor_kernel<E>, {cuda::blocks_for(n), cuda::block_threads}, n, copies, dim, begin,
                   term.multiplicity, term.order, term.odd, words, from, frames.data<S>(), f, to);
    } else if (term.order > 0 || term.odd || from != to) {
      terms.at[terms.count++] = {terms.pieces, begin, column, term.order, term.odd};
      terms.pieces += term.order == 0 ? (term.multiplicity + 3) / 4 : term.multiplicity;
      if (terms.count == Terms::most) run();
    }
  }
  run();
}

template <class E>
void gradient(Context& ctx, std::span<const FramedFeatures> features, const Tensor& frames, const TensorReps& reps,
              Tensor& dframes) {
  using S = sum_type<E>;
  const int64_t T = frames.dim(0), dim = reps.dim();
  Quadruples quadruples{};
  bool fours = dim % 4 == 0;
  int64_t column = 0, quadruple = 0;
  for (int order = 0; order <= 4; ++order) {
    if (order > 0) quadruples.column[order - 1] = column;
    for (const auto& term : reps.terms()) {
      if (term.order != order) continue;
      if (order > 0) fours = fours && column % 4 == 0;
      column += term.dim();
      quadruple += order * term.dim() / 4;
    }
    if (order > 0) quadruples.end[order - 1] = quadruple;
  }
  AllFeatures<E> all{};
  for (const FramedFeatures& f : features) {
    const E *x = f.x.data<E>() + f.x_column, *dx = f.dx.data<E>() + f.dx_column;
    const bool words = fours && cuda::in_words(x, dx) && f.x.dim(1) % 4 == 0 && f.dx.dim(1) % 4 == 0;
    all.at[all.count++] = {x, dx, f.x.dim(1), f.dx.dim(1), f.copies, f.made_by_to_local, words};
  }
  cuda::launch(ctx, "frames_gradient", gradient_kernel<E>,
               {(16 * T + cuda::block_threads - 1) / cuda::block_threads, cuda::block_threads}, T, dim, quadruples, all,
               frames.data<S>(), dframes.data<S>());
}

}  // namespace

namespace cuda {

void frames_transform(Context& ctx, const char* where, const Tensor& x, const Tensor& frames, const TensorReps& reps,
                      FrameMap map, bool backward, Tensor& y) {
  dispatch_compute(where, x.dtype(), [&](auto type) {
    transform<typename decltype(type)::type>(ctx, where, x, frames, reps, map, backward, y);
  });
}

void frames_gradient(Context& ctx, std::span<const FramedFeatures> features, const Tensor& frames,
                     const TensorReps& reps, Tensor& dframes) {
  dispatch_compute("frames_gradient", features[0].x.dtype(),
                   [&](auto type) { gradient<typename decltype(type)::type>(ctx, features, frames, reps, dframes); });
}

}  // namespace cuda

}  // namespace lightcone::kernels
