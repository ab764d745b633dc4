#pragma once
#include "kernels/edge_vectors_net.cuh"

// The perceptron of edge_vectors.h for `width` = Hp channels in f32: a thread owns a pair, whose hidden values are in
// its registers; weights come from shared memory, the same for all threads at once.
namespace lightcone::kernels::edge {

inline constexpr int register_pairs = 128;  ///< of a tile, and threads of a block

/// Which of a layer's channels dropout keeps for pair `number`.
inline __device__ uint32_t kept_channels(const Network<float>& net, int layer, int64_t number) {
  if (net.dropout == 0 || number < 0) return ~0u;
  const int64_t element = (layer * net.pairs + number) * net.H;
  uint32_t kept = 0;
#pragma unroll 1
  for (int c = 0; c < net.H; ++c) kept |= static_cast<uint32_t>(!(net.numbers.uniform(element + c) < net.dropout)) << c;
  return kept;
}

template <int width>
__device__ float dot(const float* w, const float (&x)[width], float sum) {
#pragma unroll
  for (int c = 0; c < width; c += 4) {
    const auto factor = quad(w + c);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += factor.at[k] * x[c + k];
  }
  return sum;
}

/// As forward() in edge_vectors_net.cuh; what is kept are the own pair's columns.
template <int width, bool keep>
__device__ void forward_in_registers(const Network<float>& net, const Tile<float>& tile) {
  const int q = threadIdx.x;
  if (q >= tile.P) return;
  const auto [i, j] = tile.pair[q];
  float x[width];
#pragma unroll
  for (int c = 0; c < width; ++c) x[c] = 0;
  if (i >= 0) {
    const float *receiver = net.receiver + int64_t{i} * net.H, *sender = net.sender + int64_t{j} * net.H;
    const float e = tile.e[q];
    if (net.words) {
#pragma unroll
      for (int c = 0; c < width; c += 4)
        if (c < net.H) {
          const auto a = quad(receiver + c), b = quad(sender + c), w = quad(tile.packed + c);
#pragma unroll
          for (int k = 0; k < 4; ++k) x[c + k] = a.at[k] + b.at[k] + w.at[k] * e;
        }
    } else {
#pragma unroll
      for (int c = 0; c < width; ++c)
        if (c < net.H) x[c] = receiver[c] + sender[c] + tile.packed[c] * e;
    }
  }
  for (int layer = 0; layer < net.depth; ++layer) {
    const uint32_t kept = kept_channels(net, layer, tile.number[q]);
    float *inputs = tile.input(net, layer) + q, *slopes = keep ? tile.gradient(net, layer) + q : nullptr;
#pragma unroll
    for (int c = 0; c < width; ++c) {
      const float scale = net.dropout == 0 ? 1.f : kept >> c & 1 ? net.kept : 0.f, h = x[c] * scale;
      const auto normal = elementwise::normal(h);
      x[c] = h * normal.cdf;
      if constexpr (keep) {
        inputs[c * tile.pitch] = x[c];
        slopes[c * tile.pitch] = scale * (normal.cdf + h * normal.density);
      }
    }
    const float *w = tile.packed + net.weights(layer), *bias = tile.packed + net.bias(layer);
    if (layer + 1 < net.depth) {
      float y[width];
#pragma unroll
      for (int r = 0; r < width; ++r) y[r] = dot(w + r * width, x, bias[r]);
#pragma unroll
      for (int r = 0; r < width; ++r) x[r] = y[r];
    } else {
      for (int k = 0; k < net.np; ++k) tile.logits[k * tile.pitch + q] = dot(w + k * width, x, bias[k]);
    }
  }
}

/// As backward() there.
template <int width>
__device__ void backward_in_registers(const Network<float>& net, const Tile<float>& tile) {
  const int q = threadIdx.x;
  if (q >= tile.P) return;
  float delta[width];
  for (int layer = net.depth - 1; layer >= 0; --layer) {
    const float* w = tile.packed + net.weights(layer);
    float sum[width];
#pragma unroll
    for (int c = 0; c < width; ++c) sum[c] = 0;
    auto add = [&](int r, float d) {
#pragma unroll
      for (int c = 0; c < width; c += 4) {
        const auto factor = quad(w + r * width + c);
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[c + k] += factor.at[k] * d;
      }
    };
    if (layer + 1 == net.depth) {
      for (int k = 0; k < net.n; ++k) add(k, tile.logits[k * tile.pitch + q]);
    } else {
#pragma unroll
      for (int r = 0; r < width; ++r) add(r, delta[r]);
    }
    float* slopes = tile.gradient(net, layer) + q;
#pragma unroll
    for (int c = 0; c < width; ++c) slopes[c * tile.pitch] = delta[c] = sum[c] * slopes[c * tile.pitch];
  }
}

}  // namespace lightcone::kernels::edge
