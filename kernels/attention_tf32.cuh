#pragma once
#include "kernels/attention_products.cuh"

namespace lightcone::kernels::cuda {

__device__ inline float round_to_tf32(float x) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return __uint_as_float(rounded);
}
/// c += a b with a of 16 x 8 and b of 8 x 8 numbers in tf32.
__device__ inline void multiply_tf32(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float& c0, float& c1, float& c2,
                                     float& c3) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Those of tensor cores with f32 operands, rounded to tf32 where they enter. Rows are a unit of 16 bytes longer than
/// needed: eight rows' units of one column lie in different banks, and so do four pairs of rows' neighbouring features.
template <int D_, int tile_>
struct Tf32Products {
  using S = float;
  using Element = float;
  static constexpr int D = D_, tile = tile_, rows = 2, team = 4, columns = tile / team, features = D / team,
                       stride = D + 4, scratch = 0;
  template <class E>
  static constexpr bool copies = false;
  static constexpr bool spread = D_ == 16;
  static __device__ int rows_read(int n) { return (n + 7) / 8 * 8; }

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int row(int i) { return lane() / team + 8 * i; }
  static __device__ int column(int m) { return m / 2 * 8 + lane() % team * 2 + m % 2; }
  static constexpr int W = 2;
  static __device__ int feature(int m) { return column(m); }
  static __device__ int place(int row, int feature) { return row * stride + feature; }

  template <int V>
  static __device__ void put(Element* to, int row, int feature, const Pack<S, V>& x) {
    Pack<S, V> rounded;
#pragma unroll
    for (int k = 0; k < V; ++k) rounded.at[k] = round_to_tf32(x.at[k]);
    store_shared(to + place(row, feature), rounded);
  }

  /// A warp's own rows, read whenever they are used.
  struct Own {
    static constexpr bool kept = false;
    const Element* x;
    __device__ explicit Own(const Element* x) : x(x) {}
    __device__ void get(int d, uint32_t (&to)[4]) const {
      load_matrices<false>(x + place(lane() % 16, d + lane() / 16 * 4), to);
    }
  };

  static __device__ void dot(const Own& own, const Element* tile_rows, int n, S (&s)[rows][columns]) {
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      uint32_t a[2][4];
      own.get(d, a[0]);
      own.get(d + 8, a[1]);
#pragma unroll
      for (int j = 0; j < tile; j += 8) {
        if (j >= n) break;
        uint32_t b[4];
        load_matrices<false>(tile_rows + place(j + lane() % 8, d + lane() / 8 * 4), b);
        const int m = j / 4;
#pragma unroll
        for (int half = 0; half < 2; ++half)
          multiply_tf32(a[half], b[2 * half], b[2 * half + 1], s[0][m], s[0][m + 1], s[1][m], s[1][m + 1]);
      }
    }
  }

  /// p stays where dot() leaves it: of eight tile rows, a thread's two columns 2 t and 2 t + 1 stand for t and t + 4.
  static __device__ void weigh(const S (&p)[rows][columns], const Element* tile_rows, int n, S*,
                               S (&y)[rows][features]) {
#pragma unroll
    for (int j = 0; j < tile; j += 8) {
      if (j >= n) break;
      const int m = j / 4;
      const uint32_t a[4] = {__float_as_uint(round_to_tf32(p[0][m])), __float_as_uint(round_to_tf32(p[1][m])),
                             __float_as_uint(round_to_tf32(p[0][m + 1])), __float_as_uint(round_to_tf32(p[1][m + 1]))};
      const Element* b = tile_rows + place(j + lane() % team * 2, lane() / team);
#pragma unroll
      for (int d = 0; d < D; d += 8) {
        const int f = d / 4;
        multiply_tf32(a, __float_as_uint(b[d]), __float_as_uint(b[stride + d]), y[0][f], y[0][f + 1], y[1][f],
                      y[1][f + 1]);
      }
    }
  }
};

}  // namespace lightcone::kernels::cuda
