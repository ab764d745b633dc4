#pragma once
#include <string_view>

#include "engine/context.h"

namespace lightcone::kernels {

// Ragged batches: the rows of all jets lie one after the other in x [T, C]; jet b has the rows [ptr[b], ptr[b+1]) of
// `ptr` [B+1], i32, which on a GPU comes from Context::offsets(). Here x and y are f64, f32 or bf16 of one dtype; sums
// run in f64 for f64, else in f32, in an order that depends on the jet's rows and C alone: row after row on the CPU. All
// functions overwrite their results, give the same bits for any number of threads, and throw Error if a shape, dtype,
// ptr or index does not fit.

/// Throws Error unless ptr is where the Context computes, row offsets (Context::offsets()), i32 [B+1], starts at 0,
/// never decreases and ends at `rows`. Returns B.
int64_t check_ptr(const Context& ctx, std::string_view operation, std::string_view argument, const Tensor& ptr,
                  int64_t rows);

enum class Pool : uint8_t { sum, mean };

/// y[b] = sum or mean over the rows of jet b; 0 for an empty jet.     x [T, C], y [B, C]
void segment_pool(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y);

/// The transpose: y[t] = x[b], or x[b] / (rows of b) for Pool::mean, for every row t of jet b.     x [B, C], y [T, C]
void segment_broadcast(Context& ctx, const Tensor& x, const Tensor& ptr, Pool pool, Tensor& y);

/// y[b,c] = the largest x[t,c] of jet b, at row argmax[b,c]: the first of equals; the first NaN, if there is one.
/// An empty jet gets y = 0 and argmax = -1.     x [T, C], y [B, C], argmax [B, C] i32
void segment_max(Context& ctx, const Tensor& x, const Tensor& ptr, Tensor& y, Tensor& argmax);

/// dx[argmax[b,c],c] = dy[b,c], 0 elsewhere.     dy, argmax [B, C], dx [T, C]
void segment_max_backward(Context& ctx, const Tensor& dy, const Tensor& argmax, const Tensor& ptr, Tensor& dx);

/// y[m] = x[index[m]].     x [N, C], index [M] i32 or i64 in [0, N), y [M, C]
/// On a GPU an index of i32 comes from Context::offsets(), whose numbers are checked without waiting; one of i64 is read
/// back to be checked, which waits for all work before it.
void gather_rows(Context& ctx, const Tensor& x, const Tensor& index, Tensor& y);

/// The transpose: y[n] = sum of x[m] over all m with index[m] = n, in the order of m.     x [M, C], y [N, C]
/// Index as for gather_rows; M + N < 2^31 - 1. The lists of rows are made on the CPU.
void scatter_add_rows(Context& ctx, const Tensor& x, const Tensor& index, Tensor& y);

/// One more row in front of every jet (a global token): offsets of the longer jets, ptr[b] + b.     [B+1]
Tensor prepend_ptr(Context& ctx, const Tensor& ptr);

/// y = the row first[b], then the rows of x, for each jet b. Without first or x: zeros there.
///     first [B, C], x [T, C], y [T + B, C]; `longer` [B+1] are the offsets of y: no jet is empty
void prepend_rows(Context& ctx, const Tensor* first, const Tensor* x, const Tensor& longer, Tensor& y);

/// The inverse: first[b] = the first row of jet b in y, x = the others. Either may be left out.
void split_rows(Context& ctx, const Tensor& y, const Tensor& longer, Tensor* first, Tensor* x);

}  // namespace lightcone::kernels
