#pragma once
#include "kernels/device.cuh"

// Four-vectors and matrices of them in and out of memory.
namespace lightcone::kernels::cuda {

/// How many elements of a four-vector travel as one word.
template <class T>
inline constexpr int four_vector_word = std::min(4, pack_size<T>);
/// Whether four-vectors at all these places may travel so.
template <class... T>
bool in_words(const T*... x) {
  return (aligned<four_vector_word<T>>(x) && ...);
}

/// N numbers, a multiple of 4, from x on; `words`: in_words(x).
template <class T, class S, int N>
__device__ void load(const T* x, bool words, S (&numbers)[N]) {
  constexpr int V = four_vector_word<T>;
#pragma unroll
  for (int k = 0; k < N; k += V) {
    Pack<T, V> pack;
    if (words) {
      pack = load_word<V>(x + k);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) pack.at[i] = x[k + i];
    }
#pragma unroll
    for (int i = 0; i < V; ++i) numbers[k + i] = S(pack.at[i]);
  }
}
template <class T, class S, int N>
__device__ void store(const S (&numbers)[N], bool words, T* y) {
  constexpr int V = four_vector_word<T>;
#pragma unroll
  for (int k = 0; k < N; k += V) {
    Pack<T, V> pack;
#pragma unroll
    for (int i = 0; i < V; ++i) pack.at[i] = T(numbers[k + i]);
    if (words) {
      store_word(y + k, pack);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) y[k + i] = pack.at[i];
    }
  }
}

}  // namespace lightcone::kernels::cuda
