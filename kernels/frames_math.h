#pragma once
#include <array>
#include <cstdint>

#include "kernels/frames_form.h"
#include "kernels/vector.h"

// One token's frame on its features, on the CPU: for frames.cpp and attention.
namespace lightcone::kernels::frames_math {

template <class S>
struct FourOf {
  typedef S type __attribute__((vector_size(4 * sizeof(S)), may_alias, aligned(alignof(S))));
};
/// The components of a four-vector, at any alignment.
template <class S>
using Four = typename FourOf<S>::type;
template <class S>
Four<S>& four(S* x) {
  return *reinterpret_cast<Four<S>*>(x);
}
template <class S>
const Four<S>& four(const S* x) {
  return *reinterpret_cast<const Four<S>*>(x);
}

/// M by columns.
template <class S>
struct Matrix {
  Four<S> column[4];
  S parity = 1;  ///< the sign of det M
  Matrix(const S* frame, Form f, bool with_parity) {
    if (f.transposed)
      for (int i = 0; i < 4; ++i) column[i] = four(frame + 4 * i);
    else
      for (int i = 0; i < 4; ++i) column[i] = Four<S>{frame[i], frame[4 + i], frame[8 + i], frame[12 + i]};
    const Four<S> g = {1, -1, -1, -1};
    for (int i = 0; i < 4; ++i) {
      if (f.left) column[i] *= g;
      if (f.right) column[i] *= g[i];
    }
    if (with_parity) parity = (determinant(frame) < 0) != f.lowered ? S(-1) : S(1);
  }
  Four<S> operator()(Four<S> x) const {
    return column[0] * x[0] + column[1] * x[1] + column[2] * x[2] + column[3] * x[3];
  }
  /// All features of one copy of the representation, in place.
  void apply(const TensorReps& reps, S* x) const {
    for (const auto& term : reps.terms()) {
      const int64_t n = term.dim();
      // The index that varies fastest last: the others are `stride` apart.
      for (int64_t axis = 0, stride = n / term.multiplicity / 4; axis < term.order; ++axis, stride /= 4)
        for (int64_t i = 0; i < n; i += 4 * stride)
          for (int64_t j = 0; j < stride; ++j) {
            S* y = x + i + j;
            const Four<S> moved = (*this)(Four<S>{y[0], y[stride], y[2 * stride], y[3 * stride]});
            for (int mu = 0; mu < 4; ++mu) y[mu * stride] = moved[mu];
          }
      if (term.odd)
        for (int64_t i = 0; i < n; ++i) x[i] *= parity;
      x += n;
    }
  }
};

/// sum += dx x^T over all indices of all tensors of one copy of the representation; sum by rows.
template <class S>
void add_outer(const TensorReps& reps, const S* x, const S* dx, Four<S> (&sum)[4]) {
  for (const auto& term : reps.terms()) {
    const int64_t n = term.dim();
    for (int64_t axis = 0, stride = n / term.multiplicity / 4; axis < term.order; ++axis, stride /= 4)
      for (int64_t i = 0; i < n; i += 4 * stride)
        for (int64_t j = i; j < i + stride; ++j) {
          const Four<S> v = {x[j], x[j + stride], x[j + 2 * stride], x[j + 3 * stride]};
          for (int mu = 0; mu < 4; ++mu) sum[mu] += dx[j + mu * stride] * v;
        }
    x += n;
    dx += n;
  }
}

/// add_outer() for many copies side by side in such a representation: registers of four-vectors.
template <class S>
class OuterProducts {
 public:
  /// `mask`: 1 where a component of a vector stands, 0 at scalars, for all copies.
  template <class E>
  void add(int64_t n, const E* x, const E* dx, const S* mask) {
    int64_t i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) add(load(x + i), load(dx + i) * load(mask + i));
    if (i == n) return;
    S rest[2][lanes<S>] = {};
    convert(n - i, x + i, rest[0]);
    convert(n - i, dx + i, rest[1]);
    for (int64_t j = i; j < n; ++j) rest[1][j - i] *= mask[j];
    add(load(rest[0]), load(rest[1]));
  }
  Four<S> row(int mu) const {
    Four<S> total = {};
    for (int64_t l = 0; l < lanes<S>; l += 4) total += four(reinterpret_cast<const S*>(&sum_[mu]) + l);
    return total;
  }

 private:
  void add(Vector<S> x, Vector<S> dx) {
    [&]<int... mu>(std::integer_sequence<int, mu...>) {
      ((sum_[mu] += shuffle<S, [](int64_t l) { return l / 4 * 4 + mu; }>(dx, dx) * x), ...);
    }
    (std::make_integer_sequence<int, 4>());
  }
  Vector<S> sum_[4] = {};
};

/// The same for rows of panels, [blocks][rows][B] (attention_plan.h), one token a row. Representations of scalars and
/// vectors that start at multiples of four stay in registers; all others go through a copy of the row.
template <class S, int B>
class PanelTransform {
 public:
  PanelTransform(const TensorReps& reps, const S* frames, FrameMap map, bool backward)
      : reps_(reps), frames_(frames), form_(form(map, backward)), whole_(in_fours(reps) || reps.invariant()) {
    for (const auto& term : reps.terms()) {
      odd_ |= term.odd;
      size_ += term.dim();
      if (term.order == 0) vectors_from_ += term.dim();
    }
  }
  /// Rows of tokens t … t + n - 1.
  void operator()(int64_t t, int64_t n, int64_t rows, S* panel) const {
    if (whole_ && vectors_from_ == size_) return;
    if (!whole_) return through_copy(t, n, rows, panel);
    if constexpr (B % lanes<S> == 0 && lanes<S> % 4 == 0)
      in_registers(t, n, rows, panel);
    else
      by_vectors(t, n, rows, panel);
  }

 private:
  /// The columns of M side by side, as often as a register holds them.
  static void columns(const S* frame, Form f, Vector<S> (&column)[4]) {
    if constexpr (lanes<S> == 16) {
      const Vector<S> all = load(frame);
      [&]<int... nu>(std::integer_sequence<int, nu...>) {
        ((column[nu] = f.transposed ? shuffle<S, [](int64_t i) { return 4 * nu + i % 4; }>(all, all)
                                    : shuffle<S, [](int64_t i) { return 4 * (i % 4) + nu; }>(all, all)),
         ...);
      }
      (std::make_integer_sequence<int, 4>());
      Vector<S> g;
      for (int64_t l = 0; l < lanes<S>; ++l) g[l] = l % 4 ? S(-1) : S(1);
      if (f.left)
        for (Vector<S>& c : column) c *= g;
      if (f.right)
        for (int nu = 1; nu < 4; ++nu) column[nu] = -column[nu];
    } else {
      const Matrix<S> m(frame, f, false);
      for (int nu = 0; nu < 4; ++nu)
        for (int64_t l = 0; l < lanes<S>; l += 4) four(reinterpret_cast<S*>(&column[nu]) + l) = m.column[nu];
    }
  }
  void in_registers(int64_t t, int64_t n, int64_t rows, S* panel) const {
    constexpr int64_t W = lanes<S>;
    Vector<S> place;
    for (int64_t l = 0; l < W; ++l) place[l] = S(l);
    for (int64_t i = 0; i < n; ++i) {
      Vector<S> column[4];
      columns(frames_ + (t + i) * 16, form_, column);
      for (int64_t f = vectors_from_ / W * W; f < size_; f += W) {
        Vector<S>& x = *vectors(panel + (f / B * rows + i) * B + f % B);
        Vector<S> y = {};
        [&]<int... nu>(std::integer_sequence<int, nu...>) {
          ((y += column[nu] * shuffle<S, [](int64_t l) { return l / 4 * 4 + nu; }>(x, x)), ...);
        }
        (std::make_integer_sequence<int, 4>());
        x = place < S(vectors_from_ - f) ? x : y;
      }
    }
  }
  void by_vectors(int64_t t, int64_t n, int64_t rows, S* panel) const {
    for (int64_t i = 0; i < n; ++i) {
      const Matrix<S> m(frames_ + (t + i) * 16, form_, false);
      for (int64_t f = vectors_from_; f < size_; f += 4) {
        Four<S>& x = four(panel + (f / B * rows + i) * B + f % B);
        x = m(x);
      }
    }
  }
  void through_copy(int64_t t, int64_t n, int64_t rows, S* panel) const {
    std::array<S, 1024> copy;
    const int64_t size = reps_.dim();
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t f = 0; f < size; ++f) copy[f] = panel[(f / B * rows + i) * B + f % B];
      Matrix<S>(frames_ + (t + i) * 16, form_, odd_).apply(reps_, copy.data());
      for (int64_t f = 0; f < size; ++f) panel[(f / B * rows + i) * B + f % B] = copy[f];
    }
  }
  const TensorReps& reps_;
  const S* frames_;
  Form form_;
  bool odd_ = false, whole_;
  int64_t vectors_from_ = 0, size_ = 0;
};

}  // namespace lightcone::kernels::frames_math
