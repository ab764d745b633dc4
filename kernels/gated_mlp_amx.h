#pragma once
#include <algorithm>

#include "kernels/gated_unit_rows.h"
#include "kernels/gemm.h"
#include "kernels/gemm_amx_blocks.h"

#if defined(__AMX_BF16__)
/// The perceptron of gated_mlp.cpp through AMX tiles: while they multiply one block of 32 x 32, hidden values of the
/// block before it go through the gate and into the factors of the next products. Neither hidden values nor their
/// gradients are ever there as matrices.
namespace lightcone::kernels::gated {

/// parts: 4 components of vectors or 1 of scalars; a token has as many rows. P: the type of factors, f32 or bf16.
template <int parts, class P>
class TiledPerceptron {
  static constexpr int64_t inputs = gated::inputs<parts>;

 public:
  /// All that belongs to so many rows stays in the second-level cache.
  static constexpr int64_t most_rows = 64;

  static bool fits(const gemm::Panels<P>& up, const gemm::Panels<P>& down) {
    return up.tiles() && down.tiles() && down.k() % 32 == 0;
  }

  TiledPerceptron(Context& ctx, int64_t K, int64_t H, Unary f, bool backward)
      : K_(K),
        H_(H),
        f_(f),
        normed_(ctx, left_size(most_rows, K)),
        result_(ctx, left_size(most_rows, H)),
        normed_turned_(ctx, backward ? left_size(K, most_rows) : 0),
        gradient_(ctx, backward ? left_size(most_rows, K) : 0),
        gradient_turned_(ctx, backward ? left_size(K, most_rows) : 0),
        hidden_(ctx, backward ? left_size(most_rows, inputs * H) : 0),
        hidden_right_(ctx, backward ? left_size(inputs * H, most_rows) : 0) {}

  /// down(unit(up(normed))) + down_bias; bias null for none.
  void forward(int64_t rows, const float* normed, const gemm::Panels<P>& up, const float* up_bias,
               const gemm::Panels<P>& down, const float* down_bias, float* y) {
    gemm::tiled::pack_left<P>(rows, K_, normed, normed_.data());
    const gemm::tiled::LeftWriter<P> result{result_.data(), H_ / 32};
    for_blocks(rows, up, up_bias, nullptr, [&](int64_t row, int64_t g, const Block* in) {
      alignas(64) float gate[64];
      arguments(in, gate);
      activate<float>(f_, 64, gate, gate, nullptr);
      for (int r = 0; r < slice_rows; ++r) {
        auto half = [&](int h) { return gemm::tiled::split<P>(at(in[0], r, h) * at(gate, r / parts, h)); };
        result.put(row + r, g, half(0), half(1));
      }
    });
    gemm::tiled::multiply<P>(rows, H_, result_.data(), down.tiles(), 0, K_, K_, down_bias, false, y);
  }

  /// Gradients, of which those of weights are added to what is there unless `fresh`: d_up [K, inputs H] (turned),
  /// d_up_bias [inputs H], d_down [K, H], each may be null. `to_hidden` and `to_x` are panels of down and up.
  void backward(int64_t rows, const float* normed, const float* dy, const gemm::Panels<P>& up, const float* up_bias,
                const gemm::Panels<P>& to_hidden, const gemm::Panels<P>& to_x, bool fresh, float* d_up,
                float* d_up_bias, float* d_down, float* dnormed) {
    using namespace gemm::tiled;
    pack_left<P>(rows, K_, normed, normed_.data());
    pack_left<P>(rows, K_, dy, gradient_.data());
    const int64_t depth = blocks(rows, 32), G = H_ / 32;
    const RightWriter<P> result{result_.data(), depth}, right{hidden_right_.data(), depth};
    const LeftWriter<P> left{hidden_.data(), inputs * G};
    if (d_up_bias && fresh) std::fill_n(d_up_bias, inputs * H_, 0.f);
    for_blocks(rows, up, up_bias, &to_hidden, [&](int64_t row, int64_t g, const Block* in) {
      alignas(64) float gate[64], slope[64];
      const float* dh = in[inputs];
      arguments(in, gate);
      activate<float>(f_, 64, gate, gate, slope);
      // slope: the gradient of the unit's argument
      for (int t = 0; t < slice_tokens; ++t)
        for (int h = 0; h < 2; ++h) {
          __m512 sum = at(dh, t * parts, h) * at(in[0], t * parts, h);
          for (int p = 1; p < parts; ++p) sum += at(dh, t * parts + p, h) * at(in[0], t * parts + p, h);
          _mm512_store_ps(slope + t * 32 + h * 16, at(slope, t, h) * sum);
        }
      for (int r = 0; r < slice_rows; r += 2) {
        // `of`(r, h) of two rows, as columns [32 column, …) of both factors.
        auto put = [&](int64_t column, auto of) {
          const Parts<P> even[2] = {split<P>(of(r, 0)), split<P>(of(r, 1))},
                         odd[2] = {split<P>(of(r + 1, 0)), split<P>(of(r + 1, 1))};
          left.put(row + r, column, even[0], even[1]);
          left.put(row + r + 1, column, odd[0], odd[1]);
          right.put(row + r, column, even, odd);
          if (d_up_bias)
            for (int h = 0; h < 2; ++h) {
              float* sum = d_up_bias + column * 32 + h * 16;
              _mm512_storeu_ps(sum, _mm512_loadu_ps(sum) + (of(r, h) + of(r + 1, h)));
            }
        };
        auto times_gate = [&](const float* x) {
          return [=, &gate](int r, int h) { return at(x, r, h) * at(gate, r / parts, h); };
        };
        auto of_result = times_gate(in[0]);
        result.put(row + r, g, {split<P>(of_result(r, 0)), split<P>(of_result(r, 1))},
                   {split<P>(of_result(r + 1, 0)), split<P>(of_result(r + 1, 1))});
        put(g, times_gate(dh));
        if constexpr (parts == 4) {
          auto product = [&](const float* other) {
            return [=, &slope](int r, int h) {
              const __m512 d = at(slope, r / 4, h) * at(other, r, h);
              return r % 4 == 0 ? d : -d;
            };
          };
          put(G + g, product(in[2]));
          put(2 * G + g, product(in[1]));
        } else {
          put(G + g, [&](int r, int h) { return at(slope, r, h); });
        }
      }
    });
    if (d_down) {
      pack_left_transposed<P>(K_, rows, dy, gradient_turned_.data());
      multiply<P>(K_, rows, gradient_turned_.data(), result_.data(), 0, H_, H_, nullptr, !fresh, d_down);
    }
    if (d_up) {
      pack_left_transposed<P>(K_, rows, normed, normed_turned_.data());
      multiply<P>(K_, rows, normed_turned_.data(), hidden_right_.data(), 0, inputs * H_, inputs * H_, nullptr, !fresh,
                  d_up);
    }
    multiply<P>(rows, inputs * H_, hidden_.data(), to_x.tiles(), 0, K_, K_, nullptr, false, dnormed);
  }

 private:
  using Block = float[32 * 32];
  // Of 64 hidden values, for which activate() is made.
  static constexpr int slice_tokens = 2, slice_rows = slice_tokens * parts;

  static __m512 at(const float* x, int row, int half) { return _mm512_load_ps(x + row * 32 + half * 16); }
  static int64_t left_size(int64_t rows, int64_t k) { return gemm::tiled::left_size<P>(rows, k); }

  // What f takes, of a slice.
  static void arguments(const Block* in, float* u) {
    const float *a = in[1], *b = in[2];
    for (int t = 0; t < slice_tokens; ++t)
      for (int h = 0; h < 2; ++h) {
        __m512 sum = at(a, t * parts, h);
        if constexpr (parts == 4) {
          sum *= at(b, t * parts, h);
          for (int p = 1; p < 4; ++p) sum -= at(a, t * parts + p, h) * at(b, t * parts + p, h);
        }
        _mm512_store_ps(u + t * 32 + h * 16, sum);
      }
  }

  // finish(first row, g, inputs) for slices of rows of channels [32 g, 32 g + 32): of each input of the unit, and of
  // the gradient of its result if `to_hidden`.
  template <class F>
  void for_blocks(int64_t rows, const gemm::Panels<P>& up, const float* bias, const gemm::Panels<P>* to_hidden,
                  F&& finish) {
    using namespace gemm::tiled;
    const WholeTiles tiles;
    constexpr int slices = 32 / slice_rows;
    alignas(64) Block sums[2][inputs + 1];
    const Block* done = nullptr;
    int64_t done_row = 0, done_g = 0, slice = slices;
    auto work = [&]() __attribute__((noinline)) {
      Block const* in = done;
      // The slice's place in every block.
      const float* shifted = in[0] + slice * slice_rows * 32;
      finish(done_row + slice * slice_rows, done_g, reinterpret_cast<const Block*>(shifted));
      ++slice;
    };
    auto meanwhile = [&] {
      if (slice < slices) work();
    };
    auto finish_all = [&] {
      while (slice < slices) work();
    };
    const int64_t depth = blocks(K_, 32), G = H_ / 32;
    int turn = 0;
    finish_writes();
    for (int64_t g = 0; g < G; ++g)
      for (int64_t i = 0; i < blocks(rows, 32); ++i, turn ^= 1) {
        for (int64_t input = 0; input < inputs; ++input) {
          bias ? load_sums(bias + input * H_ + g * 32, 0) : zero_sums();
          add_block<P>(normed_.data(), up.tiles(), depth, i, input * G + g, meanwhile);
          store_sums(sums[turn][input], 32);
        }
        if (to_hidden) {
          zero_sums();
          add_block<P>(gradient_.data(), to_hidden->tiles(), depth, i, g, meanwhile);
          store_sums(sums[turn][inputs], 32);
        }
        finish_all();
        done = sums[turn], done_row = i * 32, done_g = g, slice = 0;
      }
    finish_all();
  }

  int64_t K_, H_;
  Unary f_;
  // Factors: left ones unless named otherwise; of the results, left in forward() and right in backward().
  Context::Scratch<bf16> normed_, result_, normed_turned_, gradient_, gradient_turned_, hidden_, hidden_right_;
};

}  // namespace lightcone::kernels::gated
#endif
