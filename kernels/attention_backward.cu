#include "kernels/attention_backward.cuh"

#include "kernels/attention_launch.cuh"

namespace lightcone::kernels::cuda {

void attention_backward(Context& ctx, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, const Tensor& q_ptr, const Tensor& k_ptr,
                        double scale, const AttentionDropout& dropout, const Tensor& lse, Products products) {
  Tensor delta = ctx.empty(lse.shape(), lse.dtype());
  const int64_t heads = segments[0].q.heads, rows = segments[0].q.rows;
  // <dy, y> in the tokens' own frames: it is the same in the global one, but y would get there by an inverse that
  // g L^T g is only up to gamma^2 times rounding.
  dispatch_compute("attention", segments[0].q.tensor.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    launch(ctx, "attention_delta", attention_delta_kernel<E>, {blocks_for(rows * heads), block_threads},
           {gradients, &AttentionGradient::dy}, {segments, &AttentionSegment::y}, rows, static_cast<int>(heads),
           delta.data<sum_type<E>>());
  });
  if (segments[0].frames.matrices.defined() && !frames_move(segments, gradients, products))
    framed_backward(ctx, segments[0], gradients[0], q_ptr, scale, dropout, lse, delta, products);
  else
    backward(ctx, segments, gradients, q_ptr, k_ptr, scale, dropout, lse, delta, products);
}

void backward(Context& ctx, std::span<const AttentionSegment> segments, std::span<const AttentionGradient> gradients,
              const Tensor& q_ptr, const Tensor& k_ptr, double scale, const AttentionDropout& dropout,
              const Tensor& lse_of_forward, const Tensor& delta_of_rows, Products products) {
  const AttentionFrames& frames = segments[0].frames;
  const auto [q_size, v_size] = head_sizes(segments);
  const int64_t heads = segments[0].q.heads, key_heads = segments[0].k.heads;
  const DrawnNumbers numbers(ctx, dropout.draw);
  dispatch_attention(ctx, segments, products, [&](auto type, auto kind, auto cut) {
    using E = typename decltype(type)::type;
    using P = typename decltype(kind)::type;
    using S = sum_type<E>;
    constexpr bool chunked = decltype(cut)::value;
    Tensor lse = lse_of_forward, delta = delta_of_rows;
    const int64_t q_chunks = (q_size + P::D - 1) / P::D, v_chunks = (v_size + P::D - 1) / P::D,
                  chunks = std::max(q_chunks, v_chunks);
    DeviceItems queries(ctx, q_ptr, k_ptr, heads * q_chunks), keys(ctx, k_ptr, q_ptr, key_heads * chunks);
    BackwardArguments<E> arguments{
        .items = queries.data(),
        .heads = static_cast<int>(heads),
        .group = static_cast<int>(heads / key_heads),
        .q_chunks = static_cast<int>(q_chunks),
        .v_chunks = static_cast<int>(v_chunks),
        .all_keys = segments[0].k.rows,
        .q = {segments, &AttentionSegment::q, {}, moving(frames, FrameMap::to_global, false)},
        .k = {segments, &AttentionSegment::k, segments, moving(frames, FrameMap::to_global_lowered, false)},
        .v = {segments, &AttentionSegment::v, {}, moving(frames, FrameMap::to_global, false)},
        .dy = {gradients, &AttentionGradient::dy, {}, moving(frames, FrameMap::to_local, true)},
        .dq = {gradients, &AttentionGradient::dq, {}, moving(frames, FrameMap::to_global, true)},
        .dk = {gradients, &AttentionGradient::dk, segments, moving(frames, FrameMap::to_global_lowered, true)},
        .dv = {gradients, &AttentionGradient::dv, {}, moving(frames, FrameMap::to_global, true)},
        .lse = lse.data<S>(),
        .delta = delta.data<S>(),
        .scale = static_cast<S>(scale),
        .log2_scale = static_cast<S>(scale * M_LOG2E),
        .dropout = device_dropout<S>(dropout, numbers)};
    // Sums for two gradients leave the widest kernel registers for half a tile of p and ds.
    using KeyP = std::conditional_t<std::is_same_v<P, TensorProducts<128, 32>>, TensorProducts<128, 16>, P>;
    constexpr int stages = attention_stages<chunked>;
    launch_attention(ctx, "attention_backward_q", attention_backward_kernel<E, P, chunked, false>,
                     queries.count() * heads * q_chunks, AttentionMemory<P, 2, stages>::bytes, arguments);
    arguments.items = keys.data();
    launch_attention(ctx, "attention_backward_kv", attention_backward_kernel<E, KeyP, chunked, true>,
                     keys.count() * key_heads * chunks, AttentionMemory<KeyP, 2, stages>::bytes, arguments);
  });
}

}  // namespace lightcone::kernels::cuda
