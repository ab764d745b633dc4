#pragma once
#include "autograd/tape.h"
#include "kernels/elementwise.h"

namespace lightcone {

using kernels::Unary;

// See kernels/elementwise.h.
Var add(const Var& a, const Var& b);
Var subtract(const Var& a, const Var& b);
Var multiply(const Var& a, const Var& b);
Var scale(const Var& x, double factor);
/// x[..., n] + row[n]
Var add_row(const Var& x, const Var& row);
Var clamp(const Var& x, double low, double high);

///     y = unary(Unary::gelu, x)
Var unary(Unary f, const Var& x);

/// x in another dtype; the gradient returns in that of x. An integer or bool result has none.
Var cast(const Var& x, DType dtype);

/// The same elements in another shape.
Var reshape(const Var& x, const Shape& shape);

/// Side by side along the last axis. Throws Error if there is no part.
Var concat(const std::vector<Var>& parts);
/// Columns [begin, begin + count) of the last axis.
Var slice(const Var& x, int64_t begin, int64_t count);

}  // namespace lightcone
