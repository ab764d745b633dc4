#include "kernels/equi_linear.h"

#include <algorithm>

#include "kernels/linear_parts.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace {

constexpr const char* operation = "equi_linear";

/// Columns of a channel's halves in groups.
struct Columns {
  int64_t group;
  int64_t operator()(int64_t channel, int64_t half) const {
    return channel / group * 2 * group + half * group + channel % group;
  }
};

enum Matrix { scalar_matrix, bias_row, vector_matrix, bivector_matrix };

}  // namespace

// f(matrix, row, column, sign, head or -1, map, the tensor, its element): every entry of the matrices that is not zero.
template <class F>
void EquiLinearMatrices::for_each_entry(F&& f) const {
  const Columns in{layout_.in_group}, out{layout_.out_group};
  int64_t first = 0, first_s = 2 * N_;
  for (size_t m = 0; m < maps_.size(); ++m) {
    const EquiLinearWeights& w = maps_[m];
    const int64_t N = w.weight.dim(0), basis = w.weight.dim(2), mix = basis == 10 ? 2 : 1;
    const int64_t So = w.mvs2s.defined() ? w.mvs2s.dim(0) : w.s2s.defined() ? w.s2s.dim(0) : 0;
    auto head_of = [&](int64_t i, int64_t count) { return head_scale_.defined() ? i * heads_ / count : -1; };
    for (int64_t o = 0; o < N; ++o) {
      const int64_t row[] = {out(first + o, 0), out(first + o, 1)};
      const int minus = first + o < layout_.negated ? -1 : 1;
      for (int64_t i = 0; i < C_; ++i) {
        const int64_t col[] = {in(i, 0), in(i, 1)}, head = head_of(i, C_), at = (o * C_ + i) * basis;
        auto entry = [&](Matrix matrix, int to, int from, int b, int sign) {
          if (b < basis)
            f(matrix, row[to], col[from], to ? sign * minus : sign, head, m, &EquiLinearWeights::weight, at + b);
        };
        entry(scalar_matrix, 0, 0, 0, 1), entry(scalar_matrix, 1, 1, 4, 1);
        entry(scalar_matrix, 1, 0, 5, 1), entry(scalar_matrix, 0, 1, 9, -1);
        entry(vector_matrix, 0, 0, 1, 1), entry(vector_matrix, 1, 1, 3, 1);
        entry(vector_matrix, 1, 0, 6, 1), entry(vector_matrix, 0, 1, 8, -1);
        entry(bivector_matrix, 0, 0, 2, 1), entry(bivector_matrix, 1, 1, 2, 1);
        entry(bivector_matrix, 1, 0, 7, 1), entry(bivector_matrix, 0, 1, 7, -1);
      }
      if (w.bias.defined()) f(bias_row, 0, row[0], 1, int64_t{-1}, m, &EquiLinearWeights::bias, o);
      for (int64_t h = 0; h < mix; ++h) {
        const int sign = h ? minus : 1;
        if (w.s2mvs.defined())
          for (int64_t s = 0; s < S_; ++s)
            f(scalar_matrix, row[h], 2 * C_ + s, sign, head_of(s, S_), m, &EquiLinearWeights::s2mvs,
              (o * mix + h) * S_ + s);
        if (w.s2mvs_bias.defined())
          f(bias_row, 0, row[h], sign, int64_t{-1}, m, &EquiLinearWeights::s2mvs_bias, o * mix + h);
      }
    }
    for (int64_t r = 0; r < So; ++r) {
      if (w.mvs2s.defined())
        for (int64_t i = 0; i < C_; ++i)
          for (int64_t h = 0; h < mix; ++h)
            f(scalar_matrix, first_s + r, in(i, h), 1, head_of(i, C_), m, &EquiLinearWeights::mvs2s,
              (r * C_ + i) * mix + h);
      if (w.s2s.defined())
        for (int64_t s = 0; s < S_; ++s)
          f(scalar_matrix, first_s + r, 2 * C_ + s, 1, head_of(s, S_), m, &EquiLinearWeights::s2s, r * S_ + s);
      if (w.mvs2s_bias.defined()) f(bias_row, 0, first_s + r, 1, int64_t{-1}, m, &EquiLinearWeights::mvs2s_bias, r);
    }
    first += N;
    first_s += So;
  }
}

EquiLinearMatrices::EquiLinearMatrices(Context& ctx, std::span<const EquiLinearWeights> maps, const Tensor& head_scale,
                                       EquiLinearLayout layout, DType products, Context* home)
    : maps_(maps.begin(), maps.end()), head_scale_(head_scale), layout_(layout) {
  if (maps.empty()) fail(operation, "no maps, expected at least one");
  check(operation, "weight", maps[0].weight).rank(3).compute();
  const DType dtype = maps[0].weight.dtype();
  C_ = maps[0].weight.dim(1);
  S_ = 0;
  for (const auto& w : maps)
    if (w.s2mvs.defined())
      S_ = w.s2mvs.rank() == 2 ? w.s2mvs.dim(1) : 0;
    else if (w.s2s.defined())
      S_ = w.s2s.rank() == 2 ? w.s2s.dim(1) : 0;
  for (const auto& w : maps) {
    check(operation, "weight", w.weight).rank(3).dtype(dtype);
    const int64_t N = w.weight.dim(0), basis = w.weight.dim(2), mix = basis == 10 ? 2 : 1;
    if (basis != 5 && basis != 10) fail(operation, "weight has {} basis maps, expected 5 or 10", basis);
    check(operation, "weight", w.weight).shape({N, C_, basis});
    auto optional = [&](const char* name, const Tensor& t, const Shape& shape) {
      if (t.defined()) check(operation, name, t).shape(shape).dtype(dtype);
    };
    const Tensor& to_scalars = w.mvs2s.defined() ? w.mvs2s : w.s2s;
    const int64_t So = to_scalars.defined() && to_scalars.rank() ? to_scalars.dim(0) : 0;
    optional("bias", w.bias, {N, 1});
    optional("s2mvs", w.s2mvs, {mix * N, S_}), optional("s2mvs_bias", w.s2mvs_bias, {mix * N});
    optional("mvs2s", w.mvs2s, {So, mix * C_}), optional("mvs2s_bias", w.mvs2s_bias, {So});
    optional("s2s", w.s2s, {So, S_});
    N_ += N;
    So_ += So;
  }
  auto group = [&](const char* name, int64_t& size, int64_t channels) {
    if (size == 0) size = std::max<int64_t>(1, channels);
    if (size < 0 || channels % size) fail(operation, "{} is {}, expected a divisor of {}", name, size, channels);
  };
  group("in_group", layout_.in_group, C_);
  group("out_group", layout_.out_group, N_);
  if (head_scale.defined()) {
    check(operation, "head_scale", head_scale).rank(1).dtype(dtype);
    heads_ = head_scale.dim(0);
    if (heads_ < 1 || C_ % heads_ || S_ % heads_)
      fail(operation, "head_scale has {} entries, expected a divisor of {} and {}", heads_, C_, S_);
  }
  Context& owner = home ? *home : ctx;
  Tensor scalars = owner.zeros({2 * N_ + So_, 2 * C_ + S_}, dtype), vectors = owner.zeros({2 * N_, 2 * C_}, dtype),
         bivectors = owner.zeros({2 * N_, 2 * C_}, dtype);
  bias_ = owner.zeros({2 * N_ + So_}, dtype);
  dispatch_compute(operation, dtype, [&](auto type) {
    using W = typename decltype(type)::type;
    W* matrices[] = {scalars.data<W>(), bias_.data<W>(), vectors.data<W>(), bivectors.data<W>()};
    const int64_t columns[] = {2 * C_ + S_, 0, 2 * C_, 2 * C_};
    const W* scale = head_scale_.defined() ? head_scale_.data<W>() : nullptr;
    for_each_entry([&](Matrix matrix, int64_t row, int64_t col, int sign, int64_t head, size_t map,
                       Tensor EquiLinearWeights::*tensor, int64_t element) {
      using Sum = sum_type<W>;
      Sum value = sign * Sum((maps_[map].*tensor).data<W>()[element]);
      if (head >= 0) value *= Sum(scale[head]);
      matrices[matrix][row * columns[matrix] + col] = W(value);
    });
  });
  scalars_ = std::make_unique<Weights>(scalars, products, home);
  vectors_ = std::make_unique<Weights>(vectors, products, home);
  bivectors_ = std::make_unique<Weights>(bivectors, products, home);
}

void EquiLinearMatrices::gradients(const Tensor& dscalars, const Tensor& dbias, const Tensor& dvectors,
                                   const Tensor& dbivectors, std::span<EquiLinearWeights> maps,
                                   Tensor* dhead_scale) const {
  dispatch_compute(operation, dtype(), [&](auto type) {
    using W = typename decltype(type)::type;
    using Sum = sum_type<W>;
    const W* matrices[] = {dscalars.data<W>(), dbias.data<W>(), dvectors.data<W>(), dbivectors.data<W>()};
    const int64_t columns[] = {2 * C_ + S_, 0, 2 * C_, 2 * C_};
    const W* scale = head_scale_.defined() ? head_scale_.data<W>() : nullptr;
    std::vector<Sum> dscale(dhead_scale ? heads_ : 0);
    for (EquiLinearWeights& w : maps)
      for (Tensor* t : {&w.weight, &w.bias, &w.s2mvs, &w.s2mvs_bias, &w.mvs2s, &w.mvs2s_bias, &w.s2s})
        if (t->defined()) std::fill_n(t->data<W>(), t->numel(), W(0.f));
    for_each_entry([&](Matrix matrix, int64_t row, int64_t col, int sign, int64_t head, size_t map,
                       Tensor EquiLinearWeights::*tensor, int64_t element) {
      Sum value = sign * Sum(matrices[matrix][row * columns[matrix] + col]);
      if (head >= 0) {
        if (dhead_scale) dscale[head] += value * Sum((maps_[map].*tensor).data<W>()[element]);
        value *= Sum(scale[head]);
      }
      if (Tensor& to = maps[map].*tensor; to.defined()) {
        W& sum = to.data<W>()[element];  // of two for bivectors
        sum = W(Sum(sum) + value);
      }
    });
    if (dhead_scale)
      for (int64_t h = 0; h < heads_; ++h) dhead_scale->data<W>()[h] = W(dscale[h]);
  });
}

namespace cpu {

/// Rows of `first` [n] and `second` [m] side by side.
template <class E>
void join(int64_t rows, int64_t n, const E* first, int64_t m, const E* second, E* to) {
  for (int64_t t = 0; t < rows; ++t, to += n + m) {
    std::copy_n(first + t * n, n, to);
    std::copy_n(second + t * m, m, to + n);
  }
}

// X, Y, W, P: the types of x and s, of y and y_s, of the weights, and of the factors of products.
template <class X, class Y, class W, class P>
void equi_linear(Context& ctx, int64_t T, const X* x, const X* s, const EquiLinearMatrices& m, const Y* residual,
                 const Y* residual_s, Y* y, Y* y_s) {
  using Sum = sum_type<P>;
  const int64_t in = 2 * m.channels_in(), out = 2 * m.channels_out(), S = m.scalars_in(), So = m.scalars_out();
  const auto &mixed = m.scalars().template of_transpose<P>(ctx), &vectors = m.vectors().template of_transpose<P>(ctx),
             &bivectors = m.bivectors().template of_transpose<P>(ctx);
  Bias<W> bias(ctx, out + So, m.bias().template data<W>());
  parallel_chunks(ctx, T, gemm::row_chunk<P>, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    auto joined = ctx.scratch<X>(S ? rows * (in + S) : 0);
    auto sums = ctx.scratch<Sum>(rows * (out + So));
    if (S) join(rows, in, x + begin * in, S, s + begin * S, joined.data());
    gemm::multiply(ctx, rows, S ? joined.data() : x + begin * in, mixed, 0, out + So, bias.data(), sums.data());
    auto write = [&](int64_t n, const Sum* from, const Y* more, Y* to) {
      if (more)
        map_row(n, to, [&](auto at) { return at(more) + at(from); });
      else
        map_row(n, to, [&](auto at) { return at(from); });
    };
    for (int64_t t = begin; t < end; ++t) {
      const Sum* row = sums.data() + (t - begin) * (out + So);
      write(out, row, residual ? residual + t * out : nullptr, y + t * out);
      if (So) write(So, row + out, residual_s ? residual_s + t * So : nullptr, y_s + t * So);
    }
    for (int64_t p = 1; p < 8; ++p) {
      const int64_t at = p * T + begin;
      const auto& matrix = p < 5 ? vectors : bivectors;
      if (!residual) {
        gemm::multiply(ctx, rows, x + at * in, matrix, 0, out, static_cast<const Sum*>(nullptr), y + at * out);
      } else {
        gemm::multiply(ctx, rows, x + at * in, matrix, 0, out, static_cast<const Sum*>(nullptr), sums.data());
        write(rows * out, sums.data(), residual + at * out, y + at * out);
      }
    }
  });
}

template <class X, class Y, class W, class P>
void equi_linear_backward(Context& ctx, int64_t T, const Y* dy, const Y* dy_s, const X* x, const X* s,
                          const EquiLinearMatrices& m, X* dx, X* ds, W* dscalars, W* dbias, W* dvectors,
                          W* dbivectors) {
  using Sum = sum_type<P>;
  const int64_t in = 2 * m.channels_in(), out = 2 * m.channels_out(), S = m.scalars_in(), So = m.scalars_out();
  const int64_t K = in + S, N = out + So;
  const bool inputs = dx || ds;
  const gemm::Panels<P>* panels[3] = {};
  if (inputs) panels[0] = &m.scalars().template of_weights<P>(ctx);
  if (dx) panels[1] = &m.vectors().template of_weights<P>(ctx), panels[2] = &m.bivectors().template of_weights<P>(ctx);
  const Segments segments(T, N * K + 2 * in * out);
  TokenSum<W> sum_s(ctx, segments, N * K, dscalars), sum_b(ctx, segments, N, dbias),
      sum_v(ctx, segments, in * out, dvectors), sum_t(ctx, segments, in * out, dbivectors);
  parallel_chunks(ctx, T, segments.size, [&](int64_t segment, int64_t segment_begin, int64_t segment_end) {
    constexpr int64_t block = gemm::token_block;
    auto joined = ctx.scratch<X>(block * K);
    auto gradient = ctx.scratch<Y>(block * N);
    auto back = ctx.scratch<X>(inputs ? block * K : 0);
    for (int64_t begin = segment_begin; begin < segment_end; begin += block) {
      const int64_t rows = std::min(block, segment_end - begin);
      const bool more = begin != segment_begin;
      if (So) join(rows, out, dy + begin * out, So, dy_s + begin * So, gradient.data());
      const Y* g = So ? gradient.data() : dy + begin * out;
      if (dbias) add_rows(rows, N, g, !more, sum_b.of(segment));
      if (inputs) {
        gemm::multiply(ctx, rows, g, *panels[0], 0, K, static_cast<const Sum*>(nullptr), back.data());
        for (int64_t t = 0; t < rows; ++t) {
          if (dx) std::copy_n(back.data() + t * K, in, dx + (begin + t) * in);
          if (ds) std::copy_n(back.data() + t * K + in, S, ds + (begin + t) * S);
        }
      }
      if (dscalars) {
        if (S) join(rows, in, x + begin * in, S, s + begin * S, joined.data());
        gemm::multiply_tokens<P>(ctx, rows, N, K, g, S ? joined.data() : x + begin * in, sum_s.of(segment), more);
      }
      for (int64_t p = 1; p < 8; ++p) {
        const int64_t at = p * T + begin;
        if (dx)
          gemm::multiply(ctx, rows, dy + at * out, *panels[p < 5 ? 1 : 2], 0, in, static_cast<const Sum*>(nullptr),
                         dx + at * in);
        if (dvectors)
          gemm::multiply_tokens<P>(ctx, rows, out, in, dy + at * out, x + at * in, (p < 5 ? sum_v : sum_t).of(segment),
                                   more || (p != 1 && p != 5));
      }
    }
  });
  sum_s.finish();
  sum_b.finish();
  sum_v.finish();
  sum_t.finish();
}

}  // namespace cpu

namespace {

// Checks everything that the forward and the backward have in common; the number of tokens.
int64_t check_operands(const char* where, const Tensor& x, const Tensor& s, const EquiLinearMatrices& m,
                       const char* y_name, const Tensor& y, const char* y_s_name, const Tensor& y_s) {
  check(where, "x", x).rank(3);
  const int64_t T = x.dim(1);
  check(where, "x", x).shape({8, T, 2 * m.channels_in()});
  check_activation(where, "x", x, m.scalars());
  if (m.scalars_in()) check(where, "s", s).shape({T, m.scalars_in()}).dtype(x.dtype());
  check(where, y_name, y).shape({8, T, 2 * m.channels_out()});
  check_activation(where, y_name, y, m.scalars());
  if (m.scalars_out()) check(where, y_s_name, y_s).shape({T, m.scalars_out()}).dtype(y.dtype());
  return T;
}

// f(Type<X>, Type<Y>, Type<W>, Type<P>)
template <class F>
void dispatch(const char* where, DType x, DType y, const EquiLinearMatrices& m, F&& f) {
  dispatch_products(where, m.dtype(), m.scalars().products(), [&](auto weights, auto products) {
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    dispatch_activation<W, P>(
        x, [&](auto in) { dispatch_activation<W, P>(y, [&](auto out) { f(in, out, weights, products); }); });
  });
}

double flops(int64_t T, const EquiLinearMatrices& m) {
  return 2. * T *
         (28. * m.channels_in() * m.channels_out() +
          (2. * m.channels_in() + m.scalars_in()) * (2. * m.channels_out() + m.scalars_out()));
}

}  // namespace

void equi_linear(Context& ctx, const Tensor& x, const Tensor& s, const EquiLinearMatrices& m, const Tensor& residual,
                 const Tensor& residual_s, Tensor& y, Tensor& y_s) {
  const int64_t T = check_operands(operation, x, s, m, "y", y, "y_s", y_s);
  if (residual.defined()) check(operation, "residual", residual).like(y);
  if (residual_s.defined()) check(operation, "residual_s", residual_s).like(y_s);
  const auto scope = ctx.profiler().scope(
      operation, x.bytes() + s.bytes() + y.bytes() + y_s.bytes() + residual.bytes() + residual_s.bytes(), flops(T, m));
  dispatch(operation, x.dtype(), y.dtype(), m, [&](auto in, auto out, auto weights, auto products) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    cpu::equi_linear<X, Y, W, P>(ctx, T, x.data<X>(), data<X>(s), m, data<Y>(residual), data<Y>(residual_s),
                                 y.data<Y>(), data<Y>(&y_s));
  });
}

void equi_linear_backward(Context& ctx, const Tensor& dy, const Tensor& dy_s, const Tensor& x, const Tensor& s,
                          const EquiLinearMatrices& m, Tensor* dx, Tensor* ds, std::span<EquiLinearWeights> maps,
                          Tensor* dhead_scale) {
  const char* where = "equi_linear_backward";
  const int64_t T = check_operands(where, x, s, m, "dy", dy, "dy_s", dy_s);
  if (dx) check(where, "dx", *dx).like(x);
  if (ds) check(where, "ds", *ds).shape({T, m.scalars_in()}).dtype(x.dtype());
  bool weights_wanted = dhead_scale != nullptr;
  for (const EquiLinearWeights& w : maps)
    for (const Tensor* t : {&w.weight, &w.bias, &w.s2mvs, &w.s2mvs_bias, &w.mvs2s, &w.mvs2s_bias, &w.s2s})
      weights_wanted |= t->defined();
  const auto scope = ctx.profiler().scope(where, dy.bytes() + dy_s.bytes() + 2. * x.bytes() + 2. * s.bytes(),
                                          flops(T, m) * ((dx != nullptr) + weights_wanted));
  auto like = [&](const Tensor& t) { return weights_wanted ? ctx.empty(t.shape(), t.dtype()) : Tensor(); };
  Tensor dscalars = like(m.scalars().tensor()), dbias = like(m.bias()), dvectors = like(m.vectors().tensor()),
         dbivectors = like(m.bivectors().tensor());
  dispatch(where, x.dtype(), dy.dtype(), m, [&](auto in, auto out, auto weights, auto products) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using W = typename decltype(weights)::type;
    using P = typename decltype(products)::type;
    cpu::equi_linear_backward<X, Y, W, P>(ctx, T, dy.data<Y>(), data<Y>(dy_s), x.data<X>(), data<X>(s), m, data<X>(dx),
                                          data<X>(ds), data<W>(&dscalars), data<W>(&dbias), data<W>(&dvectors),
                                          data<W>(&dbivectors));
  });
  if (weights_wanted) m.gradients(dscalars, dbias, dvectors, dbivectors, maps, dhead_scale);
}

}  // namespace lightcone::kernels
