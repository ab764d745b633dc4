#pragma once
#include <cmath>

#include "engine/context.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

/// The formulas of lorentz_norm.h for one token after the other, S the type of sums. Not for two threads at once.
template <class S>
class LorentzNormRows {
 public:
  LorentzNormRows(Context& ctx, int64_t groups, int64_t vectors, int64_t scalars, double eps)
      : groups_(groups),
        vectors_(vectors),
        scalars_(scalars),
        eps_(static_cast<S>(eps)),
        buffer_(ctx, 2 * groups * (vectors + scalars) + 2 * groups) {}

  /// Of all groups of one token: vectors v [4, V], scalars s [N].
  template <class X, class Y>
  void forward(const X* v, const X* s, Y* yv, Y* ys) {
    const int64_t V = groups_ * vectors_, N = groups_ * scalars_;
    S *r = inverse_norms(v, s), *rv = buffer_.data(), *rs = rv + V;
    spread(r, rv, rs);
    for (int p = 0; p < 4; ++p) map_row(V, yv + p * V, [&](auto at) { return at(v + p * V) * at(rv); });
    map_row(N, ys, [&](auto at) { return at(s) * at(rs); });
  }

  /// dyv may be null, for zeros; add_v and add_s are other gradients of v and s, or null.
  template <class X, class G, class A, class D>
  void backward(const X* v, const X* s, const G* dyv, const G* dys, const A* add_v, const A* add_s, D* dv, D* ds) {
    const int64_t V = groups_ * vectors_, N = groups_ * scalars_;
    S *r = inverse_norms(v, s), *m = r + groups_;
    S *rv = buffer_.data(), *rs = rv + V, *mv = rs + N, *ms = mv + V;
    if (dyv)
      map_row(V, mv, [&](auto at) {
        return at(dyv) * at(v) + at(dyv + V) * at(v + V) + at(dyv + 2 * V) * at(v + 2 * V) +
               at(dyv + 3 * V) * at(v + 3 * V);
      });
    else
      std::fill_n(mv, V, S(0));
    map_row(N, ms, [&](auto at) { return at(dys) * at(s); });
    for (int64_t g = 0; g < groups_; ++g) m[g] = sum(mv, ms, g) / (vectors_ + scalars_) * (r[g] * r[g] * r[g]);
    spread(r, rv, rs);
    spread(m, mv, ms);
    map_row(V, mv, [&](auto at) {
      const auto square = square_of(at, v), zero = square - square;
      return square > 0 ? at(mv) : square < 0 ? -at(mv) : zero;
    });
    for (int p = 0; p < 4; ++p) {
      const S sign = p == 0 ? S(-1) : S(1);
      const X* in = v + p * V;
      D* out = dv + p * V;
      auto own = [&](auto at) { return sign * (at(mv) * at(in)); };
      if (dyv && add_v)
        map_row(V, out, [&](auto at) { return at(add_v + p * V) + (at(rv) * at(dyv + p * V) + own(at)); });
      else if (dyv)
        map_row(V, out, [&](auto at) { return at(rv) * at(dyv + p * V) + own(at); });
      else if (add_v)
        map_row(V, out, [&](auto at) { return at(add_v + p * V) + own(at); });
      else
        map_row(V, out, own);
    }
    auto own = [&](auto at) { return at(rs) * at(dys) - at(ms) * at(s); };
    if (add_s)
      map_row(N, ds, [&](auto at) { return at(add_s) + own(at); });
    else
      map_row(N, ds, own);
  }

 private:
  template <class At, class X>
  auto square_of(At at, const X* v) const {
    const int64_t V = groups_ * vectors_;
    const auto E = at(v), x = at(v + V), y = at(v + 2 * V), z = at(v + 3 * V);
    return E * E - x * x - y * y - z * z;
  }
  /// The sum of a group's entries in a row of vector channels and one of scalar channels.
  S sum(const S* of_v, const S* of_s, int64_t g) const {
    return sum_row<S>(vectors_, [&](auto at) { return at(of_v + g * vectors_); }) +
           sum_row<S>(scalars_, [&](auto at) { return at(of_s + g * scalars_); });
  }
  /// A number of each group for each of its channels.
  void spread(const S* x, S* to_v, S* to_s) const {
    for (int64_t g = 0; g < groups_; ++g) {
      std::fill_n(to_v + g * vectors_, vectors_, x[g]);
      std::fill_n(to_s + g * scalars_, scalars_, x[g]);
    }
  }
  template <class X>
  S* inverse_norms(const X* v, const X* s) {
    const int64_t V = groups_ * vectors_, N = groups_ * scalars_;
    S *of_v = buffer_.data(), *of_s = of_v + V, *r = of_s + 2 * N + V;
    map_row(V, of_v, [&](auto at) {
      const auto square = square_of(at, v);
      return square < 0 ? -square : square;
    });
    map_row(N, of_s, [&](auto at) { return at(s) * at(s); });
    for (int64_t g = 0; g < groups_; ++g) r[g] = 1 / std::sqrt(sum(of_v, of_s, g) / (vectors_ + scalars_) + eps_);
    return r;
  }

  int64_t groups_, vectors_, scalars_;  // channels of a group
  S eps_;
  Context::Scratch<S> buffer_;
};

}  // namespace lightcone::kernels
