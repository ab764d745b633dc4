#pragma once
#include "kernels/elementwise.h"
#include "kernels/vector.h"

/// The steps of gated_unit.h for n tokens, S the type of sums. `parts` is 4 for vectors, 1 for scalars.
namespace lightcone::kernels::gated {

/// Columns of the unit's input for each of its output.
template <int parts>
inline constexpr int64_t inputs = parts == 4 ? 3 : 2;

/// y = f(u), and slope = f'(u) unless null; y may be u.
template <class S>
void activate(Unary f, int64_t n, const S* u, S* y, S* slope);

/// u [n, C]
template <int parts, class X, class S>
void arguments(int64_t n, int64_t C, const X* x, S* u) {
  const int64_t row = inputs<parts> * C;
  for (int64_t t = 0; t < n; ++t, x += parts * row, u += C) {
    const X *a = x + C, *b = x + 2 * C;
    if constexpr (parts == 4)
      map_row(C, u, [&](auto at) {
        return at(a) * at(b) - at(a + row) * at(b + row) - at(a + 2 * row) * at(b + 2 * row) -
               at(a + 3 * row) * at(b + 3 * row);
      });
    else
      map_row(C, u, [&](auto at) { return at(a); });
  }
}

/// y = x f, with f(u) in `gate` [n, C].
template <int parts, class X, class S, class Y>
void apply(int64_t n, int64_t C, const X* x, const S* gate, Y* y) {
  for (int64_t t = 0; t < n; ++t, gate += C)
    for (int p = 0; p < parts; ++p, x += inputs<parts> * C, y += C)
      map_row(C, y, [&](auto at) { return at(x) * at(gate); });
}

/// Gradients, given f(u) and f'(u); dx may be x.
template <int parts, class X, class S, class G, class D>
void backward(int64_t n, int64_t C, const G* dy, const X* x, const S* gate, S* slope, D* dx) {
  const int64_t row = inputs<parts> * C;
  for (int64_t t = 0; t < n; ++t, gate += C, slope += C) {
    if constexpr (parts == 4) {
      map_row(C, slope, [&](auto at) {
        return at(slope) * (at(dy) * at(x) + at(dy + C) * at(x + row) + at(dy + 2 * C) * at(x + 2 * row) +
                            at(dy + 3 * C) * at(x + 3 * row));
      });
      for (int p = 0; p < 4; ++p, x += row, dx += row, dy += C) {
        const S sign = p == 0 ? 1 : -1;
        map_row(C, dx, [&](auto at) { return at(dy) * at(gate); });
        // One register of both at a time: dx may be x.
        const X* in = x;
        D* out = dx;
        auto swapped = [&](auto at, auto put) {
          const auto a = at(in + C), b = at(in + 2 * C), d = sign * at(slope);
          put(d * b, out + C);
          put(d * a, out + 2 * C);
        };
        int64_t i = 0;
        for (; i + lanes<S> <= C; i += lanes<S>)
          swapped(WholeRegister<S>{i}, [i](Vector<S> value, D* to) { store(value, to + i); });
        for (; i < C; ++i) swapped(SingleElement<S>{i}, [i](S value, D* to) { to[i] = static_cast<D>(value); });
      }
    } else {
      map_row(C, slope, [&](auto at) { return at(slope) * at(dy) * at(x); });
      map_row(C, dx, [&](auto at) { return at(dy) * at(gate); });
      map_row(C, dx + C, [&](auto at) { return at(slope); });
      x += row, dx += row, dy += C;
    }
  }
}

}  // namespace lightcone::kernels::gated
