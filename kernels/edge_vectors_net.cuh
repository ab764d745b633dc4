#pragma once
#include "kernels/edge_vectors_pair.cuh"

// The perceptron of edge_vectors.h for a tile of P pairs in a block of threads: arrays [channel][pair] in shared
// memory, a row `pitch` = P + 4 elements long, so that eight rows of four places share no bank. Channels are padded
// with zeros to a multiple of 8.
namespace lightcone::kernels::edge {

template <class S>
struct Network {
  int H, Hp, n, np, depth;  ///< channels, vectors, both padded, and layers behind the first
  const S *receiver, *sender;
  const S* packed;  ///< edge [Hp], then for each layer weights [rows, Hp] and bias [rows], rows padded
  PairOptions pair;
  bool edges;
  bool words;  ///< whether receiver and sender may be read as words of four channels
  double dropout;
  S kept;         ///< the factor of what dropout leaves
  int64_t pairs;  ///< of the batch
  Numbers numbers;

  LIGHTCONE_HOST_DEVICE int rows(int layer) const { return layer + 1 < depth ? Hp : np; }
  LIGHTCONE_HOST_DEVICE int real_rows(int layer) const { return layer + 1 < depth ? H : n; }
  /// Where a layer's weights and bias begin in what is packed alike.
  LIGHTCONE_HOST_DEVICE int64_t weights(int layer) const { return Hp + int64_t{layer} * (Hp * Hp + Hp); }
  LIGHTCONE_HOST_DEVICE int64_t bias(int layer) const { return weights(layer) + int64_t{rows(layer)} * Hp; }
  LIGHTCONE_HOST_DEVICE int64_t size() const { return bias(depth - 1) + np; }
};

/// Four neighbours, 16 bytes at a time.
template <class S>
__device__ cuda::Pack<S, 4> quad(const S* x) {
  if constexpr (sizeof(S) == 4) {
    return cuda::load_word<4>(x);
  } else {
    const auto low = cuda::load_word<2>(x), high = cuda::load_word<2>(x + 2);
    return {low.at[0], low.at[1], high.at[0], high.at[1]};
  }
}
template <class S>
__device__ void store_quad(S* to, const S (&x)[4]) {
  if constexpr (sizeof(S) == 4) {
    cuda::store_word(to, cuda::Pack<S, 4>{x[0], x[1], x[2], x[3]});
  } else {
    cuda::store_word(to, cuda::Pack<S, 2>{x[0], x[1]});
    cuda::store_word(to + 2, cuda::Pack<S, 2>{x[2], x[3]});
  }
}

/// Where a tile's arrays lie.
template <class S>
struct Tile {
  int P, pitch, log;  ///< P = 2^log
  int2* pair;         ///< [P] rows of receiver and sender; -1 where there is no pair
  int64_t* number;    ///< [P] of the pair in the batch; -1 for i = j, and where there is none
  S *e, *logits;      ///< [P], [np][pitch]
  S *x, *slope;       ///< [layers][Hp][pitch]: a layer's input, and the derivative of its GELU or, later, its gradient
  const S* packed;

  __device__ S* input(const Network<S>& net, int layer) const { return x + int64_t{layer} * net.Hp * pitch; }
  __device__ S* gradient(const Network<S>& net, int layer) const { return slope + int64_t{layer} * net.Hp * pitch; }
};

/// y[r, pair] = bias[r] + sum over c of w[r, c] x[c, pair] for rows r in fours: a thread takes 4 x 4 of y at a time.
template <class S>
__device__ void multiply(const Tile<S>& tile, int rows, int H, const S* w, const S* bias, const S* x, S* y) {
  const int quads = tile.P / 4;
  for (int t = threadIdx.x; t < rows / 4 * quads; t += blockDim.x) {
    const int q = t % quads * 4, r = t / quads * 4;
    S sum[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[i][k] = bias[r + i];
    const S *from[4] = {w + r * H, w + (r + 1) * H, w + (r + 2) * H, w + (r + 3) * H}, *channel = x + q;
    for (int c = 0; c < H; c += 4) {
      cuda::Pack<S, 4> factor[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) factor[i] = quad(from[i]), from[i] += 4;
#pragma unroll
      for (int step = 0; step < 4; ++step, channel += tile.pitch) {
        const auto v = quad(channel);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int k = 0; k < 4; ++k) sum[i][k] += factor[i].at[step] * v.at[k];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) store_quad(y + (r + i) * tile.pitch + q, sum[i]);
  }
}

/// y[c, pair] *= sum over r < rows of w[r, c] delta[r, pair], as above.
template <class S>
__device__ void multiply_transposed(const Tile<S>& tile, int rows, int H, const S* w, const S* delta, S* y) {
  const int quads = tile.P / 4;
  for (int t = threadIdx.x; t < H / 4 * quads; t += blockDim.x) {
    const int q = t % quads * 4, c = t / quads * 4;
    S sum[4][4] = {};
    const S *from = w + c, *row = delta + q;
    for (int r = 0; r < rows; ++r, from += H, row += tile.pitch) {
      const auto factor = quad(from), v = quad(row);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[i][k] += factor.at[i] * v.at[k];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto slope = quad(y + (c + i) * tile.pitch + q);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[i][k] *= slope.at[k];
      store_quad(y + (c + i) * tile.pitch + q, sum[i]);
    }
  }
}

/// GELU with dropout of element `number` (negative: none) in front.
template <bool keep, class S>
__device__ S activate(const Network<S>& net, int64_t number, S h, S& slope) {
  S scale = 1;
  if (number >= 0) scale = net.numbers.uniform(number) < net.dropout ? S(0) : net.kept;
  h *= scale;
  const auto normal = elementwise::normal(h);
  if constexpr (keep) slope = scale * (normal.cdf + h * normal.density);
  return h * normal.cdf;
}

/// Logits of the tile's pairs from pair, number and e, and with `keep` all that the backward needs; otherwise layers
/// take two arrays in turn. The block comes and goes together.
template <bool keep, class S>
__device__ void forward(const Network<S>& net, const Tile<S>& tile) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, quads = tile.P / 4;
  // The first layer's result: a warp takes 8 channels of 4 pairs at a time.
  for (int t = warp; t < quads * (net.Hp / 8); t += warps) {
    const int q = (t & (quads - 1)) * 4 + lane % 4, c = (t >> (tile.log - 2)) * 8 + lane / 4;
    const auto [i, j] = tile.pair[q];
    S h = 0;
    if (i >= 0 && c < net.H) {
      h = net.receiver[int64_t{i} * net.H + c] + net.sender[int64_t{j} * net.H + c];
      if (net.edges) h += tile.packed[c] * tile.e[q];
    }
    tile.x[c * tile.pitch + q] = h;
  }
  for (int layer = 0; layer < net.depth; ++layer) {
    S *x = tile.input(net, keep ? layer : layer % 2), *slope = keep ? tile.gradient(net, layer) : nullptr;
    __syncthreads();
    for (int t = threadIdx.x; t < net.Hp * tile.P; t += blockDim.x) {
      const int q = t & (tile.P - 1), c = t >> tile.log, place = c * tile.pitch + q;
      int64_t number = -1;
      if (net.dropout > 0 && c < net.H && tile.number[q] >= 0)
        number = (layer * net.pairs + tile.number[q]) * net.H + c;
      S derivative;
      x[place] = activate<keep>(net, number, x[place], derivative);
      if constexpr (keep) slope[place] = derivative;
    }
    __syncthreads();
    S* y = layer + 1 < net.depth ? tile.input(net, keep ? layer + 1 : (layer + 1) % 2) : tile.logits;
    multiply(tile, net.rows(layer), net.Hp, tile.packed + net.weights(layer), tile.packed + net.bias(layer), x, y);
  }
  __syncthreads();
}

/// Gradients of all layers' results from that of the logits, which takes their place.
template <class S>
__device__ void backward(const Network<S>& net, const Tile<S>& tile) {
  const S* delta = tile.logits;
  for (int layer = net.depth - 1; layer >= 0; --layer) {
    __syncthreads();
    S* to = tile.gradient(net, layer);
    multiply_transposed(tile, net.real_rows(layer), net.Hp, tile.packed + net.weights(layer), delta, to);
    delta = to;
  }
  __syncthreads();
}

}  // namespace lightcone::kernels::edge
