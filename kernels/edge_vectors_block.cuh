#pragma once
#include "kernels/edge_vectors_registers.cuh"
#include "kernels/edge_vectors_sums.cuh"

// What the blocks of both passes have in common.
namespace lightcone::kernels::edge {

/// `width` = 0: the network computes in tiles; else in registers, for up to so many channels.
template <int width>
inline constexpr int threads = width ? register_pairs : 256;
/// On a multiprocessor, where ptxas would spill to have more; 0: it may choose.
template <class S, int width>
inline constexpr int least_blocks = width            ? 0
                                    : sizeof(S) == 4 ? 2
                                                     : 1;

/// A tile's arrays in shared memory, or, where those of channels do not fit, these in `outside`.
template <int width, bool keep, class S>
LIGHTCONE_HOST_DEVICE Tile<S> tile_in(Carve& carve, const Network<S>& net, int P, bool inside, S* outside) {
  Tile<S> tile{};
  tile.P = P;
  tile.pitch = P + 4;
  while (1 << tile.log < P) ++tile.log;
  tile.number = carve.take<int64_t>(P);
  tile.pair = carve.take<int2>(P);
  tile.e = carve.take<S>(P);
  tile.logits = carve.take<S>(net.np * tile.pitch);
  const int64_t one = net.Hp * tile.pitch, arrays = keep ? net.depth : width ? 0 : 2;
  tile.x = inside ? carve.take<S>(arrays * one) : outside;
  tile.slope = !keep ? nullptr : inside ? carve.take<S>(arrays * one) : outside + arrays * one;
  tile.packed = width ? carve.take<S>(net.size()) : net.packed;
  return tile;
}
/// Elements of `outside` for a block.
template <bool keep, class S>
int64_t outside_elements(const Network<S>& net, int P) {
  return (keep ? 2 * net.depth : 2) * int64_t{net.Hp} * (P + 4);
}

/// The tile with the receivers from i0 and the senders from j0 on; unless null, f / norm to momenta [4][P].
template <class S>
__device__ void set_pairs(const Network<S>& net, const Tile<S>& tile, const Item& item, const Cut& cut, int i0, int j0,
                          double* momenta) {
  for (int q = threadIdx.x; q < tile.P; q += blockDim.x) {
    const int r = q / cut.senders, i = i0 + r, j = j0 + q - r * cut.senders;
    const bool there = r < cut.receivers && i < item.last && j < item.end;
    tile.pair[q] = there ? int2{i, j} : int2{-1, -1};
    const int64_t before = item.pairs_before + int64_t{i - item.begin} * (item.end - item.begin - 1);
    tile.number[q] = there && i != j ? before + j - item.begin - (j > i) : -1;
    S e = 0;
    if (there) {
      const Pair pair(net.pair, i, j);
      if (net.edges) e = static_cast<S>(pair.edge(net.pair));
      if (momenta) {
        const double inverse = pair.inverse(net.pair);
#pragma unroll
        for (int c = 0; c < 4; ++c) momenta[c * tile.P + q] = inverse * pair.f[c];
      }
    }
    tile.e[q] = e;
  }
  __syncthreads();
}

template <int width, bool keep, class S>
__device__ void run_forward(const Network<S>& net, const Tile<S>& tile) {
  if constexpr (width > 0)
    forward_in_registers<width, keep>(net, tile), __syncthreads();
  else
    forward<keep>(net, tile);
}
template <int width, class S>
__device__ void run_backward(const Network<S>& net, const Tile<S>& tile) {
  if constexpr (width > 0)
    backward_in_registers<width>(net, tile), __syncthreads();
  else
    backward(net, tile);
}

/// The copy of the weights that blocks with a network in registers have.
template <int width, class S>
__device__ void copy_weights(const Network<S>& net, const Tile<S>& tile) {
  if constexpr (width > 0) {
    S* to = const_cast<S*>(tile.packed);
    for (int64_t k = threadIdx.x; k < net.size(); k += blockDim.x) to[k] = net.packed[k];
    __syncthreads();
  }
}

}  // namespace lightcone::kernels::edge
