#pragma once
#include "gpusim/machine/instructions/float_bits.h"

namespace gpusim {

/// min and max on floats (halves are compared as floats): of one NaN and a number the number, unless .NaN; -0 < +0.
template <bool maximum, bool nan, bool xorsign>
struct MinMax {
  template <class T>
  T operator()(T a, T b) const {
    const T sign = from_bits<T>(bits_of(a) ^ bits_of(b));
    if (xorsign) a = std::fabs(a), b = std::fabs(b);
    T result = maximum ? (a > b ? a : b) : (a < b ? a : b);
    // Equal operands have equal bits, but for zeros: there the sign decides.
    const auto zeros = maximum ? bits_of(a) & bits_of(b) : bits_of(a) | bits_of(b);
    result = a == b ? from_bits<T>(zeros) : result;
    if (nan) {
      result = b != b ? b : result;
      result = a != a ? a : result;
    } else {
      result = b != b ? a : result;
      result = a != a ? b : result;
    }
    return xorsign && result == result ? with_sign(result, sign) : result;
  }
};

}  // namespace gpusim
