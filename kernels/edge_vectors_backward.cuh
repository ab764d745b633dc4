#pragma once
#include "kernels/edge_vectors_block.cuh"

namespace lightcone::kernels::edge {

/// Gradients of v times the jet's share [T, n, 4], and their products with v [T, n] for a softmax.
struct ToSums {
  const double *dv, *less;
};

// A block takes the jets b, b + blocks …, a thread their receivers.
__global__ void to_sums_kernel(int jets, const int32_t* ptr, int n, bool mean, bool layer_norm, bool softmax,
                               double largest_gradient, InDoubles dy, InDoubles y, const double* norm, double* dv,
                               double* less) {
  for (int b = blockIdx.x; b < jets; b += gridDim.x) {
    const int others = ptr[b + 1] - ptr[b] - 1;
    const double share = mean ? 1. / (others > 1 ? others : 1) : 1.;
    for (int64_t i = ptr[b] + threadIdx.x; i < ptr[b + 1]; i += blockDim.x) {
      const int64_t row = i * 4 * n;
      const double length = norm[i];
      double dy_y = 0, square = 0;
      for (int k = 0; k < 4 * n; ++k) {
        const double v = y[row + k];
        dy_y += dy[row + k] * v;
        square += k % 4 ? -v * v : v * v;
      }
      // The length is the bound, or made of v itself.
      if (!layer_norm || length <= least_length) dy_y = 0;
      if (square < 0) dy_y = -dy_y;
      double largest = 0;
      auto note = [&](double x) { largest = largest < std::abs(x) ? std::abs(x) : largest; };
      for (int k = 0; k < n; ++k) {
        double along = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const double v = y[row + 4 * k + c], d = (dy[row + 4 * k + c] - (c ? -dy_y : dy_y) * v) / length;
          dv[row + 4 * k + c] = d * share;
          note(d * share);
          if (softmax) along += d * v * length;
        }
        less[i * n + k] = along;
        note(along);
      }
      if (!(largest > largest_gradient) || std::isinf(largest)) continue;
      for (int k = 0; k < n; ++k) {
        for (int c = 0; c < 4; ++c) dv[row + 4 * k + c] = 0;
        less[i * n + k] = 0;
      }
    }
  }
}

/// The logits' gradients in their place. With `df`, [4][P], also that of each pair's f.
template <class S>
__device__ void to_logits(const Network<S>& net, const Tile<S>& tile, EdgeWeight kind, const ToSums& to, const S* lse,
                          double* df) {
  for (int q = threadIdx.x; q < tile.P; q += blockDim.x) {
    const auto [i, j] = tile.pair[q];
    double dm[4] = {}, of_f[4] = {};
    if (i >= 0) {
      const Pair pair(net.pair, i, j);
      const double inverse = pair.inverse(net.pair);
      for (int k = 0; k < net.n; ++k) {
        const int64_t place = int64_t{i} * net.n + k;
        S& logit = tile.logits[k * tile.pitch + q];
        S slope;
        const S weight =
            weight_of(kind, i == j ? -S(INFINITY) : logit, kind == EdgeWeight::softmax ? lse[place] : S(0), slope);
        double d_f = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const double d = to.dv[place * 4 + c];
          d_f += d * pair.f[c];
          dm[c] += static_cast<double>(weight) * d;
        }
        logit = static_cast<S>(static_cast<double>(slope) * (d_f * inverse - to.less[place]));
      }
      if (df) pair.norm_gradient(net.pair, dm, of_f);
    } else {
      for (int k = 0; k < net.n; ++k) tile.logits[k * tile.pitch + q] = 0;
    }
    if (df)
#pragma unroll
      for (int c = 0; c < 4; ++c) df[c * tile.P + q] = of_f[c];
  }
}

/// df [8][P] from what to_logits left there: each pair's gradients of p_i and p_j.
template <class S>
__device__ void to_momenta(const Network<S>& net, const Tile<S>& tile, double* df) {
  const S* delta = tile.gradient(net, 0);
  for (int q = threadIdx.x; q < tile.P; q += blockDim.x) {
    const auto [i, j] = tile.pair[q];
    double ds[4] = {};
    if (i >= 0 && net.edges) {
      S de = 0;
      for (int c = 0; c < net.H; ++c) de += tile.packed[c] * delta[c * tile.pitch + q];
      Pair(net.pair, i, j).edge_gradient(net.pair, de, ds);
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const double d = df[c * tile.P + q];
      df[c * tile.P + q] = net.pair.receiver * d + ds[c];
      df[(4 + c) * tile.P + q] = net.pair.sender * d + ds[c];
    }
  }
  __syncthreads();
}

/// As add_to_rows() for momenta: a thread takes a component of a row at a time.
__device__ inline void add_to_momenta(int P, int rows, int row_step, int count, int step, const double* df, bool first,
                                      double* to) {
  for (int t = threadIdx.x; t < rows * 4; t += blockDim.x) {
    const double* x = df + t % 4 * P + t / 4 * row_step;
    double sum = 0;
    for (int k = 0; k < count; ++k) sum += x[k * step];
    to[t] = first ? sum : to[t] + sum;
  }
}

// Sums for senders over the groups of their jet, partial [group][T, cols]. A block takes a jet, a thread an element of
// it at a time.
template <class S, class Store>
__global__ void sum_groups_kernel(const int32_t* ptr, int P, int64_t rows, int cols, const S* partial, Store store) {
  const int64_t begin = ptr[blockIdx.x], N = ptr[blockIdx.x + 1] - begin;
  if (N == 0) return;
  const int groups = Groups(static_cast<int>(N), P).count;
  for (int64_t t = begin * cols + threadIdx.x; t < (begin + N) * cols; t += blockDim.x) {
    S sum = 0;
    for (int g = 0; g < groups; ++g) sum += partial[g * rows * cols + t];
    store(t, sum);
  }
}

// Gradients of one tensor [rows, cols] from the sums of blocks, which have them in rows of `width`: each of a block's
// eight warps takes every eighth of them for 32 neighbouring elements.
template <class S>
__global__ void sum_blocks_kernel(int blocks, int64_t size, int cols, int width, int64_t count, const S* partial,
                                  S* to) {
  __shared__ S sums[8][32];
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  const int64_t t = int64_t{blockIdx.x} * 32 + lane;
  S sum = 0;
  if (t < count) {
    const S* x = partial + t / cols * width + t % cols;
    for (int b = slice; b < blocks; b += 8) sum += x[b * size];
  }
  sums[slice][lane] = sum;
  __syncthreads();
  if (slice > 0 || t >= count) return;
#pragma unroll
  for (int s = 1; s < 8; ++s) sum += sums[s][lane];
  to[t] = sum;
}

}  // namespace lightcone::kernels::edge
