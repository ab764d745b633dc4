#include "kernels/normed_projection.h"

#include <algorithm>

#include "kernels/linear_parts.h"
#include "kernels/lorentz_norm_rows.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace cpu {
namespace {

struct Sizes {
  int64_t T, V, S;         // channels that come in
  int64_t groups, Cv, Cs;  // and of one group that goes out
  int64_t rows_v() const { return groups * Cv; }
  int64_t rows_s() const { return groups * Cs; }
};

// W, Y, P: the types of tensors, of y and dy, and of the factors of products. The work of one thread on up to `most`
// tokens at once.
template <class W, class P>
class Projection {
 public:
  using Sum = sum_type<P>;
  Context::Scratch<Sum> nv, ns, zv, zs;  // normalised, and mapped

  Projection(Context& ctx, const Sizes& n, const ProjectionWeights& w, bool normalise, double eps, int64_t most)
      : nv(ctx, most * 4 * n.V),
        ns(ctx, most * n.S),
        zv(ctx, most * 4 * n.rows_v()),
        zs(ctx, most * n.rows_s()),
        ctx_(ctx),
        n_(n),
        w_(w),
        normalise_(normalise),
        bias_(ctx, n.rows_s(), data<W>(w.bias)),
        before_(ctx, 1, n.V, n.S, eps),
        behind_(ctx, n.groups, n.Cv, n.Cs, eps) {}

  void compute(int64_t count, const W* v, const W* s) {
    if (normalise_) {
      for (int64_t t = 0; t < count; ++t)
        before_.forward(v + t * 4 * n_.V, s + t * n_.S, nv.data() + t * 4 * n_.V, ns.data() + t * n_.S);
    } else {
      convert(count * 4 * n_.V, v, nv.data());
      convert(count * n_.S, s, ns.data());
    }
    gemm::multiply(ctx_, 4 * count, nv.data(), w_.v->of_transpose<P>(ctx_), 0, n_.rows_v(), nullptr, zv.data());
    gemm::multiply(ctx_, count, ns.data(), w_.s->of_transpose<P>(ctx_), 0, n_.rows_s(), bias_.data(), zs.data());
  }

  template <class Y>
  void finish(int64_t count, Y* yv, Y* ys) {
    for (int64_t t = 0; t < count; ++t) {
      const int64_t at_v = t * 4 * n_.rows_v(), at_s = t * n_.rows_s();
      behind_.forward(zv.data() + at_v, zs.data() + at_s, yv + at_v, ys + at_s);
    }
  }

  // In the place of zv and zs, their gradients.
  template <class Y>
  void start_backward(int64_t count, const Y* dyv, const Y* dys) {
    const Sum* none = nullptr;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t at_v = t * 4 * n_.rows_v(), at_s = t * n_.rows_s();
      behind_.backward(zv.data() + at_v, zs.data() + at_s, dyv + at_v, dys + at_s, none, none, zv.data() + at_v,
                       zs.data() + at_s);
    }
  }

  // Takes the place of nv and ns for the gradients of what they hold.
  void finish_backward(int64_t count, const W* v, const W* s, const W* add_v, const W* add_s, W* dv, W* ds) {
    gemm::multiply(ctx_, 4 * count, zv.data(), w_.v->of_weights<P>(ctx_), 0, n_.V, nullptr, nv.data());
    gemm::multiply(ctx_, count, zs.data(), w_.s->of_weights<P>(ctx_), 0, n_.S, nullptr, ns.data());
    if (normalise_) {
      for (int64_t t = 0; t < count; ++t) {
        const int64_t i = t * 4 * n_.V, j = t * n_.S;
        before_.backward(v + i, s + j, nv.data() + i, ns.data() + j, add_v ? add_v + i : nullptr,
                         add_s ? add_s + j : nullptr, dv + i, ds + j);
      }
    } else {
      auto sum = [](int64_t n, const Sum* x, const W* add, W* to) {
        if (add)
          map_row(n, to, [&](auto at) { return at(add) + at(x); });
        else
          convert(n, x, to);
      };
      sum(count * 4 * n_.V, nv.data(), add_v, dv);
      sum(count * n_.S, ns.data(), add_s, ds);
    }
  }

 private:
  Context& ctx_;
  const Sizes& n_;
  const ProjectionWeights& w_;
  bool normalise_;
  Bias<W> bias_;
  LorentzNormRows<Sum> before_, behind_;
};

template <class W, class Y, class P>
void normed_projection(Context& ctx, const Sizes& n, const W* v, const W* s, const ProjectionWeights& w, bool normalise,
                       double eps, Y* yv, Y* ys) {
  w.v->of_transpose<P>(ctx), w.s->of_transpose<P>(ctx);  // before threads ask for them
  constexpr int64_t most = 64, few = 32;
  const int64_t chunk = n.T > 4 * most ? most : few;
  parallel_chunks(ctx, n.T, chunk, [&](int64_t, int64_t begin, int64_t end) {
    Projection<W, P> projection(ctx, n, w, normalise, eps, chunk);
    projection.compute(end - begin, v + begin * 4 * n.V, s + begin * n.S);
    projection.finish(end - begin, yv + begin * 4 * n.rows_v(), ys + begin * n.rows_s());
  });
}

template <class W, class Y, class P>
void normed_projection_backward(Context& ctx, const Sizes& n, const Y* dyv, const Y* dys, const W* v, const W* s,
                                const ProjectionWeights& w, bool normalise, double eps, const W* add_v, const W* add_s,
                                const ProjectionGradients& g) {
  using Sum = sum_type<P>;
  for (const Weights* part : {w.v, w.s}) part->of_transpose<P>(ctx), part->of_weights<P>(ctx);
  constexpr int64_t block = gemm::token_block, part = block / 4;  // of scalars; as many rows of vectors
  const Segments segments(n.T, std::max(n.rows_v() * n.V, n.rows_s() * n.S));
  TokenSum<W> sum_v(ctx, segments, n.rows_v() * n.V, data<W>(g.w_v)),
      sum_s(ctx, segments, n.rows_s() * n.S, data<W>(g.w_s)), sum_b(ctx, segments, n.rows_s(), data<W>(g.bias));
  W *dv = g.dv->template data<W>(), *ds = g.ds->template data<W>();
  parallel_chunks(ctx, n.T, segments.size, [&](int64_t segment, int64_t segment_begin, int64_t segment_end) {
    Projection<W, P> projection(ctx, n, w, normalise, eps, block);
    for (int64_t begin = segment_begin; begin < segment_end; begin += block) {
      const int64_t count = std::min(block, segment_end - begin), i = begin * 4 * n.V, j = begin * n.S;
      const bool first = begin == segment_begin;
      projection.compute(count, v + i, s + j);
      projection.start_backward(count, dyv + begin * 4 * n.rows_v(), dys + begin * n.rows_s());
      const Sum *dzv = projection.zv.data(), *dzs = projection.zs.data();
      if (g.w_v)
        for (int64_t t = 0; t < count; t += part)
          gemm::multiply_tokens<P>(ctx, 4 * std::min(part, count - t), n.rows_v(), n.V, dzv + t * 4 * n.rows_v(),
                                   projection.nv.data() + t * 4 * n.V, sum_v.of(segment), !first || t > 0);
      if (g.w_s)
        gemm::multiply_tokens<P>(ctx, count, n.rows_s(), n.S, dzs, projection.ns.data(), sum_s.of(segment), !first);
      if (g.bias) add_rows(count, n.rows_s(), dzs, first, sum_b.of(segment));
      projection.finish_backward(count, v + i, s + j, add_v ? add_v + i : nullptr, add_s ? add_s + j : nullptr, dv + i,
                                 ds + j);
    }
  });
  for (auto* sum : {&sum_v, &sum_s, &sum_b}) sum->finish();
}

}  // namespace
}  // namespace cpu

namespace {

cpu::Sizes check_projection(const char* where, const Tensor& v, const Tensor& s, const ProjectionWeights& w,
                            int64_t groups, const char* name_v, const Tensor& yv, const char* name_s,
                            const Tensor& ys) {
  check(where, "v", v).rank(3).compute();
  check(where, "s", s).rank(2).dtype(v.dtype());
  const int64_t T = v.dim(0), V = v.dim(2), S = s.dim(1);
  if (v.dim(1) != 4) fail(where, "v has shape {}, expected 4 components along its second axis", v.shape());
  if (s.dim(0) != T) fail(where, "s has {} tokens, v has {}", s.dim(0), T);
  if (V + S == 0) fail(where, "v and s have 0 channels");
  check(where, "w_v", w.v->tensor()).rank(2).dtype(v.dtype());
  check(where, "w_s", w.s->tensor()).rank(2).dtype(v.dtype());
  const int64_t rows_v = w.v->tensor().dim(0), rows_s = w.s->tensor().dim(0);
  check(where, "w_v", w.v->tensor()).shape({rows_v, V});
  check(where, "w_s", w.s->tensor()).shape({rows_s, S});
  if (w.v->products() != w.s->products())
    fail(where, "w_v multiplies in {}, w_s in {}; expected the same", w.v->products(), w.s->products());
  if (groups < 1 || rows_v % groups || rows_s % groups || rows_v + rows_s == 0)
    fail(where, "w_v has {} rows and w_s {}, expected multiples of {} groups", rows_v, rows_s, groups);
  if (w.bias.defined()) check(where, "bias", w.bias).shape({rows_s}).dtype(v.dtype());
  check_activation(where, name_v, yv, *w.v);
  check(where, name_v, yv).shape({T, 4, rows_v});
  check(where, name_s, ys).shape({T, rows_s}).dtype(yv.dtype());
  return {T, V, S, groups, rows_v / groups, rows_s / groups};
}

// f(Type<W>, Type<Y>, Type<P>)
template <class F>
void dispatch_projection(const char* where, DType w, DType y, DType products, F&& f) {
  dispatch_products(where, w, products, [&](auto weights, auto product) {
    dispatch_activation<typename decltype(weights)::type, typename decltype(product)::type>(
        y, [&](auto out) { f(weights, out, product); });
  });
}

}  // namespace

void normed_projection(Context& ctx, const Tensor& v, const Tensor& s, const ProjectionWeights& w, bool normalise,
                       int64_t groups, double eps, Tensor& yv, Tensor& ys) {
  const char* where = "normed_projection";
  const cpu::Sizes n = check_projection(where, v, s, w, groups, "yv", yv, "ys", ys);
  const double products = 4. * w.v->tensor().numel() + w.s->tensor().numel();
  const auto scope = ctx.profiler().scope(where, v.bytes() + s.bytes() + yv.bytes() + ys.bytes(), 2. * n.T * products);
  dispatch_projection(where, v.dtype(), yv.dtype(), w.v->products(), [&](auto type, auto out, auto product) {
    using W = typename decltype(type)::type;
    using Y = typename decltype(out)::type;
    using P = typename decltype(product)::type;
    cpu::normed_projection<W, Y, P>(ctx, n, v.data<W>(), s.data<W>(), w, normalise, eps, yv.data<Y>(), ys.data<Y>());
  });
}

void normed_projection_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                                const ProjectionWeights& w, bool normalise, int64_t groups, double eps,
                                const Tensor& add_v, const Tensor& add_s, const ProjectionGradients& g) {
  const char* where = "normed_projection_backward";
  const cpu::Sizes n = check_projection(where, v, s, w, groups, "dyv", dyv, "dys", dys);
  if (!g.dv || !g.ds) fail(where, "dv or ds is not there");
  check(where, "dv", *g.dv).like(v);
  check(where, "ds", *g.ds).like(s);
  if (add_v.defined()) check(where, "add_v", add_v).like(v);
  if (add_s.defined()) check(where, "add_s", add_s).like(s);
  if (g.w_v) check(where, "dw_v", *g.w_v).like(w.v->tensor());
  if (g.w_s) check(where, "dw_s", *g.w_s).like(w.s->tensor());
  if (g.bias) check(where, "dbias", *g.bias).shape({n.rows_s()}).dtype(v.dtype());
  const double products = 4. * w.v->tensor().numel() + w.s->tensor().numel();
  const auto scope = ctx.profiler().scope(
      where, 2. * (v.bytes() + s.bytes()) + add_v.bytes() + add_s.bytes() + dyv.bytes() + dys.bytes(),
      6. * n.T * products);
  dispatch_projection(where, v.dtype(), dyv.dtype(), w.v->products(), [&](auto type, auto out, auto product) {
    using W = typename decltype(type)::type;
    using Y = typename decltype(out)::type;
    using P = typename decltype(product)::type;
    cpu::normed_projection_backward<W, Y, P>(ctx, n, dyv.data<Y>(), dys.data<Y>(), v.data<W>(), s.data<W>(), w,
                                             normalise, eps, data<W>(add_v), data<W>(add_s), g);
  });
}

}  // namespace lightcone::kernels
