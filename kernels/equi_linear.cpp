#include "kernels/equi_linear.h"

#include <algorithm>

#include "kernels/equi_linear_math.h"
#include "kernels/linear_parts.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace {

constexpr const char* operation = "equi_linear";

}  // namespace

namespace cuda {  // equi_linear.cu
void assemble(Context& ctx, const equi::Map& map, const EquiLinearWeights& w, const Tensor& head_scale,
              const Tensor& scalars, const Tensor& bias, const Tensor& vectors, const Tensor& bivectors);
void gather(Context& ctx, std::span<const equi::Map> maps, std::span<const EquiLinearWeights> weights,
            const Tensor& head_scale, const Tensor& dscalars, const Tensor& dbias, const Tensor& dvectors,
            const Tensor& dbivectors, std::span<EquiLinearWeights> gradients, Tensor* dhead_scale);
void equi_linear(Context& ctx, const Tensor& x, const Tensor& s, const EquiLinearMatrices& m, const Tensor& residual,
                 const Tensor& residual_s, Tensor& y, Tensor& y_s);
void equi_linear_backward(Context& ctx, const Tensor& dy, const Tensor& dy_s, const Tensor& x, const Tensor& s,
                          const EquiLinearMatrices& m, Tensor* dx, Tensor* ds, Tensor* dscalars, Tensor* dbias,
                          Tensor* dvectors, Tensor* dbivectors);
}  // namespace cuda

namespace {

// f(part, element, r, i, d, head or -1) for all parameters of a map that are there.
template <class W, class F>
void for_parameters(const equi::Map& map, const equi::Parameters<W>& parameters, F&& f) {
  for (int p = 0; p < equi::parts; ++p) {
    if (!parameters.of[p]) continue;
    const auto part = static_cast<equi::Part>(p);
    const equi::Extents n = equi::extents(map, part);
    int64_t element = 0;
    for (int64_t r = 0; r < n.rows; ++r)
      for (int64_t i = 0; i < n.inner; ++i)
        for (int64_t d = 0; d < n.depth; ++d, ++element) f(part, element, r, i, d, equi::head_of(map, n, element));
  }
}

}  // namespace

std::vector<equi::Map> EquiLinearMatrices::places() const {
  std::vector<equi::Map> out;
  int64_t first = 0, first_s = 2 * N_;
  for (const EquiLinearWeights& w : maps_) {
    const int64_t N = w.weight.dim(0), So = w.mvs2s.defined() ? w.mvs2s.dim(0) : w.s2s.defined() ? w.s2s.dim(0) : 0;
    out.push_back({C_, S_, N, So, w.weight.dim(2), first, first_s, layout_.in_group, layout_.out_group, layout_.negated,
                   head_scale_.defined() ? heads_ : 0});
    first += N;
    first_s += So;
  }
  return out;
}

EquiLinearMatrices::EquiLinearMatrices(Context& ctx, std::span<const EquiLinearWeights> maps, const Tensor& head_scale,
                                       EquiLinearLayout layout, DType products, Context* home)
    : maps_(maps.begin(), maps.end()), head_scale_(head_scale), layout_(layout) {
  if (maps.empty()) fail(operation, "no maps, expected at least one");
  check(ctx, operation, "weight", maps[0].weight).rank(3).compute();
  const DType dtype = maps[0].weight.dtype();
  C_ = maps[0].weight.dim(1);
  S_ = 0;
  for (const auto& w : maps)
    if (w.s2mvs.defined())
      S_ = w.s2mvs.rank() == 2 ? w.s2mvs.dim(1) : 0;
    else if (w.s2s.defined())
      S_ = w.s2s.rank() == 2 ? w.s2s.dim(1) : 0;
  for (const auto& w : maps) {
    check(ctx, operation, "weight", w.weight).rank(3).dtype(dtype);
    const int64_t N = w.weight.dim(0), basis = w.weight.dim(2), mix = basis == 10 ? 2 : 1;
    if (basis != 5 && basis != 10) fail(operation, "weight has {} basis maps, expected 5 or 10", basis);
    check(ctx, operation, "weight", w.weight).shape({N, C_, basis});
    auto optional = [&](const char* name, const Tensor& t, const Shape& shape) {
      if (t.defined()) check(ctx, operation, name, t).shape(shape).dtype(dtype);
    };
    const Tensor& to_scalars = w.mvs2s.defined() ? w.mvs2s : w.s2s;
    const int64_t So = to_scalars.defined() && to_scalars.rank() ? to_scalars.dim(0) : 0;
    optional("bias", w.bias, {N, 1});
    if (w.bias.defined() && w.s2mvs_bias.defined()) fail(operation, "bias and s2mvs_bias, expected at most one");
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
    check(ctx, operation, "head_scale", head_scale).rank(1).dtype(dtype);
    heads_ = head_scale.dim(0);
    if (heads_ < 1 || C_ % heads_ || S_ % heads_)
      fail(operation, "head_scale has {} entries, expected a divisor of {} and {}", heads_, C_, S_);
  }
  Context& owner = home ? *home : ctx;  // whose stream has them made
  Tensor scalars = owner.zeros({2 * N_ + So_, 2 * C_ + S_}, dtype), vectors = owner.zeros({2 * N_, 2 * C_}, dtype),
         bivectors = owner.zeros({2 * N_, 2 * C_}, dtype);
  bias_ = owner.zeros({2 * N_ + So_}, dtype);
  const std::vector<equi::Map> places = this->places();
  for (size_t map = 0; map < places.size(); ++map) {
    if constexpr (built_with_cuda)
      if (ctx.device() == Device::cuda) {
        cuda::assemble(owner, places[map], maps_[map], head_scale, scalars, bias_, vectors, bivectors);
        continue;
      }
    dispatch_compute(operation, dtype, [&](auto type) {
      using W = typename decltype(type)::type;
      const equi::Matrices<W> to = {scalars.data<W>(), bias_.data<W>(), vectors.data<W>(), bivectors.data<W>()};
      const auto from = equi::parameters<const W>(maps_[map]);
      const W* scale = head_scale.defined() ? head_scale.data<W>() : nullptr;
      for_parameters(places[map], from,
                     [&](equi::Part part, int64_t element, int64_t r, int64_t i, int64_t d, int64_t head) {
                       using Sum = sum_type<W>;
                       const Sum value = Sum(from.of[part][element]), factor = head < 0 ? Sum(1) : Sum(scale[head]);
                       equi::spread(places[map], part, r, i, d, value * factor, to);
                     });
    });
  }
  scalars_ = std::make_unique<Weights>(scalars, products, home);
  vectors_ = std::make_unique<Weights>(vectors, products, home);
  bivectors_ = std::make_unique<Weights>(bivectors, products, home);
}

void EquiLinearMatrices::gradients(Context& ctx, const Tensor& dscalars, const Tensor& dbias, const Tensor& dvectors,
                                   const Tensor& dbivectors, std::span<EquiLinearWeights> maps,
                                   Tensor* dhead_scale) const {
  const std::vector<equi::Map> places = this->places();
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::gather(ctx, places, maps_, head_scale_, dscalars, dbias, dvectors, dbivectors, maps, dhead_scale);
  dispatch_compute(operation, dtype(), [&](auto type) {
    using W = typename decltype(type)::type;
    using Sum = sum_type<W>;
    const equi::Matrices<const W> from = {dscalars.data<W>(), dbias.data<W>(), dvectors.data<W>(),
                                          dbivectors.data<W>()};
    const W* scale = head_scale_.defined() ? head_scale_.data<W>() : nullptr;
    std::vector<Sum> dscale(dhead_scale ? heads_ : 0);
    for (size_t map = 0; map < places.size(); ++map) {
      const auto parameters = equi::parameters<const W>(maps_[map]);
      const auto to = equi::parameters<W>(maps[map]);
      for_parameters(places[map], parameters,
                     [&](equi::Part part, int64_t element, int64_t r, int64_t i, int64_t d, int64_t head) {
                       Sum value = equi::gathered<Sum>(places[map], part, r, i, d, from);
                       if (head >= 0) {
                         if (dhead_scale) dscale[head] += value * Sum(parameters.of[part][element]);
                         value *= Sum(scale[head]);
                       }
                       if (to.of[part]) to.of[part][element] = W(value);
                     });
    }
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
int64_t check_operands(const Context& ctx, const char* where, const Tensor& x, const Tensor& s,
                       const EquiLinearMatrices& m, const char* y_name, const Tensor& y, const char* y_s_name,
                       const Tensor& y_s) {
  check(ctx, where, "x", x).rank(3);
  const int64_t T = x.dim(1);
  const bool amp = m.dtype() == DType::f32 && m.scalars().products() == DType::bf16;
  auto check_activation = [&](const char* name, const Tensor& t, int64_t columns) {
    Check c = check(ctx, where, name, t).shape({8, T, columns});
    amp ? c.dtype(DType::f32, DType::bf16) : c.dtype(m.dtype());
  };
  check_activation("x", x, 2 * m.channels_in());
  if (m.scalars_in()) check(ctx, where, "s", s).shape({T, m.scalars_in()}).dtype(x.dtype());
  check_activation(y_name, y, 2 * m.channels_out());
  if (m.scalars_out()) check(ctx, where, y_s_name, y_s).shape({T, m.scalars_out()}).dtype(y.dtype());
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
  const int64_t T = check_operands(ctx, operation, x, s, m, "y", y, "y_s", y_s);
  if (residual.defined()) check(ctx, operation, "residual", residual).like(y);
  if (residual_s.defined()) check(ctx, operation, "residual_s", residual_s).like(y_s);
  const auto scope = ctx.profiler().scope(
      operation, x.bytes() + s.bytes() + y.bytes() + y_s.bytes() + residual.bytes() + residual_s.bytes(), flops(T, m));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::equi_linear(ctx, x, s, m, residual, residual_s, y, y_s);
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
  const int64_t T = check_operands(ctx, where, x, s, m, "dy", dy, "dy_s", dy_s);
  if (dx) check(ctx, where, "dx", *dx).like(x);
  if (ds) check(ctx, where, "ds", *ds).shape({T, m.scalars_in()}).dtype(x.dtype());
  bool weights_wanted = dhead_scale != nullptr;
  for (const EquiLinearWeights& w : maps)
    for (const Tensor* t : {&w.weight, &w.bias, &w.s2mvs, &w.s2mvs_bias, &w.mvs2s, &w.mvs2s_bias, &w.s2s})
      weights_wanted |= t->defined();
  const auto scope = ctx.profiler().scope(where, dy.bytes() + dy_s.bytes() + 2. * x.bytes() + 2. * s.bytes(),
                                          flops(T, m) * ((dx != nullptr) + weights_wanted));
  auto like = [&](const Tensor& t) { return weights_wanted ? ctx.empty(t.shape(), t.dtype()) : Tensor(); };
  Tensor dscalars = like(m.scalars().tensor()), dbias = like(m.bias()), dvectors = like(m.vectors().tensor()),
         dbivectors = like(m.bivectors().tensor());
  auto wanted = [&](Tensor& t) { return weights_wanted ? &t : nullptr; };
  auto on_cpu = [&] {
    dispatch(where, x.dtype(), dy.dtype(), m, [&](auto in, auto out, auto weights, auto products) {
      using X = typename decltype(in)::type;
      using Y = typename decltype(out)::type;
      using W = typename decltype(weights)::type;
      using P = typename decltype(products)::type;
      cpu::equi_linear_backward<X, Y, W, P>(ctx, T, dy.data<Y>(), data<Y>(dy_s), x.data<X>(), data<X>(s), m,
                                            data<X>(dx), data<X>(ds), data<W>(&dscalars), data<W>(&dbias),
                                            data<W>(&dvectors), data<W>(&dbivectors));
    });
  };
  if constexpr (built_with_cuda)
    ctx.device() == Device::cuda ? cuda::equi_linear_backward(ctx, dy, dy_s, x, s, m, dx, ds, wanted(dscalars),
                                                              wanted(dbias), wanted(dvectors), wanted(dbivectors))
                                 : on_cpu();
  else
    on_cpu();
  if (weights_wanted) m.gradients(ctx, dscalars, dbias, dvectors, dbivectors, maps, dhead_scale);
}

}  // namespace lightcone::kernels
