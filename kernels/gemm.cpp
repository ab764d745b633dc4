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
    if (std::is_same_v<T, In> && !transposed && cols == tile_cols<T>) {
      for (int64_t p = 0; p < k; ++p, panels += tile_cols<T>)
        std::memcpy(panels, b + p * n + first, tile_cols<T> * sizeof(T));
      continue;
    }
    for (int64_t p = 0; p < k; ++p, panels += width) {
      for (int64_t j = 0; j < cols; ++j) panels[j] = T(b[transposed ? (first + j) * k + p : p * n + first + j]);
      std::fill(panels + cols, panels + width, T(0));
    }
  }
}

// c = a b or c += a b, b in panels; a [rows, k], or its transpose is [k, row].
template <class T, bool transposed>
void tiles(int64_t rows, int64_t k, const T* a, int64_t row, const T* panels, int64_t first, int64_t last, int64_t n,
           const T* bias, T* c, bool accumulate) {
  if (rows == 0) return;
  for (int64_t j = first; j < last; j += tile_cols<T>) {
    const int64_t cols = std::min<int64_t>(tile_cols<T>, last - j);
    const auto vectors = static_cast<int>((cols + lanes<T> - 1) / lanes<T>);
    const int64_t height = tile_rows[vectors - 1];
    const T* panel = panels + j * k;
    int64_t p = 0;
    do {  // once also if k is 0
      const int64_t depth = std::min(tile_depth, k - p);
      const bool ends = p + depth == k;
      // What follows in the panels is as large as this part, and perhaps still far away.
      const int64_t follows = depth * vectors * lanes<T>, all_lines = follows * sizeof(T) / 64;
      const int64_t lines = ends && j + tile_cols<T> >= last ? 0 : (all_lines * height + rows - 1) / rows;
      for (int64_t i = 0; i < rows; i += height)
        tile_of<T, transposed>(vectors, std::min(height, rows - i), depth,
                               transposed ? a + p * row + i : a + i * row + p, row, panel,
                               {c + i * n + j, n, cols, bias && ends ? bias + j : nullptr, accumulate || p > 0,
                                panel + follows + i / height * lines * (64 / sizeof(T)), lines});
      p += depth;
      panel += depth * vectors * lanes<T>;
    } while (p < k);
  }
}

template <class T>
void tokens_product(Context& ctx, int64_t tokens, int64_t n, int64_t k, const T* a, const T* b, T* c, bool accumulate) {
  auto panels = ctx.scratch<T>(panels_size<T>(k, tokens));
  pack(k, tokens, b, false, panels.data());
  tiles<T, true>(n, tokens, a, n, panels.data(), 0, k, k, nullptr, c, accumulate);
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

#if defined(__AMX_BF16__)
// Whether tiles of 32 x 32 are to multiply matrices of which one is n x k.
template <class P>
bool amx_pays(int64_t n, int64_t k) {
  // Smaller ones are faster as they are in f32.
  return amx_available() && (std::is_same_v<P, bf16> || (std::min(n, k) >= 32 && n * k >= 32 * 96));
}
#endif

}  // namespace

template <class P>
template <class In>
Panels<P>::Panels(Context& ctx, int64_t n, int64_t k, const In* b, bool transposed) : n_(n), k_(k) {
  using T = sum_type<P>;
#if defined(__AMX_BF16__)
  if constexpr (!std::is_same_v<P, double>)
    if (amx_pays<P>(n, k)) {
      storage_ = ctx.empty({tiled::right_size<P>(n, k)}, DType::bf16);
      auto pack = transposed ? tiled::pack_right_transposed<P, In> : tiled::pack_right<P, In>;
      pack(n, k, b, storage_.data<bf16>());
      return;
    }
#endif
  if constexpr (std::is_same_v<P, bf16>) {
    storage_ = ctx.empty({panels_size<T>(n, k)}, dtype_of<T>);
    pack(n, k, Rounded<In>(ctx, n * k, b).data(), transposed, storage_.data<T>());
  } else {
    storage_ = ctx.empty({panels_size<T>(n, k)}, dtype_of<T>);
    pack(n, k, b, transposed, storage_.data<T>());
  }
}

template <class P>
const bf16* Panels<P>::tiles() const {
  return storage_.dtype() == DType::bf16 ? storage_.data<bf16>() : nullptr;
}
template const bf16* Panels<float>::tiles() const;
template const bf16* Panels<bf16>::tiles() const;

template <class P, class In, class Out>
void multiply(Context& ctx, int64_t rows, const In* a, const Panels<P>& b, int64_t first, int64_t last,
              const sum_type<P>* bias, Out* c) {
  using T = sum_type<P>;
  const int64_t n = b.n(), k = b.k();
#if defined(__AMX_BF16__)
  if constexpr (!std::is_same_v<P, double>)
    if (const bf16* tiles = b.tiles()) {
      auto left = ctx.scratch<bf16>(tiled::left_size<P>(rows, k));
      tiled::pack_left<P>(rows, k, a, left.data());
      return tiled::multiply<P>(rows, k, left.data(), tiles, first, last, n, bias, false, c);
    }
#endif
  if constexpr (std::is_same_v<P, bf16>) {
    if constexpr (std::is_same_v<Out, bf16>) {
      auto sums = ctx.scratch<T>(rows * n);
      multiply(ctx, rows, a, b, first, last, bias, sums.data());
      for (int64_t i = 0; i < rows; ++i) convert(last - first, sums.data() + i * n + first, c + i * n + first);
    } else {
      tiles<T, false>(rows, k, Rounded<In>(ctx, rows * k, a).data(), k, b.storage().template data<T>(), first, last, n,
                      bias, c, false);
    }
  } else {
    tiles<T, false>(rows, k, a, k, b.storage().template data<T>(), first, last, n, bias, c, false);
  }
}

template <class P, class A, class B>
void multiply_tokens(Context& ctx, int64_t tokens, int64_t n, int64_t k, const A* a, const B* b, sum_type<P>* c,
                     bool accumulate) {
#if defined(__AMX_BF16__)
  if constexpr (!std::is_same_v<P, double>)
    if (amx_pays<P>(n, k)) {
      auto left = ctx.scratch<bf16>(tiled::left_size<P>(n, tokens)),
           right = ctx.scratch<bf16>(tiled::right_size<P>(k, tokens));
      tiled::pack_left_transposed<P>(n, tokens, a, left.data());
      tiled::pack_right<P>(k, tokens, b, right.data());
      return tiled::multiply<P>(n, tokens, left.data(), right.data(), 0, k, k, nullptr, accumulate, c);
    }
#endif
  if constexpr (std::is_same_v<P, bf16>) {
    tokens_product<float>(ctx, tokens, n, k, Rounded<A>(ctx, tokens * n, a).data(),
                          Rounded<B>(ctx, tokens * k, b).data(), c, accumulate);
  } else {
    tokens_product<P>(ctx, tokens, n, k, a, b, c, accumulate);
  }
}

#define LIGHTCONE_PANELS(P, In) template Panels<P>::Panels(Context&, int64_t, int64_t, const In*, bool);
#define LIGHTCONE_PRODUCTS(P, In, Out) \
  template void multiply(Context&, int64_t, const In*, const Panels<P>&, int64_t, int64_t, const sum_type<P>*, Out*);
#define LIGHTCONE_TOKENS(P, A, B) \
  template void multiply_tokens<P>(Context&, int64_t, int64_t, int64_t, const A*, const B*, sum_type<P>*, bool);
LIGHTCONE_PANELS(double, double)
LIGHTCONE_PANELS(float, float)
LIGHTCONE_PANELS(bf16, float)
LIGHTCONE_PANELS(bf16, bf16)
LIGHTCONE_PRODUCTS(double, double, double)
LIGHTCONE_PRODUCTS(float, float, float)
LIGHTCONE_PRODUCTS(bf16, float, float)
LIGHTCONE_PRODUCTS(bf16, float, bf16)
LIGHTCONE_PRODUCTS(bf16, bf16, float)
LIGHTCONE_PRODUCTS(bf16, bf16, bf16)
LIGHTCONE_TOKENS(double, double, double)
LIGHTCONE_TOKENS(float, float, float)
LIGHTCONE_TOKENS(bf16, float, float)
LIGHTCONE_TOKENS(bf16, float, bf16)
LIGHTCONE_TOKENS(bf16, bf16, float)
LIGHTCONE_TOKENS(bf16, bf16, bf16)
#undef LIGHTCONE_PANELS
#undef LIGHTCONE_PRODUCTS
#undef LIGHTCONE_TOKENS

}  // namespace lightcone::kernels::gemm
