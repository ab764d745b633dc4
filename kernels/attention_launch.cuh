#pragma once
#include "kernels/attention_cuda.h"
#include "kernels/attention_products.cuh"
#include "kernels/attention_tf32.cuh"
#include "kernels/attention_work.cuh"

// What the launches of attention's forward and backward share.
namespace lightcone::kernels::cuda {

inline std::pair<int64_t, int64_t> head_sizes(std::span<const AttentionSegment> segments) {
  int64_t q = 0, v = 0;
  for (const AttentionSegment& s : segments) q += s.q.size(), v += s.v.size();
  return {q, v};
}
inline bool in_bf16(int64_t size, Products products) { return products == Products::bf16 && size > largest_exact_head; }

/// The features that the widest kernel of a sum's type holds; heads of more are cut.
inline int64_t widest_head(DType sums, bool bf16) { return bf16 ? 128 : sums == DType::f64 ? 32 : 64; }

/// f(E, P, whether the features are cut): as few instances as keep heads of the usual sizes from being padded much.
template <class F>
void dispatch_attention(const Context& ctx, std::span<const AttentionSegment> segments, Products products, F&& f) {
  const auto [q_size, v_size] = head_sizes(segments);
  const int64_t size = std::max(q_size, v_size);
  dispatch_compute("attention", segments[0].q.tensor.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using S = sum_type<E>;
    constexpr std::false_type whole;
    constexpr std::true_type cut;
    if constexpr (std::is_same_v<S, double>) {
      if (size <= 16) return f(type, Type<PlainProducts<S, 16, 32>>(), whole);
      return f(type, Type<PlainProducts<S, 32, 32>>(), cut);
    } else {
      if (in_bf16(size, products)) {
        if (size <= 16) return f(type, Type<TensorProducts<16, 64>>(), whole);
        if (size <= 32) return f(type, Type<TensorProducts<32, 64>>(), whole);
        if (size <= 64) return f(type, Type<TensorProducts<64, 64>>(), whole);
        return f(type, Type<TensorProducts<128, 32>>(), cut);
      }
      if constexpr (std::is_same_v<E, float>)
        if (ctx.tf32() && size > largest_exact_head) {
          if (size <= 16) return f(type, Type<Tf32Products<16, 64>>(), whole);
          if (size <= 32) return f(type, Type<Tf32Products<32, 64>>(), whole);
          return f(type, Type<Tf32Products<64, 32>>(), cut);
        }
      if (size <= 16) return f(type, Type<PlainProducts<S, 16, 32>>(), whole);
      if (size <= 32) return f(type, Type<PlainProducts<S, 32, 32>>(), whole);
      if (size <= 64) return f(type, Type<PlainProducts<S, 64, 32>>(), whole);
      return f(type, Type<PlainProducts<S, 128, 16>>(), cut);
    }
  });
}

template <class S>
DeviceDropout<S> device_dropout(const AttentionDropout& dropout, const Numbers& numbers) {
  return {numbers, dropout.probability,
          static_cast<uint32_t>(std::max(0., std::ceil(dropout.probability * 0x1p32) - 1)),
          static_cast<S>(1 / (1 - dropout.probability)), dropout.probability > 0};
}

/// The items of a launch, on the GPU.
class DeviceItems {
 public:
  DeviceItems(Context& ctx, const Tensor& own, const Tensor& other, int64_t blocks_per_item)
      : items_(attention_items(own.offsets(), other.offsets(), blocks_per_item)), device_(ctx, items_.size()) {
    if (!items_.empty()) ctx.allocator().copy_in(device_.data(), items_.data(), items_.size() * sizeof(AttentionItem));
  }
  int64_t count() const { return static_cast<int64_t>(items_.size()); }
  const AttentionItem* data() { return device_.data(); }

 private:
  std::vector<AttentionItem> items_;
  Context::Scratch<AttentionItem> device_;
};

template <class Arguments>
void launch_attention(Context& ctx, const char* name, void (*kernel)(Arguments), int64_t blocks, size_t shared,
                      const Arguments& arguments) {
  if (blocks == 0) return;
  // More than 48 KB a block have to be asked for.
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared)),
             name);
  launch(ctx, name, kernel, {blocks, attention_threads, shared}, arguments);
}

/// What local frames do while features move, for representations whose vectors lie in fours.
inline MovingFrames moving(const AttentionFrames& frames, FrameMap map, bool backward) {
  if (!frames.matrices.defined() || frames.reps.invariant()) return {};
  Tensor matrices = frames.matrices;
  int vectors_from = 0;
  for (const auto& term : frames.reps.terms())
    if (term.order == 0) vectors_from += static_cast<int>(term.dim());
  return {matrices.data<float>(), frames_math::form(map, backward), vectors_from};
}

/// Whether frames act while features move; other ones go through a dense copy (attention_framed.cu).
bool frames_move(std::span<const AttentionSegment> segments, std::span<const AttentionGradient> gradients,
                 Products products);

/// attention_backward() where delta = <dy, y> is known already.
void backward(Context& ctx, std::span<const AttentionSegment> segments, std::span<const AttentionGradient> gradients,
              const Tensor& q_ptr, const Tensor& k_ptr, double scale, const AttentionDropout& dropout,
              const Tensor& lse, const Tensor& delta, Products products);

void framed_attention(Context& ctx, const AttentionSegment& segment, const Tensor& ptr, double scale,
                      const AttentionDropout& dropout, Tensor& lse, Products products);
void framed_backward(Context& ctx, const AttentionSegment& segment, const AttentionGradient& gradient,
                     const Tensor& ptr, double scale, const AttentionDropout& dropout, const Tensor& lse,
                     const Tensor& delta, Products products);

}  // namespace lightcone::kernels::cuda
