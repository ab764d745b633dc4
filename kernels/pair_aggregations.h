#pragma once
#include <vector>

#include "kernels/all_pairs.h"
#include "kernels/segment.h"

namespace lightcone::kernels {

// Linear maps between numbers that belong to pairs, to constituents and to jets, of any number of constituents and
// equivariant under their permutations: what PELICAN is made of (Bogatskiy, Hoffman, Miller, Offermann,
// arXiv:2211.00454, sect. 3; the 15 maps of pairs to pairs are those of Maron et al., arXiv:1812.09902). With pools
// over a jet's pairs
//
//     r_i = pool_j x_ij    c_j = pool_i x_ij    d_i = x_ii    G = pool_ij x_ij    D = pool_ij (x_ij if i = j, else 0)
//
// such a map is a product with matrices of x, of its transpose and of these, all of them at places that the pair, the
// constituent or the jet knows:
//
//     pairs to pairs    y_ij = A x_ij + B x_ji + u_i + v_j + (w_i if i = j),    u, v, w linear in r, c, d, G, D
//     to constituents   y_i  = linear in r_i, c_i, d_i, G, D
//     to jets           y    = linear in G, D
//
// so the 15 numbers per pair and channel of a literal implementation never exist: pair_pool gives what u, v, w are made
// of, pair_combine adds, and the matrices are plain products. Constituents or jets to pairs: u, v, w alone.
//
// Pairs are all ordered ones, i = j among them: N^2 rows for a jet of N constituents, jet by jet, i by i, j by j. All
// tensors are f64 or f32 and of one dtype, in which sums run, j by j and i by i. Channels are innermost.
//
//   x, y      [E, C]    E = sum of N^2
//   ptr       [B+1]     i32, see segment.h; a jet may be empty
//   tokens    [T, 3C]   r, c, d of each constituent (of pair_combine: u, v, w)
//   jets      [B, 2C]   G, D; zero for an empty jet
//
// All results are overwritten and a jet's depend on that jet alone, bit by bit, for any number of threads. Throws Error
// if a shape, dtype or ptr does not fit.

/// Pool::sum, or Pool::mean: sums over j (r), i (c) or both (G, D: in both the N^2 pairs count) by their number.
void pair_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& tokens, Tensor& jets);
///     dx_ij = add_ij + dr_i / N + dc_j / N + dG / N^2 + (dd_i + dD / N^2 if i = j)       (N = 1 for Pool::sum)
///
/// `add`: another gradient of x, or an undefined tensor; dx may be add.
void pair_pool_backward(Context& ctx, const Tensor& dtokens, const Tensor& djets, const Tensor& ptr, Pool pool,
                        const Tensor& add, Tensor& dx);

///     y_ij = a_ij + b_ji + u_i + v_j + (w_i if i = j)
///
///   ab   [E, 2C]   a, b side by side; undefined: without
void pair_combine(Context& ctx, const Tensor& ab, const Tensor& tokens, const Tensor& ptr, Tensor& y);
///     da_ij = dy_ij    db_ij = dy_ji    du_i = sum_j dy_ij    dv_j = sum_i dy_ij    dw_i = dy_ii
///
/// nullptr: not wanted.
void pair_combine_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, Tensor* dab, Tensor* dtokens);

/// What the references train, for M maps of `in` channels to `out`, and its gradients. The coefficient of map m from
/// channel c to channel o is f_m k[c, o, m] with either
///
///     k[c, o, m] = direct[c, o, m]    or    k[c, o, m] = c00[c, m] c10[c, o] + c01[o, m] c11[c, o]
///
/// or rather would be: the references read the axes (c, o) of k, in this order in memory, as (out, in). Row o, column c
/// of the matrix of map m is the entry o in + c of its plane. This is what their checkpoints mean, and it is kept.
struct AggregationCoefficients {
  Tensor direct;              ///< [in, out, M], or undefined:
  Tensor c00, c01, c10, c11;  ///< [in, M], [out, M], [in, out], [in, out]
  Tensor multipliers;         ///< f [M]; undefined: ones
  Tensor scale;               ///< [in]: factors of the input channels (a norm's weights); undefined: ones
};
/// The maps of a matrix, block by block, -1 for zeros: block (r, k) is rows [r out, (r + 1) out) and columns
/// [k in, (k + 1) in).
struct MatrixOfMaps {
  int64_t rows, columns;
  std::vector<int> maps;  ///< [rows, columns]
};

/// matrices[t] [rows out, columns in] of the maps in layout[t]; each map occurs once at most.
void aggregation_matrices(Context& ctx, const AggregationCoefficients& k, const std::vector<MatrixOfMaps>& layout,
                          std::vector<Tensor>& matrices);
/// Gradients of all that k has, overwritten.
void aggregation_matrices_backward(Context& ctx, const std::vector<Tensor>& dmatrices, const AggregationCoefficients& k,
                                   const std::vector<MatrixOfMaps>& layout, AggregationCoefficients& gradients);

}  // namespace lightcone::kernels
