#include "kernels/attention_launch.cuh"
#include "kernels/frames.h"

// Local frames that do not act while features move: q, k, v and dy go through a dense copy in the type of the sums,
// [rows, heads size], which frames_transform() takes to the global frame; results go the other way.
namespace lightcone::kernels::cuda {

bool frames_move(std::span<const AttentionSegment> segments, std::span<const AttentionGradient> gradients,
                 Products products) {
  const TensorReps& reps = segments[0].frames.reps;
  if (reps.invariant()) return true;
  const DType dtype = segments[0].q.tensor.dtype();
  if (dtype == DType::f64 || !frames_math::in_fours(reps) ||
      reps.dim() > widest_head(sum_dtype(dtype), in_bf16(reps.dim(), products)))
    return false;
  // Four features of a vector come and go together.
  auto in_packs = [&](auto views, auto... view) {
    bool packs = true;
    dispatch_compute("attention", dtype, [&](auto type) {
      using E = typename decltype(type)::type;
      packs = ((DeviceFeatures<E>(views, view).width != Width::one) && ...);
    });
    return packs;
  };
  return in_packs(segments, &AttentionSegment::q, &AttentionSegment::k, &AttentionSegment::v, &AttentionSegment::y) &&
         (gradients.empty() || in_packs(gradients, &AttentionGradient::dy, &AttentionGradient::dq,
                                        &AttentionGradient::dk, &AttentionGradient::dv));
}

namespace {

// A thread takes features of the copy in order; consecutive ones are neighbours in the view, too.
template <bool out, class E, class S>
__global__ void dense_copy_kernel(const __grid_constant__ DeviceFeatures<E> view, int64_t rows, int64_t columns,
                                  S* dense) {
  for (Place place(columns); place.row < rows; place.next()) {
    const auto head = static_cast<int>(place.col / view.size);
    const auto at = view.place(static_cast<int>(place.col - int64_t{head} * view.size), head);
    E& x = at.at[place.row * at.row];
    S& copy = dense[place.row * columns + place.col];
    if constexpr (out)
      x = E(at.negative ? -copy : copy);
    else
      copy = at.negative ? -S(x) : S(x);
  }
}

class Frames {
 public:
  Frames(Context& ctx, const AttentionFrames& frames, DType dtype) : ctx_(ctx), frames_(frames), dtype_(dtype) {}

  /// Room for the features of a view.
  HeadView dense(const HeadView& like) {
    return head_view(ctx_.empty({like.rows, like.heads * like.channels}, sum_dtype(dtype_)), Layout::scalars, 0,
                     like.heads, like.channels);
  }
  HeadView in(const HeadView& view, FrameMap map, bool backward, uint32_t negative_parts = 0) {
    HeadView to = dense(view);
    copy<false>(view, negative_parts, to);
    transform(to, map, backward);
    return to;
  }
  void out(HeadView from, const HeadView& view, FrameMap map, bool backward, uint32_t negative_parts = 0) {
    transform(from, map, backward);
    copy<true>(view, negative_parts, from);
  }
  /// q, k and v in the global frame.
  AttentionSegment global(const AttentionSegment& s) {
    AttentionSegment segment;
    segment.q = in(s.q, FrameMap::to_global, false);
    segment.k = in(s.k, FrameMap::to_global_lowered, false, s.negative_parts);
    segment.v = in(s.v, FrameMap::to_global, false);
    return segment;
  }

 private:
  void transform(HeadView& x, FrameMap map, bool backward) {
    (backward ? frames_transform_backward : frames_transform)(ctx_, x.tensor, frames_.matrices, frames_.reps, map,
                                                              x.tensor);
  }
  template <bool out>
  void copy(const HeadView& view, uint32_t negative_parts, HeadView& dense) {
    AttentionSegment segment;
    segment.q = view;
    segment.negative_parts = negative_parts;
    const std::span<const AttentionSegment> segments(&segment, 1);
    const int64_t columns = view.heads * view.channels;
    dispatch_compute("attention", dtype_, [&](auto type) {
      using E = typename decltype(type)::type;
      using S = sum_type<E>;
      launch(ctx_, "attention_dense_copy", dense_copy_kernel<out, E, S>,
             {blocks_for(view.rows * columns), block_threads}, {segments, &AttentionSegment::q, segments}, view.rows,
             columns, dense.tensor.template data<S>());
    });
  }
  Context& ctx_;
  const AttentionFrames& frames_;
  DType dtype_;
};

}  // namespace

void framed_attention(Context& ctx, const AttentionSegment& s, const Tensor& ptr, double scale,
                      const AttentionDropout& dropout, Tensor& lse, Products products) {
  Frames frames(ctx, s.frames, s.q.tensor.dtype());
  AttentionSegment global = frames.global(s);
  global.y = frames.dense(s.y);
  cuda::attention(ctx, {&global, 1}, ptr, ptr, scale, dropout, lse, products);
  frames.out(global.y, s.y, FrameMap::to_local, false);
}

void framed_backward(Context& ctx, const AttentionSegment& s, const AttentionGradient& g, const Tensor& ptr,
                     double scale, const AttentionDropout& dropout, const Tensor& lse, const Tensor& delta,
                     Products products) {
  Frames frames(ctx, s.frames, s.q.tensor.dtype());
  const AttentionSegment global = frames.global(s);
  const AttentionGradient gradient{frames.in(g.dy, FrameMap::to_local, true), frames.dense(g.dq), frames.dense(g.dk),
                                   frames.dense(g.dv)};
  backward(ctx, {&global, 1}, {&gradient, 1}, ptr, ptr, scale, dropout, lse, delta, products);
  frames.out(gradient.dq, g.dq, FrameMap::to_global, true);
  frames.out(gradient.dk, g.dk, FrameMap::to_global_lowered, true, s.negative_parts);
  frames.out(gradient.dv, g.dv, FrameMap::to_global, true);
}

}  // namespace lightcone::kernels::cuda
