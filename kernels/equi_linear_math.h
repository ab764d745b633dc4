#pragma once
#include "kernels/equi_linear.h"

/// Where the parameters of equi_linear.h stand in the matrices: on either device.
namespace lightcone::kernels::equi {

enum Matrix { scalar_matrix, bias_row, vector_matrix, bivector_matrix };

/// The tensors of a map, as they follow each other in EquiLinearWeights.
enum Part { weight, bias, s2mvs, s2mvs_bias, mvs2s, mvs2s_bias, s2s, parts };

/// One map among those side by side.
struct Map {
  int64_t C, S, N, So;     ///< channels and scalars, in and out
  int64_t basis;           ///< 5 or 10
  int64_t first, first_s;  ///< channels of the maps before it, and the row of its first scalar
  int64_t in_group, out_group, negated;
  int64_t heads;  ///< 0 without factors of heads

  LIGHTCONE_HOST_DEVICE int64_t mix() const { return basis == 10 ? 2 : 1; }
};

/// Addresses of a map's tensors, null for those that are not there.
template <class W>
struct Parameters {
  W* of[parts];
};
template <class W>
Parameters<W> parameters(const EquiLinearWeights& w) {
  Parameters<W> out = {};
  int part = 0;
  for (Tensor t : {w.weight, w.bias, w.s2mvs, w.s2mvs_bias, w.mvs2s, w.mvs2s_bias, w.s2s})
    out.of[part++] = t.defined() ? t.data<std::remove_const_t<W>>() : nullptr;
  return out;
}

template <class W>
struct Matrices {
  W *scalars, *bias, *vectors, *bivectors;
  LIGHTCONE_HOST_DEVICE W* of(Matrix m) const {
    return m == scalar_matrix ? scalars : m == bias_row ? bias : m == vector_matrix ? vectors : bivectors;
  }
};

/// A parameter tensor as three axes.
struct Extents {
  int64_t rows, inner, depth;
  int64_t heads_run;  ///< so many neighbouring elements belong to one head, then as many to the next one; 0: to none
  LIGHTCONE_HOST_DEVICE int64_t count() const { return rows * inner * depth; }
};
LIGHTCONE_HOST_DEVICE inline Extents extents(const Map& m, Part part) {
  auto run = [&](int64_t inputs) { return m.heads ? inputs / m.heads : 0; };
  switch (part) {
    case weight:
      return {m.N, m.C, m.basis, run(m.C * m.basis)};
    case s2mvs:
      return {m.N, m.mix(), m.S, run(m.S)};
    case mvs2s:
      return {m.So, m.C, m.mix(), run(m.C * m.mix())};
    case s2s:
      return {m.So, m.S, 1, run(m.S)};
    case bias:
      return {m.N, 1, 1, 0};
    case s2mvs_bias:
      return {m.N, m.mix(), 1, 0};
    default:
      return {m.So, 1, 1, 0};
  }
}

/// The head of an element, or -1.
LIGHTCONE_HOST_DEVICE inline int64_t head_of(const Map& m, const Extents& n, int64_t element) {
  return n.heads_run ? element / n.heads_run % m.heads : -1;
}

/// The column of half 0 or 1 of a channel among groups of channels. 32 bits, since divisions of 64 are slow everywhere.
LIGHTCONE_HOST_DEVICE inline int64_t column(int64_t channel, int64_t half, int64_t group) {
  const int64_t before = static_cast<uint32_t>(channel) / static_cast<uint32_t>(group);
  return channel + (before + half) * group;
}

/// f(matrix, place in it, sign) for each entry that the element (row r, inner i, depth d) of a tensor makes: two for
/// bivectors, else one.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <class F>
LIGHTCONE_HOST_DEVICE void for_entries(const Map& m, Part part, int64_t r, int64_t i, int64_t d, F&& f) {
  auto out = [&](int64_t half) { return column(m.first + r, half, m.out_group); };
  auto sign_of_half = [&](int64_t half) { return half && m.first + r < m.negated ? -1 : 1; };
  auto in = [&](int64_t half) { return column(i, half, m.in_group); };
  const int64_t columns = 2 * m.C, all_columns = columns + m.S;
  switch (part) {
    case weight: {
      const int64_t grade = d % 5;
      const Matrix matrix = grade == 2 ? bivector_matrix : grade % 2 ? vector_matrix : scalar_matrix;
      auto entry = [&](int64_t to, int64_t from) {
        f(matrix, out(to) * (matrix == scalar_matrix ? all_columns : columns) + in(from),
          to < from ? -1 : sign_of_half(to));
      };
      if (d < 5)
        entry(d > 2, d > 2);
      else
        entry(d < 8, d >= 8);
      if (d == 2) entry(1, 1);
      if (d == 7) entry(0, 1);
      return;
    }
    case bias:
      return f(bias_row, out(0), 1);
    case s2mvs:
      return f(scalar_matrix, out(i) * all_columns + columns + d, sign_of_half(i));
    case s2mvs_bias:
      return f(bias_row, out(i), sign_of_half(i));
    case mvs2s:
      return f(scalar_matrix, (m.first_s + r) * all_columns + in(d), 1);
    case mvs2s_bias:
      return f(bias_row, m.first_s + r, 1);
    default:
      return f(scalar_matrix, (m.first_s + r) * all_columns + columns + i, 1);
  }
}

/// Writes what a parameter makes in the matrices.
template <class W, class Sum>
LIGHTCONE_HOST_DEVICE void spread(const Map& m, Part part, int64_t r, int64_t i, int64_t d, Sum value,
                                  const Matrices<W>& to) {
  for_entries(m, part, r, i, d,
              [&](Matrix matrix, int64_t place, int sign) { to.of(matrix)[place] = W(sign * value); });
}
/// The gradient of a parameter from that of the matrices, without the factor of its head.
template <class Sum, class W>
LIGHTCONE_HOST_DEVICE Sum gathered(const Map& m, Part part, int64_t r, int64_t i, int64_t d,
                                   const Matrices<const W>& from) {
  Sum sum = 0;
  for_entries(m, part, r, i, d,
              [&](Matrix matrix, int64_t place, int sign) { sum += sign * Sum(from.of(matrix)[place]); });
  return sum;
}

}  // namespace lightcone::kernels::equi
