#pragma once
#include "kernels/edge_vectors_block.cuh"

namespace lightcone::kernels::edge {

/// Sums of weights and of weighted momenta of a tile's receivers over the senders so far: as if weights of a softmax
/// were exp(logit - top).
template <class S>
struct Averages {
  double *momenta, *v;  ///< f / norm of each pair [4][P]; [receiver][n][4]
  S *top, *sum;         ///< [receiver][n]
  LIGHTCONE_HOST_DEVICE Averages(Carve& carve, const Network<S>& net, int P)
      : momenta(carve.take<double>(4 * P)),
        v(carve.take<double>(most_receivers * net.n * 4)),
        top(carve.take<S>(most_receivers * net.n)),
        sum(carve.take<S>(most_receivers * net.n)) {}

  __device__ void clear(const Network<S>& net) const {
    for (int k = threadIdx.x; k < most_receivers * net.n; k += blockDim.x) top[k] = -S(INFINITY), sum[k] = 0;
    for (int k = threadIdx.x; k < most_receivers * net.n * 4; k += blockDim.x) v[k] = 0;
  }

  /// A warp takes one vector of one receiver at a time, a lane a sender.
  __device__ void add(const Network<S>& net, const Tile<S>& tile, EdgeWeight kind, const Cut& cut) const {
    const int lane = threadIdx.x % 32;
    for (int place = threadIdx.x / 32; place < cut.receivers * net.n; place += blockDim.x / 32) {
      const int r = place / net.n, k = place - r * net.n, q = r * cut.senders + (lane < cut.senders ? lane : 0);
      const auto [i, j] = tile.pair[q];
      const bool there = lane < cut.senders && i >= 0;
      const S logit = there && i != j ? tile.logits[k * tile.pitch + q] : -S(INFINITY);
      S weight = 0, factor = 1;
      if (kind == EdgeWeight::softmax) {
        S most = logit;
#pragma unroll
        for (int apart = 16; apart > 0; apart /= 2) {
          const S other = __shfl_xor_sync(~0u, most, apart);
          most = other > most ? other : most;
        }
        const S before = top[place];
        most = before > most ? before : most;
        const S zero = most == -S(INFINITY) ? S(0) : most;  // no neighbours: -inf - -inf would be NaN
        weight = vector_math::exp(logit - zero);
        factor = vector_math::exp(before - zero);
        const S all = warp_sum(weight);
        __syncwarp();  // all have read top
        if (lane == 0) top[place] = most, sum[place] = sum[place] * factor + all;
      } else {
        S slope;
        weight = weight_of(kind, logit, S(0), slope);
      }
      double m[4] = {};
      if (there)
#pragma unroll
        for (int c = 0; c < 4; ++c) m[c] = static_cast<double>(weight) * momenta[c * tile.P + q];
      const double mine = warp_sum_of_four(m, lane);
      if (lane % 8 == 0) {
        double& to = v[place * 4 + lane / 8];
        to = to * static_cast<double>(factor) + mine;
      }
    }
  }

  /// A warp takes a receiver, a lane one component of its vectors at a time.
  __device__ void finish(const Network<S>& net, EdgeWeight kind, bool layer_norm, double share, int i0, int receivers,
                         const OutDoubles& y, S* lse, double* norm) const {
    const int lane = threadIdx.x % 32, n = net.n;
    for (int r = threadIdx.x / 32; r < receivers; r += blockDim.x / 32) {
      double square = 0;
      for (int at = lane; at < 4 * n; at += 32) {
        const int place = r * n + at / 4;
        double factor = share;
        if (kind == EdgeWeight::softmax) {
          const S all = sum[place] + S(1e-16), most = top[place];
          factor *= static_cast<double>(1 / all);
          if (at % 4 == 0)
            lse[int64_t{i0 + r} * n + at / 4] = (most == -S(INFINITY) ? S(0) : most) + vector_math::log(all);
        }
        const double value = v[r * n * 4 + at] *= factor;
        square += at % 4 ? -value * value : value * value;
      }
      square = warp_sum(square);
      const double length = layer_norm ? at_least(std::sqrt(std::abs(square)), least_length) : 1.0;
      if (lane == 0) norm[i0 + r] = length;
      for (int at = lane; at < 4 * n; at += 32) y.store(int64_t{i0 + r} * 4 * n + at, v[r * n * 4 + at] / length);
    }
  }
};

}  // namespace lightcone::kernels::edge
