#pragma once
#include "kernels/lorentz_norm_rows.h"

namespace lightcone::kernels {

/// The heads of heads_projection.h, S the type of sums: between rows of vectors [4, G Cv] and scalars [G Cs] of a token
/// and its features, 4 Cv + Cs of each group, `stride` from group to group. Not for two threads at once.
template <class S>
class HeadRows {
 public:
  HeadRows(Context& ctx, int64_t groups, int64_t vectors, int64_t scalars, int64_t stride, double eps = 0,
           int64_t lowered_begin = 0, int64_t lowered_end = 0)
      : groups_(groups),
        vectors_(vectors),
        scalars_(scalars),
        stride_(stride),
        begin_(lowered_begin),
        end_(lowered_end),
        eps_(static_cast<S>(eps)),
        norm_(ctx, groups, vectors, scalars, eps) {
    for (int64_t i = 0; i < lanes<S>; ++i) {
      lower_[i] = S(i < 4 ? 1 : -1);
      first_[i] = S(i < 4 ? 1 : 0);
    }
  }

  template <class Y>
  void join(const S* v, const S* s, Y* y) const {
    for_groups(y, [&](int64_t g, Y* to) {
      if (narrow()) {
        store(load_vectors(v, g), to);
        store_some<S>(load_some<S>(s + g * scalars_, scalars_), to + 16, scalars_);
        return;
      }
      for (int p = 0; p < 4; ++p)
        for (int64_t c = 0; c < vectors_; ++c) *to++ = static_cast<Y>(v[(p * groups_ + g) * vectors_ + c]);
      for (int64_t c = 0; c < scalars_; ++c) *to++ = static_cast<Y>(s[g * scalars_ + c]);
    });
  }

  template <class Y>
  void separate(const Y* y, S* v, S* s) const {
    for_groups(y, [&](int64_t g, const Y* from) {
      if (narrow()) {
        store_vectors(load(from), v, g);
        store_some<S>(load_some<S>(from + 16, scalars_), s + g * scalars_, scalars_);
        return;
      }
      for (int p = 0; p < 4; ++p)
        for (int64_t c = 0; c < vectors_; ++c) v[(p * groups_ + g) * vectors_ + c] = static_cast<S>(*from++);
      for (int64_t c = 0; c < scalars_; ++c) s[g * scalars_ + c] = static_cast<S>(*from++);
    });
  }

  /// join() of each group's lorentz_norm, which may be left in v and s.
  template <class Y>
  void join_normed(S* v, S* s, Y* y) {
    if (!narrow()) {
      norm_.forward(v, s, v, s);
      for (int64_t g = begin_; g < end_; ++g) lower(v, g);
      return join(v, s, y);
    }
    for_groups(y, [&](int64_t g, Y* to) {
      const Group x = load_group(v, s, g);
      const S r = inverse_norm(x);
      store(x.v * (lowered(g) ? r * lower_ : splat(r)), to);
      store_some<S>(x.s * r, to + 16, scalars_);
    });
  }

  /// Gradients of v and s.
  template <class Y>
  void separate_normed_backward(const Y* dy, const S* v, const S* s, S* dv, S* ds) {
    if (!narrow()) {
      const S* none = nullptr;
      separate(dy, dv, ds);
      for (int64_t g = begin_; g < end_; ++g) lower(dv, g);
      return norm_.backward(v, s, dv, ds, none, none, dv, ds);
    }
    for_groups(dy, [&](int64_t g, const Y* from) {
      const Group x = load_group(v, s, g);
      const Vector<S> in = load(from), d = lowered(g) ? in * lower_ : in, d_s = load_some<S>(from + 16, scalars_);
      const S r = inverse_norm(x), m = sum_of_lanes<S>(x.v * d + x.s * d_s) / S(4 + scalars_) * (r * r * r);
      const Vector<S> zero = {}, one = splat(S(1)), sign = x.square > 0 ? one : x.square < 0 ? -one : zero;
      store_vectors(r * d - m * (sign * lower_) * x.v, dv, g);
      store_some<S>(r * d_s - m * x.s, ds + g * scalars_, scalars_);
    });
  }

 private:
  // Of one group, in registers: 4 components of 4 vectors, their squares (the same four times), scalars.
  struct Group {
    Vector<S> v, square, s;
  };

  bool narrow() const { return std::is_same_v<S, float> && lanes<S> == 16 && vectors_ == 4 && scalars_ <= 16; }
  bool lowered(int64_t g) const { return g >= begin_ && g < end_; }
  void lower(S* v, int64_t g) const {
    for (int p = 1; p < 4; ++p)
      for (int64_t c = 0; c < vectors_; ++c) v[(p * groups_ + g) * vectors_ + c] *= -1;
  }
  template <class Y, class F>
  void for_groups(Y* y, F&& f) const {
    for (int64_t g = 0; g < groups_; ++g, y += stride_) f(g, y);
  }

  typedef S Four __attribute__((vector_size(4 * sizeof(S)), aligned(alignof(S)), may_alias));
  // One component of all four channels after the other, by shuffles: what is put together in memory waits there.
  Vector<S> load_vectors(const S* v, int64_t g) const {
    auto four = [&](int p) { return *reinterpret_cast<const Four*>(v + (p * groups_ + g) * 4); };
    if constexpr (lanes<S> == 16) {
      const auto lower = __builtin_shufflevector(four(0), four(1), 0, 1, 2, 3, 4, 5, 6, 7),
                 upper = __builtin_shufflevector(four(2), four(3), 0, 1, 2, 3, 4, 5, 6, 7);
      return __builtin_shufflevector(lower, upper, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    } else {
      return Vector<S>{};
    }
  }
  void store_vectors(Vector<S> x, S* v, int64_t g) const {
    auto four = [&](int p) { return reinterpret_cast<Four*>(v + (p * groups_ + g) * 4); };
    if constexpr (lanes<S> == 16) {
      *four(0) = __builtin_shufflevector(x, x, 0, 1, 2, 3);
      *four(1) = __builtin_shufflevector(x, x, 4, 5, 6, 7);
      *four(2) = __builtin_shufflevector(x, x, 8, 9, 10, 11);
      *four(3) = __builtin_shufflevector(x, x, 12, 13, 14, 15);
    }
  }
  Group load_group(const S* v, const S* s, int64_t g) const {
    Group x{load_vectors(v, g), {}, load_some<S>(s + g * scalars_, scalars_)};
    constexpr auto by_four = [](int64_t i) { return (i ^ 4) % lanes<S>; };
    constexpr auto by_eight = [](int64_t i) { return (i ^ 8) % lanes<S>; };
    x.square = x.v * x.v * lower_;
    x.square += shuffle<S, by_four>(x.square, x.square);
    x.square += shuffle<S, by_eight>(x.square, x.square);
    return x;
  }
  S inverse_norm(const Group& x) const {
    const Vector<S> size = x.square < 0 ? -x.square : x.square;
    return 1 / std::sqrt(sum_of_lanes<S>(first_ * size + x.s * x.s) / S(4 + scalars_) + eps_);
  }

  int64_t groups_, vectors_, scalars_, stride_, begin_, end_;
  S eps_;
  Vector<S> lower_, first_;  // the metric, and ones for the first four lanes
  LorentzNormRows<S> norm_;
};

}  // namespace lightcone::kernels
