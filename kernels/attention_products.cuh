#pragma once
#include "kernels/device.cuh"

// The products of attention within a warp, of three kinds with the same interface: plain ones in the sum's type, and
// those of tensor cores, whose operands are bf16, or tf32 (attention_tf32.cuh). A warp owns 16 rows (queries, or keys where their gradients are summed) and
// meets the rows of a tile in shared memory:
//
//     dot      s[own row][tile row] += <own, tile>
//     weigh    y[own row][feature]  += sum over tile rows of p[own row][tile row] tile[tile row][feature]
//
// s, p and y are in registers. Of each, a thread has `rows` rows, those at row(i), and in these the columns at
// column(m); `team` threads that are neighbours share a row. Where `copies<E>`, tiles hold rows of E as memory does.
namespace lightcone::kernels::cuda {

inline constexpr int warp_rows = 16;

/// A pack to shared memory in one access: one that is zero on some ways the compiler takes apart.
template <int V, class T>
__device__ void store_shared(T* to, const Pack<T, V>& pack) {
  if constexpr (V * sizeof(T) < 8) {
    store_word(to, pack);
  } else {
    const auto word = std::bit_cast<Word<V * sizeof(T)>>(pack);
    const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    if constexpr (V * sizeof(T) == 16)
      asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(word.x), "r"(word.y), "r"(word.z),
                   "r"(word.w)
                   : "memory");
    else
      asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at), "r"(word.x), "r"(word.y) : "memory");
  }
}

/// Rows of features in shared memory are a pack longer than needed, so that rows start in other banks.
template <class Sum, int D_, int tile_>
struct PlainProducts {
  using S = Sum;
  using Element = S;
  template <class E>
  static constexpr bool copies = std::is_same_v<E, Element>;
  static constexpr int D = D_, tile = tile_, rows = 4, team = 8, columns = tile / team, features = D / team;
  /// Two rows of 64 bytes that are written at once are to lie in different banks.
  static constexpr bool spread = sizeof(S) == 4 && D == 16;
  /// Rows of a tile that are read where n count; the others are zeros.
  static __device__ int rows_read(int) { return tile; }
  static constexpr int N = pack_size<S>, stride = D + N, p_stride = tile + 8;
  /// Elements that a warp needs for p on its way from one layout to the other.
  static constexpr int scratch = warp_rows * p_stride;

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int row(int i) { return lane() / team + 4 * i; }
  static __device__ int column(int m) { return lane() % team + team * m; }
  /// The features of a thread are W neighbours, then the next W ones 8 W further on.
  static constexpr int W = features < N ? features : N;
  static __device__ int feature(int m) { return (lane() % team + m / W * team) * W + m % W; }
  static __device__ int place(int row, int feature) { return row * stride + feature; }

  template <int V>
  static __device__ void put(Element* to, int row, int feature, const Pack<S, V>& x) {
    store_shared(to + place(row, feature), x);
  }

  struct Own {
    static constexpr bool kept = false;
    const Element* x;
    __device__ explicit Own(const Element* x) : x(x) {}
  };

  static __device__ void dot(const Own& own, const Element* tile_rows, int, S (&s)[rows][columns]) {
#pragma unroll 4
    for (int d = 0; d < D; d += N) {
      Pack<S, N> a[rows];
#pragma unroll
      for (int i = 0; i < rows; ++i) a[i] = load_word<N>(own.x + place(row(i), d));
#pragma unroll
      for (int m = 0; m < columns; ++m) {
        const auto b = load_word<N>(tile_rows + place(column(m), d));
#pragma unroll
        for (int i = 0; i < rows; ++i)
#pragma unroll
          for (int k = 0; k < N; ++k) s[i][m] += a[i].at[k] * b.at[k];
      }
    }
  }

  static __device__ void weigh(const S (&p)[rows][columns], const Element* tile_rows, int n, S* scratch,
                               S (&y)[rows][features]) {
    __syncwarp();  // all have read what was there
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int m = 0; m < columns; ++m) scratch[row(i) * p_stride + column(m)] = p[i][m];
    __syncwarp();
#pragma unroll 1
    for (int j = 0; j < n; j += N) {
      Pack<S, N> a[rows];
#pragma unroll
      for (int i = 0; i < rows; ++i) a[i] = load_word<N>(scratch + row(i) * p_stride + j);
#pragma unroll
      for (int k = 0; k < N; ++k)
#pragma unroll
        for (int m = 0; m < features; m += W) {
          const auto b = load_word<W>(tile_rows + place(j + k, feature(m)));
#pragma unroll
          for (int i = 0; i < rows; ++i)
#pragma unroll
            for (int w = 0; w < W; ++w) y[i][m + w] += a[i].at[k] * b.at[w];
        }
    }
  }
};

__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
template <bool transposed>
__device__ void load_matrices(const void* row, uint32_t (&x)[4]) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}
/// c += a b with a of 16 x 16 and b of 16 x 8 numbers in bf16.
__device__ inline void multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float& c0, float& c1, float& c2,
                                float& c3) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// A row's units of 16 bytes are permuted, so that eight rows' units of one column lie in different banks.
template <int D_, int tile_>
struct TensorProducts {
  using S = float;
  using Element = bf16;
  template <class E>
  static constexpr bool copies = std::is_same_v<E, Element>;
  static constexpr int D = D_, tile = tile_, rows = 2, team = 4, columns = tile / team, features = D / team, stride = D;
  static constexpr bool spread = false;
  static constexpr int scratch = 0;
  static __device__ int rows_read(int n) { return (n + 15) / 16 * 16; }

  static __device__ int lane() { return threadIdx.x % 32; }
  /// The same, asked anew: for wide heads, so that addresses made of it do not stay in registers.
  static __device__ int lane_again() {
    if constexpr (D <= 64) return lane();
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
  }
  static __device__ int row(int i) { return lane() / team + 8 * i; }
  static __device__ int column(int m) { return m / 2 * 8 + lane() % team * 2 + m % 2; }
  static constexpr int W = 2;
  static __device__ int feature(int m) { return column(m); }
  static __device__ int place(int row, int feature) {
    constexpr int units = D / 8;
    const int turn = units < 8 ? row / (8 / units) % units : row % 8;
    return row * D + ((feature / 8 ^ turn) * 8 + feature % 8);
  }

  template <int V>
  static __device__ void put(Element* to, int row, int feature, const Pack<S, V>& x) {
    if constexpr (V == 1) {
      to[place(row, feature)] = bf16(x.at[0]);
    } else {
      Pack<uint32_t, V / 2> out;
#pragma unroll
      for (int k = 0; k < V / 2; ++k) out.at[k] = pack_bf16(x.at[2 * k], x.at[2 * k + 1]);
      store_shared(reinterpret_cast<uint32_t*>(to + place(row, feature)), out);
    }
  }

  /// Operands of a warp's own rows: in registers, or, for wide heads, whose sums need these, read whenever they are used.
  struct Own {
    static constexpr bool kept = D <= 64;
    const Element* x;
    uint32_t a[kept ? D / 16 : 1][4];
    __device__ explicit Own(const Element* x) : x(x) {
      if constexpr (kept) {
#pragma unroll
        for (int d = 0; d < D; d += 16) load(d, a[d / 16], lane());
      }
    }
    __device__ void get(int d, uint32_t (&to)[4], int l) const {
      if constexpr (kept) {
#pragma unroll
        for (int k = 0; k < 4; ++k) to[k] = a[d / 16][k];
      } else {
        load(d, to, l);
      }
    }

   private:
    __device__ void load(int d, uint32_t (&to)[4], int l) const {
      load_matrices<false>(x + place(l % 16, d + l / 16 * 8), to);
    }
  };

  static __device__ void dot(const Own& own, const Element* tile_rows, int n, S (&s)[rows][columns]) {
    const int l = lane_again();
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      uint32_t a[4];
      own.get(d, a, l);
#pragma unroll
      for (int j = 0; j < tile; j += 16) {
        if (j >= n) break;
        uint32_t b[4];
        load_matrices<false>(tile_rows + place(j + l % 8 + l / 16 * 8, d + l / 8 % 2 * 8), b);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int m = j / 4 + 2 * half;
          multiply(a, b[2 * half], b[2 * half + 1], s[0][m], s[0][m + 1], s[1][m], s[1][m + 1]);
        }
      }
    }
  }

  static __device__ void weigh(const S (&p)[rows][columns], const Element* tile_rows, int n, S*,
                               S (&y)[rows][features]) {
    const int l = lane_again();
#pragma unroll
    for (int j = 0; j < tile; j += 16) {
      if (j >= n) break;
      const int m = j / 4;
      const uint32_t a[4] = {pack_bf16(p[0][m], p[0][m + 1]), pack_bf16(p[1][m], p[1][m + 1]),
                             pack_bf16(p[0][m + 2], p[0][m + 3]), pack_bf16(p[1][m + 2], p[1][m + 3])};
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        uint32_t b[4];
        load_matrices<true>(tile_rows + place(j + l % 16, d + l / 16 * 8), b);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int f = d / 4 + 2 * half;
          multiply(a, b[2 * half], b[2 * half + 1], y[0][f], y[0][f + 1], y[1][f], y[1][f + 1]);
        }
      }
    }
  }
};

}  // namespace lightcone::kernels::cuda
