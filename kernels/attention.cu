#include "kernels/attention_forward.cuh"
#include "kernels/attention_launch.cuh"

namespace lightcone::kernels::cuda {

void attention(Context& ctx, std::span<const AttentionSegment> segments, const Tensor& q_ptr, const Tensor& k_ptr,
               double scale, const AttentionDropout& dropout, Tensor& lse, Products products) {
  const AttentionFrames& frames = segments[0].frames;
  if (frames.matrices.defined() && !frames_move(segments, {}, products))
    return framed_attention(ctx, segments[0], q_ptr, scale, dropout, lse, products);
  const auto [q_size, v_size] = head_sizes(segments);
  const DrawnNumbers numbers(ctx, dropout.draw);
  dispatch_attention(ctx, segments, products, [&](auto type, auto kind, auto cut) {
    using E = typename decltype(type)::type;
    using P = typename decltype(kind)::type;
    using S = sum_type<E>;
    const int64_t q_chunks = (q_size + P::D - 1) / P::D, v_chunks = (v_size + P::D - 1) / P::D,
                  heads = segments[0].q.heads;
    DeviceItems items(ctx, q_ptr, k_ptr, heads * v_chunks);
    const ForwardArguments<E> arguments{
        .items = items.data(),
        .heads = static_cast<int>(heads),
        .group = static_cast<int>(heads / segments[0].k.heads),
        .q_chunks = static_cast<int>(q_chunks),
        .v_chunks = static_cast<int>(v_chunks),
        .all_keys = segments[0].k.rows,
        .q = {segments, &AttentionSegment::q, {}, moving(frames, FrameMap::to_global, false)},
        .k = {segments, &AttentionSegment::k, segments, moving(frames, FrameMap::to_global_lowered, false)},
        .v = {segments, &AttentionSegment::v, {}, moving(frames, FrameMap::to_global, false)},
        .y = {segments, &AttentionSegment::y, {}, moving(frames, FrameMap::to_local, false)},
        .lse = lse.data<S>(),
        .log2_scale = static_cast<S>(scale * M_LOG2E),
        .dropout = device_dropout<S>(dropout, numbers)};
    launch_attention(ctx, "attention", attention_kernel<E, P, decltype(cut)::value>, items.count() * heads * v_chunks,
                     AttentionMemory<P, 1, attention_stages<decltype(cut)::value>>::bytes, arguments);
  });
}

}  // namespace lightcone::kernels::cuda
