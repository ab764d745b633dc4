#pragma once
#include <algorithm>
#include <bit>

#include "engine/cuda.h"

// What CUDA kernels share: packs of elements that travel as one access, items that the threads of a grid stride over,
// and rows that a team of threads owns.
namespace lightcone::kernels::cuda {

using lightcone::cuda::check_cuda;
using lightcone::cuda::launch;

inline constexpr int block_threads = 256;

/// V elements next to each other.
template <class T, int V>
struct Pack {
  T at[V];
};
/// How many elements of the largest of these types make 16 bytes, the most that a thread moves at once.
template <class... T>
inline constexpr int pack_size = 16 / static_cast<int>(std::max({sizeof(T)...}));

template <size_t bytes>
using Word = std::conditional_t<
    bytes == 16, uint4,
    std::conditional_t<bytes == 8, uint2,
                       std::conditional_t<bytes == 4, uint32_t, std::conditional_t<bytes == 2, uint16_t, uint8_t>>>>;

/// Whether packs of V elements may travel as one word from and to all these places.
template <int V, class... T>
bool aligned(const T*... x) {
  return ((reinterpret_cast<uintptr_t>(x) % (V * sizeof(T)) == 0) && ...);
}

template <int V, class T>
__device__ Pack<T, V> load_word(const T* x) {
  return std::bit_cast<Pack<T, V>>(*reinterpret_cast<const Word<V * sizeof(T)>*>(x));
}
template <int V, class T>
__device__ void store_word(T* to, const Pack<T, V>& pack) {
  *reinterpret_cast<Word<V * sizeof(T)>*>(to) = std::bit_cast<Word<V * sizeof(T)>>(pack);
}

/// The numbers of a Draw for kernels that are launched while it lives. Recorded ones are copied to the GPU.
class DrawnNumbers {
 public:
  DrawnNumbers(Context& ctx, const Draw& draw) : numbers_(draw.numbers()) {
    if (ctx.recording()) fail("graph", "random numbers would be the same in every replay; leave out dropout");
    if (!draw.recorded) return;
    const auto count = static_cast<int64_t>(draw.recorded->size());
    recorded_ = ctx.empty({count}, DType::f64);
    ctx.allocator().copy_in(recorded_.raw(), draw.recorded->data(), recorded_.bytes());
    numbers_.recorded = recorded_.data<double>();
  }
  operator Numbers() const { return numbers_; }

 private:
  Numbers numbers_;
  Tensor recorded_;
};

/// This thread's first item, and how far it is to its next one: items are consecutive among the threads of a grid.
__device__ inline int64_t first_item() { return int64_t{blockIdx.x} * block_threads + threadIdx.x; }
__device__ inline int64_t item_step() { return int64_t{gridDim.x} * block_threads; }
/// Blocks for n items: a thread per item up to what fills any GPU, then threads take several.
inline int64_t blocks_for(int64_t n) {
  return std::min<int64_t>((n + block_threads - 1) / block_threads, int64_t{1} << 16);
}

/// The thread's items as places in a matrix of cols > 0 columns; one division at the start, none on the way.
struct Place {
  int64_t row, col;
  __device__ explicit Place(int64_t cols)
      : row(first_item() / cols),
        col(first_item() % cols),
        cols_(cols),
        row_step_(item_step() / cols),
        col_step_(item_step() % cols) {}
  __device__ void next() {
    row += row_step_;
    col += col_step_;
    if (col >= cols_) {
      col -= cols_;
      ++row;
    }
  }

 private:
  int64_t cols_, row_step_, col_step_;
};

/// `combine` over the values of `size` threads, a warp or all of a block, for each of them. It must be commutative:
/// they meet in pairs 16, 8, … apart, then warps in order.
template <int size, class S, class Combine>
__device__ S combined(S value, Combine combine) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) value = combine(value, __shfl_xor_sync(~0u, value, apart));
  if constexpr (size > 32) {
    __shared__ S of_warp[size / 32];
    __syncthreads();  // what an earlier call left there has been read
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warp[0];
#pragma unroll
    for (int warp = 1; warp < size / 32; ++warp) value = combine(value, of_warp[warp]);
  }
  return value;
}

/// A row that `size` threads own, one warp or all of a block, V neighbouring elements a thread and step. What is summed
/// in which order depends on size and V, and these on the row's length alone.
template <int size_, int V_>
struct Row {
  static constexpr int size = size_, V = V_;
  static_assert(size == 32 || size == block_threads);
  bool aligned;  ///< so that V elements travel as one word

  static int64_t blocks(int64_t rows) { return (rows + block_threads / size - 1) / (block_threads / size); }
  /// The row of this thread; the same for all that own it, so that they may leave together where there is none.
  __device__ int64_t index() const { return int64_t{blockIdx.x} * (block_threads / size) + threadIdx.x / size; }
  __device__ bool first() const { return threadIdx.x % size == 0; }

  template <class T>
  __device__ Pack<T, V> load(const T* x) const {
    if (aligned) return load_word<V>(x);
    Pack<T, V> pack;
#pragma unroll
    for (int k = 0; k < V; ++k) pack.at[k] = x[k];
    return pack;
  }
  template <class T>
  __device__ void store(T* to, const Pack<T, V>& pack) const {
    if (aligned) return store_word(to, pack);
#pragma unroll
    for (int k = 0; k < V; ++k) to[k] = pack.at[k];
  }

  /// f(c, pack of each row at c) for the packs of this thread.
  template <class F, class... In>
  __device__ void each(int64_t cols, F f, const In*... in) const {
    for (int64_t c = threadIdx.x % size * V; c < cols; c += size * V) f(c, load(in + c)...);
  }

  /// `combine` of f(element of each row) over the row, `none` where there is nothing; every owner gets it. See
  /// combined().
  template <class S, class Combine, class F, class... In>
  __device__ S reduce(int64_t cols, S none, Combine combine, F f, const In*... in) const {
    S value = none;
    auto add = [&](int64_t, const Pack<In, V>&... packs) {
#pragma unroll
      for (int k = 0; k < V; ++k) value = combine(value, f(S(packs.at[k])...));
    };
    each(cols, add, in...);
    return combined<size>(value, combine);
  }
  template <class S, class F, class... In>
  __device__ S sum(int64_t cols, F f, const In*... in) const {
    return reduce(
        cols, S(0), [](S a, S b) { return a + b; }, f, in...);
  }

  /// out[c] = f(element c of each row), in the type of sums; out may be one of the rows.
  template <class T, class F, class... In>
  __device__ void map(int64_t cols, T* out, F f, const In*... in) const {
    using S = sum_type<T>;
    auto write = [&](int64_t c, const Pack<In, V>&... packs) {
      Pack<T, V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) result.at[k] = T(f(S(packs.at[k])...));
      store(out + c, result);
    };
    each(cols, write, in...);
  }
};

/// g(row) with the Row for rows of `cols` elements in these tensors: a warp up to 1024, a block beyond; packs of 16
/// bytes of the largest type where they divide cols.
template <class G, class... T>
void with_row(int64_t cols, G&& g, const T*... x) {
  constexpr int V = pack_size<T...>;
  auto with = [&]<int v>(std::integral_constant<int, v>) {
    const bool words = aligned<v>(x...);
    cols <= 1024 ? g(Row<32, v>{words}) : g(Row<block_threads, v>{words});
  };
  cols % V == 0 ? with(std::integral_constant<int, V>{}) : with(std::integral_constant<int, 1>{});
}

}  // namespace lightcone::kernels::cuda
