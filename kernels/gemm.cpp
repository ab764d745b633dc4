#include "kernels/gemm.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm_amx.h"
#include "kernels/gemm_tile.h"

namespace lightcone::kernels::gemm {
namespace {

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Panels of tile_cols columns [k, tile_cols], one after the other; the last has one vector of columns if that is
// enough. Missing columns are zeros.
template <class T>
int64_t panels_size(int64_t n, int64_t k) {
  return round_up(n, lanes<T>) * k;
}

template <class T, class In>
void pack(int64_t n, int64_t k, const In* b, bool transposed, T* panels) {
  for (int64_t first = 0; first < n; first += tile_cols<T>) {
    const int64_t cols = std::min<int64_t>(tile_cols<T>, n - first), width = round_up(cols, lanes<T>);
    for (int64_t p = 0; p < k; ++p, panels += width) {
      for (int64_t j = 0; j < cols; ++j) panels[j] = T(b[transposed ? (first + j) * k + p : p * n + first + j]);
      std::fill(panels + cols, panels + width, T(0));
    }
  }
}

// c = a b or c += a b, b in panels; a [rows, k], or packed: groups of tile_rows rows, each [k, tile_rows].
template <class T, bool packed>
void tiles(int64_t rows, int64_t k, const T* a, const T* panels, int64_t first, int64_t last, int64_t n, const T* bias,
           T* c, bool accumulate) {
  for (int64_t j = first; j < last; j += tile_cols<T>) {
    const int64_t cols = std::min<int64_t>(tile_cols<T>, last - j);
    for (int64_t i = 0; i < rows; i += tile_rows)
      tile_of<T, packed>(std::min<int64_t>(tile_rows, rows - i), k, a + i * k, k, panels + j * k,
                         {c + i * n + j, n, cols, bias ? bias + j : nullptr, accumulate});
  }
}

template <class T>
void pack_rows(int64_t tokens, int64_t n, const T* a, T* packed) {
  for (int64_t first = 0; first < n; first += tile_rows) {
    const int64_t rows = std::min<int64_t>(tile_rows, n - first);
    if (rows == tile_rows) {
      for (int64_t t = 0; t < tokens; ++t, packed += tile_rows)
        std::memcpy(packed, a + t * n + first, tile_rows * sizeof(T));
    } else {
      for (int64_t t = 0; t < tokens; ++t, packed += tile_rows) std::copy_n(a + t * n + first, rows, packed);
    }
  }
}

template <class T>
void tokens_product(Context& ctx, int64_t tokens, int64_t n, int64_t k, const T* a, const T* b, T* c, bool accumulate) {
  auto rows = ctx.scratch<T>(round_up(n, tile_rows) * tokens), panels = ctx.scratch<T>(panels_size<T>(k, tokens));
  pack_rows(tokens, n, a, rows.data());
  pack(k, tokens, b, false, panels.data());
  tiles<T, true>(n, tokens, rows.data(), panels.data(), 0, k, k, nullptr, c, accumulate);
}

// A factor of a bf16 product without tiles of its own: rounded, in f32.
template <class In>
class Rounded {
 public:
  Rounded(Context& ctx, int64_t count, const In* x) : values_(ctx, count) {
    std::transform(x, x + count, values_.data(), [](In v) { return float(bf16(v)); });
  }
  const float* data() { return values_.data(); }

 private:
  Context::Scratch<float> values_;
};

}  // namespace

template <class P>
template <class In>
Panels<P>::Panels(Context& ctx, int64_t n, int64_t k, const In* b, bool transposed) : n_(n), k_(k) {
  using T = sum_type<P>;
  if constexpr (std::is_same_v<P, bf16>) {
#ifdef LIGHTCONE_AMX
    if (amx::available()) {
      storage_ = ctx.empty({tiled::right_size(n, k)}, DType::bf16);
      auto pack = transposed ? tiled::pack_right_transposed<In> : tiled::pack_right<In>;
      pack(n, k, b, storage_.data<bf16>());
      return;
    }
#endif
    storage_ = ctx.empty({panels_size<T>(n, k)}, dtype_of<T>);
    pack(n, k, Rounded<In>(ctx, n * k, b).data(), transposed, storage_.data<T>());
  } else {
    storage_ = ctx.empty({panels_size<T>(n, k)}, dtype_of<T>);
    pack(n, k, b, transposed, storage_.data<T>());
  }
}

template <class P, class In>
void multiply(Context& ctx, int64_t rows, const In* a, const Panels<P>& b, int64_t first, int64_t last,
              const sum_type<P>* bias, sum_type<P>* c) {
  using T = sum_type<P>;
  const int64_t n = b.n(), k = b.k();
  if constexpr (std::is_same_v<P, bf16>) {
#ifdef LIGHTCONE_AMX
    if (amx::available()) {
      auto left = ctx.scratch<bf16>(tiled::left_size(rows, k));
      tiled::pack_left(rows, k, a, left.data());
      return tiled::multiply(rows, k, left.data(), b.storage().template data<bf16>(), first, last, n, bias, false, c);
    }
#endif
    tiles<T, false>(rows, k, Rounded<In>(ctx, rows * k, a).data(), b.storage().template data<T>(), first, last, n, bias,
                    c, false);
  } else {
    tiles<T, false>(rows, k, a, b.storage().template data<T>(), first, last, n, bias, c, false);
  }
}

template <class P, class In>
void multiply_tokens(Context& ctx, int64_t tokens, int64_t n, int64_t k, const In* a, const In* b, sum_type<P>* c,
                     bool accumulate) {
  if constexpr (std::is_same_v<P, bf16>) {
#ifdef LIGHTCONE_AMX
    if (amx::available()) {
      auto left = ctx.scratch<bf16>(tiled::left_size(n, tokens)),
           right = ctx.scratch<bf16>(tiled::right_size(k, tokens));
      tiled::pack_left_transposed(n, tokens, a, left.data());
      tiled::pack_right(k, tokens, b, right.data());
      return tiled::multiply(n, tokens, left.data(), right.data(), 0, k, k, nullptr, accumulate, c);
    }
#endif
    tokens_product<float>(ctx, tokens, n, k, Rounded<In>(ctx, tokens * n, a).data(),
                          Rounded<In>(ctx, tokens * k, b).data(), c, accumulate);
  } else {
    tokens_product<P>(ctx, tokens, n, k, a, b, c, accumulate);
  }
}

#define LIGHTCONE_PRODUCTS(P, In)                                                                              \
  template Panels<P>::Panels(Context&, int64_t, int64_t, const In*, bool);                                     \
  template void multiply(Context&, int64_t, const In*, const Panels<P>&, int64_t, int64_t, const sum_type<P>*, \
                         sum_type<P>*);                                                                        \
  template void multiply_tokens<P, In>(Context&, int64_t, int64_t, int64_t, const In*, const In*, sum_type<P>*, bool);
LIGHTCONE_PRODUCTS(double, double)
LIGHTCONE_PRODUCTS(float, float)
LIGHTCONE_PRODUCTS(bf16, float)
LIGHTCONE_PRODUCTS(bf16, bf16)
#undef LIGHTCONE_PRODUCTS

}  // namespace lightcone::kernels::gemm
