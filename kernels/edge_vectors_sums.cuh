#pragma once
#include "kernels/edge_vectors_net.cuh"

// Sums over pairs, each in an order that its jet's length fixes.
namespace lightcone::kernels::edge {

template <class T>
__device__ T warp_sum(T x) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) x += __shfl_xor_sync(~0u, x, apart);
  return x;
}

/// The sums of x[0 … 3] over a warp: lane 8 c gets that of x[c].
__device__ inline double warp_sum_of_four(const double (&x)[4], int lane) {
  const bool high = lane & 16, odd = lane & 8;
  const double a = (high ? x[2] : x[0]) + __shfl_xor_sync(~0u, high ? x[0] : x[2], 16);
  const double b = (high ? x[3] : x[1]) + __shfl_xor_sync(~0u, high ? x[1] : x[3], 16);
  double sum = (odd ? b : a) + __shfl_xor_sync(~0u, odd ? a : b, 8);
#pragma unroll
  for (int apart = 4; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
  return sum;
}

/// to[r, c] += sum over pairs of delta[r, pair] x[c, pair]: four lanes share 4 x 4 of them, each over every fourth quad
/// of pairs; then each has one row of four.
template <class S>
__device__ void add_products(const Tile<S>& tile, int rows, int H, const S* delta, const S* x, S* to) {
  const int lane = threadIdx.x % 32, part = lane / 8, across = H / 4, down = rows / 4, count = across * down;
  for (int first = threadIdx.x / 32 * 8; first < count; first += blockDim.x / 4) {
    const int t = first + lane % 8, place = t < count ? t : count - 1, c = place % across, r = place / across;
    S sum[4][4] = {};
    const S *const a_row = delta + r * tile.pitch, *const b_row = x + c * tile.pitch;
    const int a_step = down * tile.pitch, b_step = across * tile.pitch;
    for (int q = part * 4; q < tile.P; q += 16) {
      cuda::Pack<S, 4> a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = quad(a_row + i * a_step + q);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const auto b = quad(b_row + k * b_step + q);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int step = 0; step < 4; ++step) sum[i][k] += a[i].at[step] * b.at[step];
      }
    }
    const bool high = part & 2, odd = part & 1;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const S even = (high ? sum[2][k] : sum[0][k]) + __shfl_xor_sync(~0u, high ? sum[0][k] : sum[2][k], 16);
      const S other = (high ? sum[3][k] : sum[1][k]) + __shfl_xor_sync(~0u, high ? sum[1][k] : sum[3][k], 16);
      const S whole = (odd ? other : even) + __shfl_xor_sync(~0u, odd ? even : other, 8);
      if (t < count) to[(r + part * down) * H + c + k * across] += whole;
    }
  }
}

/// to[r] += sum over pairs of delta[r, pair], times factor[pair] if there is one: a warp takes a row.
template <class S>
__device__ void add_rows(const Tile<S>& tile, int rows, const S* delta, const S* factor, S* to) {
  const int lane = threadIdx.x % 32;
  for (int r = threadIdx.x / 32; r < rows; r += blockDim.x / 32) {
    S sum = 0;
    for (int q = lane; q < tile.P; q += 32) sum += delta[r * tile.pitch + q] * (factor ? factor[q] : S(1));
    sum = warp_sum(sum);
    if (lane == 0) to[r] += sum;
  }
}

/// The tile's part of all gradients of the perceptron, which are packed in `to` as it is.
template <class S>
__device__ void add_gradients(const Network<S>& net, const Tile<S>& tile, S* to) {
  for (int layer = 0; layer < net.depth; ++layer) {
    const S* delta = layer + 1 < net.depth ? tile.gradient(net, layer + 1) : tile.logits;
    add_products(tile, net.rows(layer), net.Hp, delta, tile.input(net, layer), to + net.weights(layer));
    add_rows<S>(tile, net.real_rows(layer), delta, nullptr, to + net.bias(layer));
  }
  if (net.edges) add_rows(tile, net.H, tile.gradient(net, 0), tile.e, to);
}

/// rows[i, c] (+)= sums over `count` pairs, `step` apart, of delta[c, pair], where row i begins at pair i * row_step:
/// the receivers' gradients, or the senders'. Lanes take 8 channels of 4 rows.
template <class S>
__device__ void add_to_rows(const Tile<S>& tile, int rows, int row_step, int count, int step, int H, const S* delta,
                            bool first, S* to) {
  const int lane = threadIdx.x % 32, groups = (rows + 3) / 4;
  for (int t = threadIdx.x / 32; t < groups * ((H + 7) / 8); t += blockDim.x / 32) {
    const int i = t % groups * 4 + lane % 4, c = t / groups * 8 + lane / 4;
    if (i >= rows || c >= H) continue;
    const S* x = delta + c * tile.pitch + i * row_step;
    S sum = 0;
    for (int k = 0; k < count; ++k) sum += x[k * step];
    S& place = to[int64_t{i} * H + c];
    place = first ? sum : place + sum;
  }
}

}  // namespace lightcone::kernels::edge
