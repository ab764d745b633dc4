#pragma once
#include "kernels/device.cuh"

// For kernels on channels: packs of them that may lie anywhere, and short rows that part of a warp owns.
namespace lightcone::kernels::cuda {

/// Packs of V channels out of a row of n: where packs divide all rows and lie so, they travel as one word; else element
/// by element, and a row's last one may hold fewer than V.
template <int V>
struct Channels {
  int64_t n;
  bool aligned;

  template <class... T>
  Channels(int64_t n, const T*... x) : n(n), aligned(n % V == 0 && cuda::aligned<V>(x...)) {}
  LIGHTCONE_HOST_DEVICE int64_t packs() const { return (n + V - 1) / V; }

  /// The pack at channel c of the row at x; zeros behind the last channel.
  template <class T>
  __device__ Pack<T, V> load(const T* x, int64_t c) const {
    if (aligned) return load_word<V>(x + c);
    Pack<T, V> pack;
#pragma unroll
    for (int k = 0; k < V; ++k) pack.at[k] = c + k < n ? x[c + k] : T(0.f);
    return pack;
  }
  template <class T>
  __device__ void store(T* to, int64_t c, const Pack<T, V>& pack) const {
    if (aligned) return store_word(to + c, pack);
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (c + k < n) to[c + k] = pack.at[k];
  }
};

/// Rows that `lanes` neighbouring threads own, a power of two up to a warp, a pack of channels a thread and step: what
/// is summed in which order depends on lanes and V, and these on the channels alone. All threads of a warp meet in
/// sum(), so owners past the last row stay, with nothing to do.
struct Team {
  int lanes;

  /// For rows of so many packs.
  explicit Team(int64_t packs)
      : lanes(static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(packs, 1, 32))))) {}
  int64_t blocks(int64_t rows) const { return (rows * lanes + block_threads - 1) / block_threads; }
  __device__ int64_t index() const { return first_item() >> (31 - __clz(lanes)); }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) & (lanes - 1); }
  __device__ bool first() const { return lane() == 0; }

  /// f(c) for the packs of this thread, at channels c.
  template <int V, class F>
  __device__ void each(const Channels<V>& channels, F f) const {
#pragma unroll 1  // rows are short, and registers few
    for (int64_t c = lane() * V; c < channels.n; c += lanes * V) f(c);
  }
  /// The sum of the owners' values, in pairs of owners; each of them gets it.
  template <class S>
  __device__ S sum(S value) const {
    for (int apart = lanes / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(~0u, value, apart);
    return value;
  }
};

}  // namespace lightcone::kernels::cuda
