#pragma once
#include "autograd/tape.h"
#include "kernels/segment.h"

namespace lightcone {

// Rows of jets by `ptr` [B+1]; see kernels/segment.h. x is [T, C] unless said otherwise.

Var segment_sum(const Var& x, const Tensor& ptr);   ///< [B, C]
Var segment_mean(const Var& x, const Tensor& ptr);  ///< [B, C]
Var segment_max(const Var& x, const Tensor& ptr);   ///< [B, C]
/// Row b of x [B, C] for every row of jet b: [T, C].
Var segment_broadcast(const Var& x, const Tensor& ptr);

Var gather_rows(const Var& x, const Tensor& index);                     ///< [M, C]
Var scatter_add_rows(const Var& x, const Tensor& index, int64_t rows);  ///< [rows, C]

using kernels::prepend_ptr;  ///< offsets of jets that are one row longer, to be computed once per batch
/// Row b of first [B, C] in front of jet b: [T + B, C] with the offsets `longer`.
Var prepend_rows(const Var& first, const Var& x, const Tensor& longer);
/// The first row of each jet, [B, C]; none may be empty.
Var first_rows(const Var& x, const Tensor& ptr);
/// All rows but the first of each jet, [T - B, C]; none may be empty.
Var drop_first_rows(const Var& x, const Tensor& ptr);

}  // namespace lightcone
