#include "kernels/attention.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "kernels/attention_cpu.h"
#include "kernels/attention_cuda.h"
#include "kernels/segment.h"

namespace lightcone::kernels {

HeadView head_view(const Tensor& tensor, Layout layout, int64_t column, int64_t heads, int64_t channels) {
  Check("attention", "a view", tensor).rank(layout == Layout::scalars ? 2 : 3);
  if (layout == Layout::heads) {
    const int64_t rows = tensor.dim(1), first = channels > 0 ? column / channels : 0;
    if (channels < 1 || tensor.dim(2) != channels || column < 0 || heads < 1 || first + heads > tensor.dim(0))
      fail("attention", "{} heads of {} channels from head {} are not in {}", heads, channels, first, tensor.shape());
    return {.tensor = tensor,
            .rows = rows,
            .heads = heads,
            .channels = channels,
            .offset = first * rows * channels,
            .row_stride = channels,
            .head_stride = rows * channels};
  }
  const int64_t columns = tensor.dim(-1);
  if (column < 0 || heads < 1 || channels < 1 || column + heads * channels > columns)
    fail("attention", "{} heads of {} channels from column {} do not fit into {} columns", heads, channels, column,
         columns);
  HeadView v{.tensor = tensor, .heads = heads, .channels = channels, .offset = column, .head_stride = channels};
  v.rows = tensor.dim(layout == Layout::multivectors ? 1 : 0);
  v.parts = layout == Layout::scalars ? 1 : tensor.dim(layout == Layout::vectors ? 1 : 0);
  v.row_stride = layout == Layout::vectors ? v.parts * columns : columns;
  v.part_stride = layout == Layout::multivectors ? v.rows * columns : columns;
  return v;
}

namespace {
struct Sizes {
  int64_t q_rows, k_rows, heads, kv_heads, q_size = 0, v_size = 0;
  double pairs = 0;  ///< of queries and keys, over all heads
};

/// "q of segment 0" and so on, written out: these checks run for every call, which can be short.
enum class View { q, k, v, y, dy, dq, dk, dv };
const char* name_of(View view, size_t segment) {
#define LIGHTCONE_VIEW(name) \
  { #name " of segment 0", #name " of segment 1", #name " of segment 2", #name " of segment 3" }
  static constexpr const char* names[][4] = {LIGHTCONE_VIEW(q),  LIGHTCONE_VIEW(k),  LIGHTCONE_VIEW(v),
                                             LIGHTCONE_VIEW(y),  LIGHTCONE_VIEW(dy), LIGHTCONE_VIEW(dq),
                                             LIGHTCONE_VIEW(dk), LIGHTCONE_VIEW(dv)};
#undef LIGHTCONE_VIEW
  return names[static_cast<int>(view)][segment];
}

/// Demands that a view has these rows and heads, the size of `like`, its dtype, and lies inside of its tensor.
void check_view(const Context& ctx, const char* operation, size_t segment, View name, const HeadView& v, int64_t rows,
                int64_t heads, const HeadView& like) {
  const char* argument = name_of(name, segment);
  check(ctx, operation, argument, v.tensor).dtype(like.tensor.dtype());
  if (v.rows != rows) fail(operation, "{} has {} rows, expected {} as in its ptr", argument, v.rows, rows);
  if (v.heads != heads) fail(operation, "{} has {} heads, expected {}", argument, v.heads, heads);
  if (v.parts != like.parts || v.channels != like.channels)
    fail(operation, "{} has heads of {} x {} features, expected {} x {}", argument, v.parts, v.channels, like.parts,
         like.channels);
  if (v.parts < 1 || v.parts > 32 || v.channels < 1)
    fail(operation, "{} has heads of {} x {} features, expected 1 to 32 parts of 1 channel or more", argument, v.parts,
         v.channels);
  const int64_t end = v.offset + std::max<int64_t>(0, rows - 1) * v.row_stride + (heads - 1) * v.head_stride +
                      (v.parts - 1) * v.part_stride + v.channels;
  if (std::min({v.offset, v.row_stride, v.head_stride, v.part_stride}) < 0 || (rows > 0 && end > v.tensor.numel()))
    fail(operation, "{} does not lie inside of its tensor of {} elements", argument, v.tensor.numel());
}

void check_frames(const Context& ctx, const char* operation, std::span<const AttentionSegment> segments, int64_t q_rows,
                  int64_t k_rows) {
  const AttentionSegment& s = segments[0];
  if (segments.size() != 1) fail(operation, "local frames with {} segments, expected one", segments.size());
  if (q_rows != k_rows)
    fail(operation, "local frames for {} queries and {} keys, expected self-attention", q_rows, k_rows);
  check(ctx, operation, "frames", s.frames.matrices).shape({q_rows, 4, 4}).dtype(sum_dtype(s.q.tensor.dtype()));
  const int64_t dim = s.frames.reps.dim();
  if (dim > 1024) fail(operation, "heads of {} features in local frames, expected 1024 at most", dim);
  if (s.q.parts != 1 || s.v.parts != 1 || s.q.channels != dim || s.v.channels != dim)
    fail(operation, "heads of {} x {} features (values {} x {}) in local frames, expected 1 x {} as {} has", s.q.parts,
         s.q.channels, s.v.parts, s.v.channels, dim, s.frames.reps.text());
}

Sizes check_segments(const Context& ctx, const char* operation, std::span<const AttentionSegment> segments,
                     const Tensor& q_ptr, const Tensor& k_ptr, double scale, const AttentionDropout& dropout,
                     Products products) {
  if (segments.empty() || segments.size() > 4) fail(operation, "{} segments, expected 1 to 4", segments.size());
  const HeadView &q = segments[0].q, &k = segments[0].k;
  check(ctx, operation, "q of segment 0", q.tensor).compute();
  Sizes sizes{q.rows, k.rows, q.heads, k.heads};
  const int64_t jets = check_ptr(ctx, operation, "q_ptr", q_ptr, q.rows);
  if (check_ptr(ctx, operation, "k_ptr", k_ptr, k.rows) != jets)
    fail(operation, "q_ptr has {} jets, k_ptr has {}", jets, k_ptr.dim(0) - 1);
  if (q.heads < 1 || k.heads < 1 || q.heads % k.heads)
    fail(operation, "{} heads of queries and {} of keys, expected a multiple", q.heads, k.heads);
  const auto q_first = q_ptr.offsets(), k_first = k_ptr.offsets();
  for (int64_t b = 0; b < jets; ++b)
    sizes.pairs += double(q_first[b + 1] - q_first[b]) * (k_first[b + 1] - k_first[b]) * q.heads;
  for (size_t i = 0; i < segments.size(); ++i) {
    const AttentionSegment& s = segments[i];
    check(ctx, operation, name_of(View::q, i), s.q.tensor).dtype(q.tensor.dtype());
    check(ctx, operation, name_of(View::v, i), s.v.tensor).dtype(q.tensor.dtype());
    check_view(ctx, operation, i, View::q, s.q, q.rows, q.heads, s.q);
    check_view(ctx, operation, i, View::k, s.k, k.rows, k.heads, s.q);
    check_view(ctx, operation, i, View::v, s.v, k.rows, k.heads, s.v);
    check_view(ctx, operation, i, View::y, s.y, q.rows, q.heads, s.v);
    if (s.q.parts < 32 && s.negative_parts >> s.q.parts)
      fail(operation, "negative_parts {:#b} of segment {} names more than its {} parts", s.negative_parts, i,
           s.q.parts);
    sizes.q_size += s.q.size();
    sizes.v_size += s.v.size();
    if (s.frames.matrices.defined()) check_frames(ctx, operation, segments, q.rows, k.rows);
  }
  if (products == Products::bf16 && q.tensor.dtype() == DType::f64)
    fail(operation, "bf16 products of f64 tensors, expected f32 or bf16");
  if (!std::isfinite(scale)) fail(operation, "scale is {}, expected a finite number", scale);
  if (!(dropout.probability >= 0 && dropout.probability < 1))
    fail(operation, "dropout probability is {}, expected [0, 1)", dropout.probability);
  const auto& recorded = dropout.draw.recorded;
  if (dropout.probability > 0 && recorded && static_cast<int64_t>(recorded->size()) < q.rows * q.heads * k.rows)
    fail(operation, "{} recorded numbers for dropout, expected {}", recorded->size(), q.rows * q.heads * k.rows);
  return sizes;
}
}  // namespace

void attention(Context& ctx, std::span<const AttentionSegment> segments, const Tensor& q_ptr, const Tensor& k_ptr,
               double scale, const AttentionDropout& dropout, Tensor& lse, Products products) {
  const Sizes n = check_segments(ctx, "attention", segments, q_ptr, k_ptr, scale, dropout, products);
  const DType dtype = segments[0].q.tensor.dtype();
  check(ctx, "attention", "lse", lse).shape({n.q_rows, n.heads}).dtype(sum_dtype(dtype));
  const double bytes = double(size_of(dtype)) * (n.q_rows * n.heads + n.k_rows * n.kv_heads) * (n.q_size + n.v_size);
  const auto scope = ctx.profiler().scope("attention", bytes, n.pairs * (2. * n.q_size + 2. * n.v_size + 5));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::attention(ctx, segments, q_ptr, k_ptr, scale, dropout, lse, products);
  const cpu::Plan plan(q_ptr, k_ptr, n.heads, n.heads / n.kv_heads, n.q_size + n.v_size, cpu::chunk_work(products));
  cpu::attention(ctx, plan, segments, scale, dropout, lse, products);
}

void attention_backward(Context& ctx, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, const Tensor& q_ptr, const Tensor& k_ptr,
                        double scale, const AttentionDropout& dropout, const Tensor& lse, Products products) {
  const char* name = "attention_backward";
  const Sizes n = check_segments(ctx, name, segments, q_ptr, k_ptr, scale, dropout, products);
  const DType dtype = segments[0].q.tensor.dtype();
  check(ctx, name, "lse", lse).shape({n.q_rows, n.heads}).dtype(sum_dtype(dtype));
  if (gradients.size() != segments.size())
    fail(name, "{} segments of gradients, expected {}", gradients.size(), segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    check_view(ctx, name, i, View::dy, gradients[i].dy, n.q_rows, n.heads, segments[i].y);
    check_view(ctx, name, i, View::dq, gradients[i].dq, n.q_rows, n.heads, segments[i].q);
    check_view(ctx, name, i, View::dk, gradients[i].dk, n.k_rows, n.kv_heads, segments[i].k);
    check_view(ctx, name, i, View::dv, gradients[i].dv, n.k_rows, n.kv_heads, segments[i].v);
  }
  const double bytes = 2. * size_of(dtype) * (n.q_rows * n.heads + n.k_rows * n.kv_heads) * (n.q_size + n.v_size);
  const auto scope = ctx.profiler().scope(name, bytes, n.pairs * (6. * n.q_size + 4. * n.v_size + 5));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda)
      return cuda::attention_backward(ctx, segments, gradients, q_ptr, k_ptr, scale, dropout, lse, products);
  const cpu::Plan plan(q_ptr, k_ptr, n.heads, n.heads / n.kv_heads, 3 * n.q_size + 2 * n.v_size,
                       cpu::chunk_work(products));
  cpu::attention_backward(ctx, plan, segments, gradients, scale, dropout, lse, products);
}

}  // namespace lightcone::kernels
