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
        buffer_(ctx, 2 * groups * (vectors + scalars + 1) + 4 * lanes<S>) {
    for (int64_t i = 0; i < lanes<S>; ++i) lane_numbers_[i] = static_cast<S>(i);
  }

  /// Of all groups of one token: vectors v [4, V], scalars s [N].
  template <class X, class Y>
  void forward(const X* v, const X* s, Y* yv, Y* ys) {
    const int64_t V = groups_ * vectors_, N = groups_ * scalars_;
    S *r = inverse_norms(v, s), *rv = row(0), *rs = row(1);
    spread(r, rv, rs);
    for (int p = 0; p < 4; ++p) map_row(V, yv + p * V, [&](auto at) { return at(v + p * V) * at(rv); });
    map_row(N, ys, [&](auto at) { return at(s) * at(rs); });
  }

  /// dyv may be null, for zeros; add_v and add_s are other gradients of v and s, or null.
  template <class X, class G, class A, class D>
  void backward(const X* v, const X* s, const G* dyv, const G* dys, const A* add_v, const A* add_s, D* dv, D* ds) {
    const int64_t V = groups_ * vectors_, N = groups_ * scalars_;
    S *r = inverse_norms(v, s), *m = r + groups_;
    S *rv = row(0), *rs = row(1), *mv = row(2), *ms = row(3);
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
  /// The sum of a group's entries in a row of vector channels and one of scalar channels. Heads are narrow: one
  /// register then holds a group's, and what it reads beyond is dropped.
  S sum(const S* of_v, const S* of_s, int64_t g) const {
    of_v += g * vectors_, of_s += g * scalars_;
    if (narrow()) {
      const Vector<S> v = load(of_v), s = load(of_s), zero = {};
      return sum_of_lanes<S>((lane_numbers_ < S(vectors_) ? v : zero) + (lane_numbers_ < S(scalars_) ? s : zero));
    }
    return sum_row<S>(vectors_, [&](auto at) { return at(of_v); }) +
           sum_row<S>(scalars_, [&](auto at) { return at(of_s); });
  }
  /// A number of each group for each of its channels.
  void spread(const S* x, S* to_v, S* to_s) const {
    auto one = [this](const S* x, int64_t channels, S* to) {
      for (int64_t g = 0; g < groups_; ++g, to += channels) {
        if (channels <= lanes<S>)
          store(splat(x[g]), to);  // what lies beyond is the next group's, whose turn comes
        else
          std::fill_n(to, channels, x[g]);
      }
    };
    one(x, vectors_, to_v);
    one(x, scalars_, to_s);
  }
  template <class X>
  S* inverse_norms(const X* v, const X* s) {
    S *of_v = row(0), *of_s = row(1), *r = row(4);
    map_row(groups_ * vectors_, of_v, [&](auto at) {
      const auto square = square_of(at, v);
      return square < 0 ? -square : square;
    });
    map_row(groups_ * scalars_, of_s, [&](auto at) { return at(s) * at(s); });
    for (int64_t g = 0; g < groups_; ++g) r[g] = sum(of_v, of_s, g);
    const S channels = vectors_ + scalars_;
    for (int64_t g = 0; g < groups_; ++g) r[g] = 1 / std::sqrt(r[g] / channels + eps_);
    return r;
  }
  bool narrow() const { return vectors_ <= lanes<S> && scalars_ <= lanes<S>; }
  /// Rows of all channels (0 and 2: of vectors, 1 and 3: of scalars) and of groups (4, twice as long), with a register
  /// of space behind each.
  S* row(int i) {
    const int64_t V = groups_ * vectors_ + lanes<S>, N = groups_ * scalars_ + lanes<S>;
    return buffer_.data() + (i + 1) / 2 * V + i / 2 * N;
  }

  int64_t groups_, vectors_, scalars_;  // channels of a group
  S eps_;
  Vector<S> lane_numbers_;
  Context::Scratch<S> buffer_;
};

}  // namespace lightcone::kernels
