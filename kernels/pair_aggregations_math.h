#pragma once
#include "kernels/pair_aggregations.h"

// The coefficients of pair_aggregations.h, on either device.
namespace lightcone::kernels::aggregation {

/// One coefficient, and the factors of its map and its column, which are not in it.
template <class T>
struct Coefficient {
  const T *direct, *c00, *c01, *c10, *c11, *multipliers, *scale;
  int64_t in, out, M;
  LIGHTCONE_HOST_DEVICE T operator()(int64_t c, int64_t o, int64_t m) const {
    if (direct) return direct[(c * out + o) * M + m];
    return c00[c * M + m] * c10[c * out + o] + c01[o * M + m] * c11[c * out + o];
  }
  LIGHTCONE_HOST_DEVICE T by_map(int64_t m) const { return multipliers ? multipliers[m] : T(1); }
  LIGHTCONE_HOST_DEVICE T by_channel(int64_t column) const { return scale ? scale[column % in] : T(1); }
};

}  // namespace lightcone::kernels::aggregation
