#include "kernels/gated_mlp.h"

#include <algorithm>
#include <optional>

#include "kernels/gated_mlp_amx.h"
#include "kernels/gated_unit_math.h"
#include "kernels/gated_unit_rows.h"
#include "kernels/linear_parts.h"
#include "kernels/lorentz_norm_rows.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace cpu {
namespace {

// W, P: the types of tensors, and of the factors of products.

// The perceptron of vectors (4 parts) or scalars (1), for up to `block` tokens at once: its hidden values stay in the
// second-level cache.
template <int parts, class W, class P>
class Perceptron {
 public:
  using Sum = sum_type<P>;
  static constexpr int64_t block = gemm::token_block / parts;

  Perceptron(Context& ctx, const GatedWeights& w, Unary f)
      : ctx_(ctx),
        w_(w),
        f_(f),
        K_(w.down->tensor().dim(0)),
        H_(w.down->tensor().dim(1)),
        up_(w.up->of_transpose<P>(ctx)),
        up_bias_(ctx, inputs * H_, data<W>(w.up_bias)),
        down_bias_(ctx, K_, data<W>(w.down_bias)) {}

  // y = x + down(unit(up(normed))) for n tokens of any number.
  void forward(int64_t n, const Sum* normed, const W* x, W* y) {
    const auto& down = w_.down->of_transpose<P>(ctx_);
#if defined(__AMX_BF16__)
    if constexpr (has_tiles)
      if (Tiled::fits(up_, down)) {
        Tiled tiled(ctx_, K_, H_, f_, false);
        auto result = ctx_.scratch<float>(Tiled::most_rows * K_);
        for_blocks(n, Tiled::most_rows / parts, [&](int64_t begin, int64_t count) {
          const int64_t at = begin * parts * K_;
          tiled.forward(count * parts, normed + at, up_, up_bias_.data(), down, down_bias_.data(), result.data());
          map_row(count * parts * K_, y + at, [&](auto part) { return part(x + at) + part(result.data()); });
        });
        return;
      }
#endif
    Hidden hidden(*this);
    auto result = ctx_.scratch<Sum>(block * parts * K_);
    for_blocks(n, block, [&](int64_t begin, int64_t count) {
      const int64_t rows = count * parts, at = begin * parts * K_;
      hidden.compute(*this, count, normed + at, nullptr);
      gated::apply<parts>(count, H_, hidden.pre.data(), hidden.gate.data(), hidden.result.data());
      gemm::multiply(ctx_, rows, hidden.result.data(), down, 0, K_, down_bias_.data(), result.data());
      map_row(rows * K_, y + at, [&](auto part) { return part(x + at) + part(result.data()); });
    });
  }

  // The sums of the gradients of weights; those of one segment are added to as its blocks come.
  struct Sums {
    int64_t K, H;
    W* out;
    bool is_turned;
    Context::Scratch<W> turned;  // [K, inputs * H]
    TokenSum<W> up, up_bias, down, down_bias;
    bool has_up, has_up_bias, has_down, has_down_bias;
    Sums(Context& ctx, const Segments& segments, const Perceptron& p, Tensor* d_up, Tensor* d_up_bias, Tensor* d_down,
         Tensor* d_down_bias)
        : K(p.K_),
          H(p.H_),
          out(data<W>(d_up)),
          is_turned(out && p.turned()),
          turned(ctx, is_turned ? inputs * H * K : 0),
          up(ctx, segments, inputs * H * K, is_turned ? turned.data() : out),
          up_bias(ctx, segments, inputs * H, data<W>(d_up_bias)),
          down(ctx, segments, K * H, data<W>(d_down)),
          down_bias(ctx, segments, K, data<W>(d_down_bias)),
          has_up(d_up),
          has_up_bias(d_up_bias),
          has_down(d_down),
          has_down_bias(d_down_bias) {}
    void finish() {
      for (auto* sum : {&up, &up_bias, &down, &down_bias}) sum->finish();
      if (is_turned)
        for (int64_t i = 0; i < inputs * H; ++i)
          for (int64_t k = 0; k < K; ++k) out[i * K + k] = turned[k * inputs * H + i];
    }
  };

  // d normed = the gradient through everything behind it, for n tokens of segment s.
  void backward(int64_t n, const Sum* normed, const W* dy, Sums& sums, int64_t s, bool first, Sum* dnormed) {
    const auto &to_hidden = w_.down->of_weights<P>(ctx_), &to_x = w_.up->of_weights<P>(ctx_);
#if defined(__AMX_BF16__)
    if constexpr (has_tiles)
      if (turned()) {
        Tiled tiled(ctx_, K_, H_, f_, true);
        for_blocks(n, Tiled::most_rows / parts, [&](int64_t begin, int64_t count) {
          const int64_t rows = count * parts, at = begin * parts * K_;
          const bool fresh = first && begin == 0;
          if (sums.has_down_bias) add_rows(rows, K_, dy + at, fresh, sums.down_bias.of(s));
          auto of = [&](bool wanted, TokenSum<W>& sum) { return wanted ? sum.of(s) : nullptr; };
          tiled.backward(rows, normed + at, dy + at, up_, up_bias_.data(), to_hidden, to_x, fresh,
                         of(sums.has_up, sums.up), of(sums.has_up_bias, sums.up_bias), of(sums.has_down, sums.down),
                         dnormed + at);
        });
        return;
      }
#endif
    Hidden hidden(*this);
    auto slope = ctx_.scratch<Sum>(block * H_), dhidden = ctx_.scratch<Sum>(block * parts * H_);
    for_blocks(n, block, [&](int64_t begin, int64_t count) {
      const int64_t rows = count * parts, at = begin * parts * K_;
      const bool fresh = first && begin == 0;
      const W* g = dy + at;
      hidden.compute(*this, count, normed + at, slope.data());
      if (sums.has_down_bias) add_rows(rows, K_, g, fresh, sums.down_bias.of(s));
      if (sums.has_down) {
        gated::apply<parts>(count, H_, hidden.pre.data(), hidden.gate.data(), hidden.result.data());
        gemm::multiply_tokens<P>(ctx_, rows, K_, H_, g, hidden.result.data(), sums.down.of(s), !fresh);
      }
      gemm::multiply(ctx_, rows, g, to_hidden, 0, H_, nullptr, dhidden.data());
      gated::backward<parts>(count, H_, dhidden.data(), hidden.pre.data(), hidden.gate.data(), slope.data(),
                             hidden.pre.data());
      if (sums.has_up_bias) add_rows(rows, inputs * H_, hidden.pre.data(), fresh, sums.up_bias.of(s));
      if (sums.has_up)
        gemm::multiply_tokens<P>(ctx_, rows, inputs * H_, K_, hidden.pre.data(), normed + at, sums.up.of(s), !fresh);
      gemm::multiply(ctx_, rows, hidden.pre.data(), to_x, 0, K_, nullptr, dnormed + at);
    });
  }

 private:
  static constexpr int64_t inputs = gated::inputs<parts>;

  // Of one block: the unit's input, f(u) and the unit's result.
  struct Hidden {
    Context::Scratch<Sum> pre, gate, result;
    explicit Hidden(const Perceptron& p)
        : pre(p.ctx_, block * parts * inputs * p.H_),
          gate(p.ctx_, block * p.H_),
          result(p.ctx_, block * parts * p.H_) {}
    void compute(Perceptron& p, int64_t count, const Sum* normed, Sum* slope) {
      gemm::multiply(p.ctx_, count * parts, normed, p.up_, 0, p.up_.n(), p.up_bias_.data(), pre.data());
      gated::arguments<parts>(count, p.H_, pre.data(), gate.data());
      gated::activate(p.f_, count * p.H_, gate.data(), gate.data(), slope);
    }
  };

  template <class F>
  static void for_blocks(int64_t n, int64_t size, F&& f) {
    for (int64_t begin = 0; begin < n; begin += size) f(begin, std::min(size, n - begin));
  }

#if defined(__AMX_BF16__)
  static constexpr bool has_tiles = std::is_same_v<W, float>;
  using Tiled = gated::TiledPerceptron<parts, std::conditional_t<has_tiles, P, float>>;
#endif
  /// Whether the gradient of `up` is summed turned, [K, inputs * H].
  bool turned() const {
#if defined(__AMX_BF16__)
    if constexpr (has_tiles) return Tiled::fits(up_, w_.down->template of_transpose<P>(ctx_));
#endif
    return false;
  }

  Context& ctx_;
  const GatedWeights& w_;
  Unary f_;
  int64_t K_, H_;
  const gemm::Panels<P>& up_;
  Bias<W> up_bias_, down_bias_;
};

struct Sizes {
  int64_t T, V, S;
};

// Tokens divided by their norm.
template <class Sum>
struct Normed {
  LorentzNormRows<Sum> rows;
  Context::Scratch<Sum> v, s;
  Normed(Context& ctx, const Sizes& n, int64_t most, double eps)
      : rows(ctx, 1, n.V, n.S, eps), v(ctx, most * 4 * n.V), s(ctx, most * n.S) {}
};

template <class W, class P>
void gated_mlp(Context& ctx, const Sizes& n, const W* v, const W* s, const GatedWeights& vectors,
               const GatedWeights& scalars, double eps, Unary f, W* yv, W* ys) {
  // Weights are put in order before threads share them.
  std::optional<Perceptron<4, W, P>> of_vectors;
  if (yv) of_vectors.emplace(ctx, vectors, f), vectors.down->of_transpose<P>(ctx);
  Perceptron<1, W, P> of_scalars(ctx, scalars, f);
  scalars.down->of_transpose<P>(ctx);
  constexpr int64_t most = gemm::token_block, few = 32;
  const int64_t chunk = n.T > 4 * most ? most : few;
  parallel_chunks(ctx, n.T, chunk, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t count = end - begin, at_v = begin * 4 * n.V, at_s = begin * n.S;
    Normed<sum_type<P>> normed(ctx, n, chunk, eps);
    for (int64_t t = 0; t < count; ++t)
      normed.rows.forward(v + at_v + t * 4 * n.V, s + at_s + t * n.S, normed.v.data() + t * 4 * n.V,
                          normed.s.data() + t * n.S);
    if (yv) of_vectors->forward(count, normed.v.data(), v + at_v, yv + at_v);
    of_scalars.forward(count, normed.s.data(), s + at_s, ys + at_s);
  });
}

template <class W, class P>
void gated_mlp_backward(Context& ctx, const Sizes& n, const W* dyv, const W* dys, const W* v, const W* s,
                        const GatedWeights& vectors, const GatedWeights& scalars, double eps, Unary f,
                        const GatedMlpGradients& g) {
  using Sum = sum_type<P>;
  using Vectors = Perceptron<4, W, P>;
  using Scalars = Perceptron<1, W, P>;
  constexpr int64_t block = gemm::token_block;
  std::optional<Vectors> of_vectors;
  std::optional<typename Vectors::Sums> sums_v;
  const int64_t Hs = scalars.down->tensor().dim(1), Hv = dyv ? vectors.down->tensor().dim(1) : 0;
  const Segments segments(n.T, std::max(2 * Hs * n.S, 3 * Hv * n.V));
  Tensor* none = nullptr;
  if (dyv) {
    of_vectors.emplace(ctx, vectors, f), vectors.down->of_weights<P>(ctx), vectors.up->of_weights<P>(ctx);
    sums_v.emplace(ctx, segments, *of_vectors, g.up_v, none, g.down_v, none);
  }
  Scalars of_scalars(ctx, scalars, f);
  scalars.down->of_weights<P>(ctx), scalars.up->of_weights<P>(ctx);
  typename Scalars::Sums sums_s(ctx, segments, of_scalars, g.up_s, g.up_bias, g.down_s, g.down_bias);
  W *dv = g.dv->template data<W>(), *ds = g.ds->template data<W>();
  parallel_chunks(ctx, n.T, segments.size, [&](int64_t segment, int64_t segment_begin, int64_t segment_end) {
    Normed<Sum> normed(ctx, n, block, eps);
    auto dnv = ctx.scratch<Sum>(block * 4 * n.V), dns = ctx.scratch<Sum>(block * n.S);
    for (int64_t begin = segment_begin; begin < segment_end; begin += block) {
      const int64_t count = std::min(block, segment_end - begin), at_v = begin * 4 * n.V, at_s = begin * n.S;
      const bool first = begin == segment_begin;
      auto rows = [&](auto&& f) {
        for (int64_t t = 0; t < count; ++t) f(t * 4 * n.V, t * n.S);
      };
      rows([&](int64_t i, int64_t j) {
        normed.rows.forward(v + at_v + i, s + at_s + j, normed.v.data() + i, normed.s.data() + j);
      });
      if (dyv) of_vectors->backward(count, normed.v.data(), dyv + at_v, *sums_v, segment, first, dnv.data());
      of_scalars.backward(count, normed.s.data(), dys + at_s, sums_s, segment, first, dns.data());
      rows([&](int64_t i, int64_t j) {
        normed.rows.backward(v + at_v + i, s + at_s + j, dyv ? dnv.data() + i : nullptr, dns.data() + j,
                             dyv ? dyv + at_v + i : nullptr, dys + at_s + j, dv + at_v + i, ds + at_s + j);
      });
    }
  });
  if (sums_v) sums_v->finish();
  sums_s.finish();
}

}  // namespace
}  // namespace cpu

namespace cuda {  // gated_mlp_cuda.cpp
void gated_mlp(Context& ctx, const Tensor& v, const Tensor& s, const GatedWeights& vectors, const GatedWeights& scalars,
               double eps, Unary f, Tensor& yv, Tensor& ys);
void gated_mlp_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                        const GatedWeights& vectors, const GatedWeights& scalars, double eps, Unary f,
                        const GatedMlpGradients& gradients);
}  // namespace cuda

namespace {

void check_weights(const Context& ctx, const char* where, const char* name, const GatedWeights& w, int64_t inputs,
                   int64_t channels, const Weights& like) {
  auto of = [&](const char* part) { return fmt::format("{}_{}", part, name); };
  const DType dtype = like.tensor().dtype();
  check(ctx, where, of("down"), w.down->tensor()).rank(2).dtype(dtype);
  const int64_t H = w.down->tensor().dim(1);
  check(ctx, where, of("down"), w.down->tensor()).shape({channels, H});
  check(ctx, where, of("up"), w.up->tensor()).shape({inputs * H, channels}).dtype(dtype);
  for (const Weights* other : {w.up, w.down})
    if (other->products() != like.products())
      fail(where, "weights multiply in {} and in {}; expected the same", other->products(), like.products());
  if (w.up_bias.defined()) check(ctx, where, "up_bias", w.up_bias).shape({inputs * H}).dtype(dtype);
  if (w.down_bias.defined()) check(ctx, where, "down_bias", w.down_bias).shape({channels}).dtype(dtype);
}

cpu::Sizes check_mlp(const Context& ctx, const char* where, const Tensor& v, const Tensor& s,
                     const GatedWeights& vectors, const GatedWeights& scalars, Unary f, const char* name_v,
                     const Tensor& yv, const char* name_s, const Tensor& ys) {
  check(ctx, where, "v", v).rank(3).compute();
  check(ctx, where, "s", s).rank(2).dtype(v.dtype());
  if (v.dim(1) != 4) fail(where, "v has shape {}, expected 4 components along its second axis", v.shape());
  if (s.dim(0) != v.dim(0)) fail(where, "s has {} tokens, v has {}", s.dim(0), v.dim(0));
  if (v.dim(2) + s.dim(1) == 0) fail(where, "v and s have 0 channels");
  if (!scalars.up || !scalars.down || !vectors.up != !vectors.down)
    fail(where, "weights are missing, expected up and down, or neither for vectors");
  check(ctx, where, "up_s", scalars.up->tensor()).dtype(v.dtype());
  check_weights(ctx, where, "s", scalars, 2, s.dim(1), *scalars.up);
  if (vectors.up) check_weights(ctx, where, "v", vectors, 3, v.dim(2), *scalars.up);
  if (vectors.up_bias.defined() || vectors.down_bias.defined()) fail(where, "vectors have biases, expected none");
  if (!vectors.up && yv.defined()) fail(where, "{} is there, but no weights for vectors", name_v);
  if (vectors.up) check(ctx, where, name_v, yv).like(v);
  check(ctx, where, name_s, ys).like(s);
  if (!gated::with_function(f, [](auto) {})) fail(where, "f is none of gelu, relu, silu, sigmoid and tanh");
  return {v.dim(0), v.dim(2), s.dim(1)};
}

double weights_size(const GatedWeights& w) {
  return w.up ? static_cast<double>(w.up->tensor().numel() + w.down->tensor().numel()) : 0;
}

}  // namespace

void gated_mlp(Context& ctx, const Tensor& v, const Tensor& s, const GatedWeights& vectors, const GatedWeights& scalars,
               double eps, Unary f, Tensor& yv, Tensor& ys) {
  const char* where = "gated_mlp";
  const cpu::Sizes n = check_mlp(ctx, where, v, s, vectors, scalars, f, "yv", yv, "ys", ys);
  const double products = 4 * weights_size(vectors) + weights_size(scalars);
  const auto scope = ctx.profiler().scope(where, v.bytes() + s.bytes() + yv.bytes() + ys.bytes(), 2. * n.T * products);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::gated_mlp(ctx, v, s, vectors, scalars, eps, f, yv, ys);
  dispatch_products(where, v.dtype(), scalars.up->products(), [&](auto type, auto product) {
    using W = typename decltype(type)::type;
    using P = typename decltype(product)::type;
    cpu::gated_mlp<W, P>(ctx, n, v.data<W>(), s.data<W>(), vectors, scalars, eps, f, data<W>(&yv), ys.data<W>());
  });
}

void gated_mlp_backward(Context& ctx, const Tensor& dyv, const Tensor& dys, const Tensor& v, const Tensor& s,
                        const GatedWeights& vectors, const GatedWeights& scalars, double eps, Unary f,
                        const GatedMlpGradients& g) {
  const char* where = "gated_mlp_backward";
  const cpu::Sizes n = check_mlp(ctx, where, v, s, vectors, scalars, f, "dyv", dyv, "dys", dys);
  if (!g.dv || !g.ds) fail(where, "dv or ds is not there");
  check(ctx, where, "dv", *g.dv).like(v);
  check(ctx, where, "ds", *g.ds).like(s);
  auto check_gradient = [&](const char* name, const Tensor* t, const Weights* w) {
    if (t && !w) fail(where, "{} is asked for, but these weights are not there", name);
    if (t) check(ctx, where, name, *t).like(w->tensor());
  };
  check_gradient("dup_v", g.up_v, vectors.up);
  check_gradient("ddown_v", g.down_v, vectors.down);
  check_gradient("dup_s", g.up_s, scalars.up);
  check_gradient("ddown_s", g.down_s, scalars.down);
  if (g.up_bias) check(ctx, where, "dup_bias", *g.up_bias).shape({scalars.up->tensor().dim(0)}).dtype(s.dtype());
  if (g.down_bias) check(ctx, where, "ddown_bias", *g.down_bias).shape({n.S}).dtype(s.dtype());
  // Forward once more without `down`, and two products for each of both.
  const double products = 4 * weights_size(vectors) + weights_size(scalars);
  const auto scope =
      ctx.profiler().scope(where, 2. * v.bytes() + 2. * s.bytes() + dyv.bytes() + dys.bytes(), 5.3 * n.T * products);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::gated_mlp_backward(ctx, dyv, dys, v, s, vectors, scalars, eps, f, g);
  dispatch_products(where, v.dtype(), scalars.up->products(), [&](auto type, auto product) {
    using W = typename decltype(type)::type;
    using P = typename decltype(product)::type;
    cpu::gated_mlp_backward<W, P>(ctx, n, data<W>(dyv), dys.data<W>(), v.data<W>(), s.data<W>(), vectors, scalars, eps,
                                  f, g);
  });
}

}  // namespace lightcone::kernels
