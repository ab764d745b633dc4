#include "kernels/heads_projection.h"

#include <algorithm>

#include "kernels/heads_rows.h"
#include "kernels/linear_parts.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace cpu {
namespace {

struct Sizes {
  int64_t T, V, S;  // channels outside of heads
  HeadGroups groups;
  int64_t Cv, Cs;  // of one group
  int64_t rows_v() const { return groups.count * Cv; }
  int64_t rows_s() const { return groups.count * Cs; }
  int64_t head() const { return 4 * Cv + Cs; }
  int64_t stride() const { return T * head(); }  // from group to group
};

// W, Y, P: the types of tensors, of y and dy, and of the factors of products. The work of one thread on up to `most`
// tokens at once.
template <class W, class P>
class Projection {
 public:
  using Sum = sum_type<P>;
  Context::Scratch<Sum> nv, ns, zv, zs, dzv, dzs;  // normalised, and mapped; gradients

  Projection(Context& ctx, const Sizes& n, const ProjectionWeights& w, bool normalise, double eps, int64_t most,
             bool backward)
      : nv(ctx, most * 4 * n.V),
        ns(ctx, most * n.S),
        zv(ctx, most * 4 * n.rows_v()),
        zs(ctx, most * n.rows_s()),
        dzv(ctx, backward ? most * 4 * n.rows_v() : 0),
        dzs(ctx, backward ? most * n.rows_s() : 0),
        ctx_(ctx),
        n_(n),
        w_(w),
        normalise_(normalise),
        bias_(ctx, n.rows_s(), data<W>(w.bias)),
        before_(ctx, 1, n.V, n.S, eps),
        heads_(ctx, n.groups.count, n.Cv, n.Cs, n.stride(), eps, n.groups.lowered_begin, n.groups.lowered_end) {}

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
  void finish(int64_t count, Y* y) {
    for (int64_t t = 0; t < count; ++t)
      heads_.join_normed(zv.data() + t * 4 * n_.rows_v(), zs.data() + t * n_.rows_s(), y + t * n_.head());
  }

  // The gradients of zv and zs.
  template <class Y>
  void start_backward(int64_t count, const Y* dy) {
    for (int64_t t = 0; t < count; ++t)
      heads_.separate_normed_backward(dy + t * n_.head(), zv.data() + t * 4 * n_.rows_v(), zs.data() + t * n_.rows_s(),
                                      dzv.data() + t * 4 * n_.rows_v(), dzs.data() + t * n_.rows_s());
  }

  // Takes the place of nv and ns for the gradients of what they hold.
  void finish_backward(int64_t count, const W* v, const W* s, const W* add_v, const W* add_s, W* dv, W* ds) {
    gemm::multiply(ctx_, 4 * count, dzv.data(), w_.v->of_weights<P>(ctx_), 0, n_.V, nullptr, nv.data());
    gemm::multiply(ctx_, count, dzs.data(), w_.s->of_weights<P>(ctx_), 0, n_.S, nullptr, ns.data());
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
  LorentzNormRows<Sum> before_;
  HeadRows<Sum> heads_;
};

template <class W, class Y, class P>
void project_to_heads(Context& ctx, const Sizes& n, const W* v, const W* s, const ProjectionWeights& w, bool normalise,
                      double eps, Y* y) {
  w.v->of_transpose<P>(ctx), w.s->of_transpose<P>(ctx);  // before threads ask for them
  constexpr int64_t most = 64, few = 32;
  const int64_t chunk = n.T > 4 * most ? most : few;
  parallel_chunks(ctx, n.T, chunk, [&](int64_t, int64_t begin, int64_t end) {
    Projection<W, P> projection(ctx, n, w, normalise, eps, chunk, false);
    projection.compute(end - begin, v + begin * 4 * n.V, s + begin * n.S);
    projection.finish(end - begin, y + begin * n.head());
  });
}

// Sums of the gradients of weights over tokens.
template <class W, class P>
struct WeightSums {
  using Sum = sum_type<P>;
  const int64_t out_v, in_v, out_s, in_s;
  const Segments segments;
  TokenSum<W> v, s, bias;
  bool has_v, has_s, has_bias;

  WeightSums(Context& ctx, int64_t T, const ProjectionWeights& w, Tensor* dw_v, Tensor* dw_s, Tensor* dbias)
      : out_v(w.v->tensor().dim(0)),
        in_v(w.v->tensor().dim(1)),
        out_s(w.s->tensor().dim(0)),
        in_s(w.s->tensor().dim(1)),
        segments(T, std::max(out_v * in_v, out_s * in_s)),
        v(ctx, segments, out_v * in_v, data<W>(dw_v)),
        s(ctx, segments, out_s * in_s, data<W>(dw_s)),
        bias(ctx, segments, out_s, data<W>(dbias)),
        has_v(dw_v),
        has_s(dw_s),
        has_bias(dbias) {}

  // Of at most gemm::token_block tokens: gradients dv, ds of what weights made of xv, xs.
  template <class G>
  void add(Context& ctx, int64_t segment, bool first, int64_t count, const G* dv, const G* ds, const Sum* xv,
           const Sum* xs) {
    constexpr int64_t part = gemm::token_block / 4;  // as many rows of vectors
    if (has_v)
      for (int64_t t = 0; t < count; t += part)
        gemm::multiply_tokens<P>(ctx, 4 * std::min(part, count - t), out_v, in_v, dv + t * 4 * out_v, xv + t * 4 * in_v,
                                 v.of(segment), !first || t > 0);
    if (has_s) gemm::multiply_tokens<P>(ctx, count, out_s, in_s, ds, xs, s.of(segment), !first);
    if (has_bias) add_rows(count, out_s, ds, first, bias.of(segment));
  }
  void finish() {
    for (auto* sum : {&v, &s, &bias}) sum->finish();
  }
};

// f(segment, first of it, begin, count) for blocks of tokens.
template <class F>
void for_token_blocks(Context& ctx, const Segments& segments, int64_t T, F&& f) {
  constexpr int64_t block = gemm::token_block;
  parallel_chunks(ctx, T, segments.size, [&](int64_t segment, int64_t segment_begin, int64_t segment_end) {
    f(segment, [&](auto&& work) {
      for (int64_t begin = segment_begin; begin < segment_end; begin += block)
        work(begin == segment_begin, begin, std::min(block, segment_end - begin));
    });
  });
}

template <class W, class Y, class P>
void project_to_heads_backward(Context& ctx, const Sizes& n, const Y* dy, const W* v, const W* s,
                               const ProjectionWeights& w, bool normalise, double eps, const W* add_v, const W* add_s,
                               const ProjectionGradients& g) {
  for (const Weights* part : {w.v, w.s}) part->of_transpose<P>(ctx), part->of_weights<P>(ctx);
  WeightSums<W, P> sums(ctx, n.T, w, g.w_v, g.w_s, g.bias);
  W *dv = g.dv->template data<W>(), *ds = g.ds->template data<W>();
  for_token_blocks(ctx, sums.segments, n.T, [&](int64_t segment, auto&& blocks) {
    Projection<W, P> projection(ctx, n, w, normalise, eps, gemm::token_block, true);
    blocks([&](bool first, int64_t begin, int64_t count) {
      const int64_t i = begin * 4 * n.V, j = begin * n.S;
      projection.compute(count, v + i, s + j);
      projection.start_backward(count, dy + begin * n.head());
      sums.add(ctx, segment, first, count, projection.dzv.data(), projection.dzs.data(), projection.nv.data(),
               projection.ns.data());
      projection.finish_backward(count, v + i, s + j, add_v ? add_v + i : nullptr, add_s ? add_s + j : nullptr, dv + i,
                                 ds + j);
    });
  });
  sums.finish();
}

template <class W, class Y, class P>
void project_from_heads(Context& ctx, const Sizes& n, const Y* x, const ProjectionWeights& w, const W* residual_v,
                        const W* residual_s, W* yv, W* ys) {
  using Sum = sum_type<P>;
  const auto &to_v = w.v->of_transpose<P>(ctx), &to_s = w.s->of_transpose<P>(ctx);
  Bias<W> bias(ctx, n.S, data<W>(w.bias));
  constexpr int64_t most = 64, few = 32;
  const int64_t chunk = n.T > 4 * most ? most : few;
  parallel_chunks(ctx, n.T, chunk, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    auto xv = ctx.scratch<Sum>(chunk * 4 * n.rows_v()), xs = ctx.scratch<Sum>(chunk * n.rows_s()),
         zv = ctx.scratch<Sum>(chunk * 4 * n.V), zs = ctx.scratch<Sum>(chunk * n.S);
    const HeadRows<Sum> heads(ctx, n.groups.count, n.Cv, n.Cs, n.stride());
    for (int64_t t = 0; t < count; ++t)
      heads.separate(x + (begin + t) * n.head(), xv.data() + t * 4 * n.rows_v(), xs.data() + t * n.rows_s());
    gemm::multiply(ctx, 4 * count, xv.data(), to_v, 0, n.V, nullptr, zv.data());
    gemm::multiply(ctx, count, xs.data(), to_s, 0, n.S, bias.data(), zs.data());
    auto put = [&](int64_t width, const Sum* z, const W* residual, W* y) {
      if (residual)
        map_row(count * width, y + begin * width, [&](auto at) { return at(residual + begin * width) + at(z); });
      else
        convert(count * width, z, y + begin * width);
    };
    put(4 * n.V, zv.data(), residual_v, yv);
    put(n.S, zs.data(), residual_s, ys);
  });
}

template <class W, class Y, class P>
void project_from_heads_backward(Context& ctx, const Sizes& n, const W* dyv, const W* dys, const Y* x,
                                 const ProjectionWeights& w, const FromHeadsGradients& g) {
  using Sum = sum_type<P>;
  const auto &from_v = w.v->of_weights<P>(ctx), &from_s = w.s->of_weights<P>(ctx);
  WeightSums<W, P> sums(ctx, n.T, w, g.w_v, g.w_s, g.bias);
  Y* dx = data<Y>(g.dx);
  for_token_blocks(ctx, sums.segments, n.T, [&](int64_t segment, auto&& blocks) {
    auto xv = ctx.scratch<Sum>(gemm::token_block * 4 * n.rows_v()),
         xs = ctx.scratch<Sum>(gemm::token_block * n.rows_s());
    const HeadRows<Sum> heads(ctx, n.groups.count, n.Cv, n.Cs, n.stride());
    blocks([&](bool first, int64_t begin, int64_t count) {
      const W *dv = dyv + begin * 4 * n.V, *ds = dys + begin * n.S;
      const int64_t row_v = 4 * n.rows_v(), row_s = n.rows_s();
      for (int64_t t = 0; t < count; ++t)
        heads.separate(x + (begin + t) * n.head(), xv.data() + t * row_v, xs.data() + t * row_s);
      sums.add(ctx, segment, first, count, dv, ds, xv.data(), xs.data());
      if (!dx) return;
      gemm::multiply(ctx, 4 * count, dv, from_v, 0, n.rows_v(), nullptr, xv.data());
      gemm::multiply(ctx, count, ds, from_s, 0, n.rows_s(), nullptr, xs.data());
      for (int64_t t = 0; t < count; ++t)
        heads.join(xv.data() + t * row_v, xs.data() + t * row_s, dx + (begin + t) * n.head());
    });
  });
  sums.finish();
}

}  // namespace
}  // namespace cpu

namespace cuda {  // heads_projection.cu
void project_to_heads(Context& ctx, const Tensor& v, const Tensor& s, const ProjectionWeights& w, bool normalise,
                      const HeadGroups& groups, double eps, Tensor& y);
void project_to_heads_backward(Context& ctx, const Tensor& dy, const Tensor& v, const Tensor& s,
                               const ProjectionWeights& w, bool normalise, const HeadGroups& groups, double eps,
                               const Tensor& add_v, const Tensor& add_s, const ProjectionGradients& gradients);
void project_from_heads(Context& ctx, const Tensor& x, const ProjectionWeights& w, const Tensor& residual_v,
                        const Tensor& residual_s, Tensor& yv, Tensor& ys);
void project_from_heads_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& x,
                                 const ProjectionWeights& w, const FromHeadsGradients& gradients);
}  // namespace cuda

namespace {

// Of weights [out, in] or, from heads, [in, out] as they are told.
cpu::Sizes check_projection(const Context& ctx, const char* where, const Tensor& v, const char* name_v, const Tensor& s,
                            const char* name_s, const ProjectionWeights& w, bool to_heads, const HeadGroups& groups,
                            const Tensor& y, const char* name_y) {
  check(ctx, where, name_v, v).rank(3).compute();
  check(ctx, where, name_s, s).rank(2).dtype(v.dtype());
  const int64_t T = v.dim(0), V = v.dim(2), S = s.dim(1);
  if (v.dim(1) != 4) fail(where, "{} has shape {}, expected 4 components along its second axis", name_v, v.shape());
  if (s.dim(0) != T) fail(where, "{} has {} tokens, {} has {}", name_s, s.dim(0), name_v, T);
  if (V + S == 0) fail(where, "{} and {} have 0 channels", name_v, name_s);
  check(ctx, where, "w_v", w.v->tensor()).rank(2).dtype(v.dtype());
  check(ctx, where, "w_s", w.s->tensor()).rank(2).dtype(v.dtype());
  const int heads_axis = to_heads ? 0 : 1;
  const int64_t rows_v = w.v->tensor().dim(heads_axis), rows_s = w.s->tensor().dim(heads_axis);
  check(ctx, where, "w_v", w.v->tensor()).shape(to_heads ? Shape{rows_v, V} : Shape{V, rows_v});
  check(ctx, where, "w_s", w.s->tensor()).shape(to_heads ? Shape{rows_s, S} : Shape{S, rows_s});
  if (w.v->products() != w.s->products())
    fail(where, "w_v multiplies in {}, w_s in {}; expected the same", w.v->products(), w.s->products());
  const int64_t G = groups.count;
  if (G < 1 || rows_v % G || rows_s % G || rows_v + rows_s == 0)
    fail(where, "w_v has {} {} and w_s {}, expected multiples of {} groups", rows_v, to_heads ? "rows" : "columns",
         rows_s, G);
  if (groups.lowered_begin < 0 || groups.lowered_end > G)
    fail(where, "groups {} to {} are lowered, expected some of {}", groups.lowered_begin, groups.lowered_end, G);
  if (w.bias.defined()) check(ctx, where, "bias", w.bias).shape({to_heads ? rows_s : S}).dtype(v.dtype());
  check_activation(ctx, where, name_y, y, *w.v);
  check(ctx, where, name_y, y).shape({G, T, (4 * rows_v + rows_s) / G});
  return {T, V, S, groups, rows_v / G, rows_s / G};
}

// f(Type<W>, Type<Y>, Type<P>)
template <class F>
void dispatch_projection(const char* where, DType w, DType y, DType products, F&& f) {
  dispatch_products(where, w, products, [&](auto weights, auto product) {
    dispatch_activation<typename decltype(weights)::type, typename decltype(product)::type>(
        y, [&](auto out) { f(weights, out, product); });
  });
}

HeadGroups heads_of(const Context& ctx, const char* where, const Tensor& x) {
  check(ctx, where, "x", x).rank(3);
  return {.count = x.dim(0)};
}

double products_of(const ProjectionWeights& w) { return 4. * w.v->tensor().numel() + w.s->tensor().numel(); }

}  // namespace

void project_to_heads(Context& ctx, const Tensor& v, const Tensor& s, const ProjectionWeights& w, bool normalise,
                      const HeadGroups& groups, double eps, Tensor& y) {
  const char* where = "project_to_heads";
  const cpu::Sizes n = check_projection(ctx, where, v, "v", s, "s", w, true, groups, y, "y");
  const auto scope = ctx.profiler().scope(where, v.bytes() + s.bytes() + y.bytes(), 2. * n.T * products_of(w));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::project_to_heads(ctx, v, s, w, normalise, groups, eps, y);
  dispatch_projection(where, v.dtype(), y.dtype(), w.v->products(), [&](auto type, auto out, auto product) {
    using W = typename decltype(type)::type;
    using Y = typename decltype(out)::type;
    using P = typename decltype(product)::type;
    cpu::project_to_heads<W, Y, P>(ctx, n, v.data<W>(), s.data<W>(), w, normalise, eps, y.data<Y>());
  });
}

void project_to_heads_backward(Context& ctx, const Tensor& dy, const Tensor& v, const Tensor& s,
                               const ProjectionWeights& w, bool normalise, const HeadGroups& groups, double eps,
                               const Tensor& add_v, const Tensor& add_s, const ProjectionGradients& g) {
  const char* where = "project_to_heads_backward";
  const cpu::Sizes n = check_projection(ctx, where, v, "v", s, "s", w, true, groups, dy, "dy");
  if (!g.dv || !g.ds) fail(where, "dv or ds is not there");
  check(ctx, where, "dv", *g.dv).like(v);
  check(ctx, where, "ds", *g.ds).like(s);
  if (add_v.defined()) check(ctx, where, "add_v", add_v).like(v);
  if (add_s.defined()) check(ctx, where, "add_s", add_s).like(s);
  if (g.w_v) check(ctx, where, "dw_v", *g.w_v).like(w.v->tensor());
  if (g.w_s) check(ctx, where, "dw_s", *g.w_s).like(w.s->tensor());
  if (g.bias) check(ctx, where, "dbias", *g.bias).shape({n.rows_s()}).dtype(v.dtype());
  const auto scope = ctx.profiler().scope(
      where, 2. * (v.bytes() + s.bytes()) + add_v.bytes() + add_s.bytes() + dy.bytes(), 6. * n.T * products_of(w));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::project_to_heads_backward(ctx, dy, v, s, w, normalise, groups, eps, add_v, add_s, g);
  dispatch_projection(where, v.dtype(), dy.dtype(), w.v->products(), [&](auto type, auto out, auto product) {
    using W = typename decltype(type)::type;
    using Y = typename decltype(out)::type;
    using P = typename decltype(product)::type;
    cpu::project_to_heads_backward<W, Y, P>(ctx, n, dy.data<Y>(), v.data<W>(), s.data<W>(), w, normalise, eps,
                                            data<W>(add_v), data<W>(add_s), g);
  });
}

void project_from_heads(Context& ctx, const Tensor& x, const ProjectionWeights& w, const Tensor& residual_v,
                        const Tensor& residual_s, Tensor& yv, Tensor& ys) {
  const char* where = "project_from_heads";
  const cpu::Sizes n = check_projection(ctx, where, yv, "yv", ys, "ys", w, false, heads_of(ctx, where, x), x, "x");
  if (residual_v.defined() != residual_s.defined()) fail(where, "of the residuals one is there, expected both or none");
  if (residual_v.defined()) {
    check(ctx, where, "residual_v", residual_v).like(yv);
    check(ctx, where, "residual_s", residual_s).like(ys);
  }
  const auto scope = ctx.profiler().scope(
      where, x.bytes() + yv.bytes() + ys.bytes() + residual_v.bytes() + residual_s.bytes(), 2. * n.T * products_of(w));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::project_from_heads(ctx, x, w, residual_v, residual_s, yv, ys);
  dispatch_projection(where, yv.dtype(), x.dtype(), w.v->products(), [&](auto type, auto in, auto product) {
    using W = typename decltype(type)::type;
    using Y = typename decltype(in)::type;
    using P = typename decltype(product)::type;
    cpu::project_from_heads<W, Y, P>(ctx, n, x.data<Y>(), w, data<W>(residual_v), data<W>(residual_s), yv.data<W>(),
                                     ys.data<W>());
  });
}

void project_from_heads_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& x,
                                 const ProjectionWeights& w, const FromHeadsGradients& g) {
  const char* where = "project_from_heads_backward";
  const cpu::Sizes n = check_projection(ctx, where, dyv, "dyv", dys, "dys", w, false, heads_of(ctx, where, x), x, "x");
  if (g.dx) check(ctx, where, "dx", *g.dx).like(x);
  if (g.w_v) check(ctx, where, "dw_v", *g.w_v).like(w.v->tensor());
  if (g.w_s) check(ctx, where, "dw_s", *g.w_s).like(w.s->tensor());
  if (g.bias) check(ctx, where, "dbias", *g.bias).shape({n.S}).dtype(dys.dtype());
  const auto scope = ctx.profiler().scope(where, 2. * x.bytes() + dyv.bytes() + dys.bytes(), 4. * n.T * products_of(w));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::project_from_heads_backward(ctx, dyv, dys, x, w, g);
  dispatch_projection(where, dyv.dtype(), x.dtype(), w.v->products(), [&](auto type, auto in, auto product) {
    using W = typename decltype(type)::type;
    using Y = typename decltype(in)::type;
    using P = typename decltype(product)::type;
    cpu::project_from_heads_backward<W, Y, P>(ctx, n, dyv.data<W>(), dys.data<W>(), x.data<Y>(), w, g);
  });
}

}  // namespace lightcone::kernels
