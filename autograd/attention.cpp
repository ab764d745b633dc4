#include "autograd/attention.h"

#include <cmath>

#include "engine/check.h"
#include "kernels/frames.h"

namespace lightcone {

using kernels::AttentionDropout;
using kernels::AttentionGradient;
using kernels::AttentionSegment;
using kernels::HeadView;
using kernels::Products;

namespace {
/// Where queries, keys and values lie along the last axis: in one tensor for self-attention (keys behind the queries),
/// else keys and values in a second one, from its first column on.
struct Columns {
  Layout layout;
  int64_t heads, kv_heads, channels;
  bool fused;

  HeadView q(const Tensor& t) const { return head_view(t, layout, 0, heads, channels); }
  HeadView k(const Tensor& t) const { return head_view(t, layout, first_key(), kv_heads, channels); }
  HeadView v(const Tensor& t) const {
    return head_view(t, layout, first_key() + kv_heads * channels, kv_heads, channels);
  }

 private:
  int64_t first_key() const { return fused ? heads * channels : 0; }
};

struct Source {
  Var q, kv;
  Columns columns;
  uint32_t negative_parts;
  LocalFrames frames = {};
};

/// Channels per head in a last axis that holds `heads` of them.
int64_t channels_of(const char* argument, const Tensor& tensor, Layout layout, int64_t heads) {
  Check("attention", argument, tensor).rank(layout == Layout::scalars ? 2 : 3).compute();
  if (layout == Layout::heads && (tensor.dim(0) != heads || tensor.dim(2) == 0))
    fail("attention", "{} has shape {}, expected {} heads of 1 feature or more", argument, tensor.shape(), heads);
  if (layout == Layout::heads) return tensor.dim(2);
  const int64_t columns = tensor.dim(-1);
  if (columns == 0 || columns % heads)
    fail("attention", "{} has {} columns, expected a multiple of {} heads", argument, columns, heads);
  return columns / heads;
}

AttentionOptions complete(AttentionOptions o) {
  if (o.kv_heads == 0) o.kv_heads = o.heads;
  if (o.heads < 1 || o.kv_heads < 1 || o.heads % o.kv_heads)
    fail("attention", "{} heads and {} kv_heads, expected a multiple", o.heads, o.kv_heads);
  return o;
}

std::vector<Var> record(const std::vector<Source>& sources, const Tensor& q_ptr, const Tensor& k_ptr,
                        const AttentionOptions& options) {
  Tape& tape = sources[0].q.tape();
  Context& ctx = tape.context();
  std::vector<AttentionSegment> segments;
  std::vector<Tensor> ys;
  std::vector<Slot> inputs;
  std::vector<Columns> columns;
  int64_t head_size = 0;
  for (const Source& s : sources) {
    Shape shape = s.q.shape();
    if (s.columns.layout == Layout::heads)
      shape[0] = s.columns.heads;
    else
      shape[-1] = s.columns.heads * s.columns.channels;
    ys.push_back(ctx.empty(shape, s.q.dtype()));
    segments.push_back({s.columns.q(s.q.value()),
                        s.columns.k(s.kv.value()),
                        s.columns.v(s.kv.value()),
                        s.columns.q(ys.back()),
                        s.negative_parts,
                        {s.frames.matrices.value(), s.frames.reps}});
    head_size += segments.back().q.size();
    inputs.insert(inputs.end(), {s.q.slot(), s.kv.slot()});
    columns.push_back(s.columns);
  }
  const Slot frames = sources[0].frames.matrices.slot();
  inputs.push_back(frames);
  const int64_t q_rows = segments[0].q.rows, k_rows = segments[0].k.rows;
  const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(head_size)));
  AttentionDropout dropout;
  if (tape.training() && options.dropout != 0)
    dropout = {options.dropout, ctx.rng().draw("attention_dropout", q_rows * options.heads * k_rows)};
  Tensor lse = ctx.empty({q_rows, options.heads}, sum_dtype(segments[0].q.tensor.dtype()));
  const Products products = tape.amp() && segments[0].q.tensor.dtype() != DType::f64 ? Products::bf16 : Products::exact;
  kernels::attention(ctx, segments, q_ptr, k_ptr, scale, dropout, lse, products);

  return tape.record("attention", ys, inputs, [=](const std::vector<Tensor>& dys, Grads& grads) {
    // The kernel writes all gradients; those that nobody wants go to scratch.
    auto place = [&](Slot slot, const Tensor& like) {
      Tensor* wanted = grads.want(slot);
      return wanted ? *wanted : grads.context().empty(like.shape(), like.dtype());
    };
    std::vector<AttentionGradient> gradients;
    for (size_t i = 0; i < segments.size(); ++i) {
      const Columns& c = columns[i];
      const Tensor dq = place(inputs[2 * i], segments[i].q.tensor);
      const Tensor dkv = c.fused ? dq : place(inputs[2 * i + 1], segments[i].k.tensor);
      gradients.push_back({c.q(dys[i]), c.q(dq), c.k(dkv), c.v(dkv)});
    }
    kernels::attention_backward(grads.context(), segments, gradients, q_ptr, k_ptr, scale, dropout, lse, products);
    if (Tensor* dframes = grads.want(frames)) {
      auto pair = [](const HeadView& x, const HeadView& dx, bool made_by_to_local) {
        return kernels::FramedFeatures{x.tensor, dx.tensor, x.offset, dx.offset, x.heads, made_by_to_local};
      };
      const AttentionSegment& s = segments[0];
      const AttentionGradient& g = gradients[0];
      const kernels::FramedFeatures features[] = {pair(s.q, g.dq, false), pair(s.k, g.dk, false),
                                                  pair(s.v, g.dv, false), pair(s.y, g.dy, true)};
      kernels::frames_gradient(grads.context(), features, s.frames.matrices, s.frames.reps, *dframes);
    }
  });
}
}  // namespace

Var attention(const Var& qkv, const Tensor& ptr, const AttentionOptions& options) {
  return attention(std::vector<AttentionInput>{{qkv}}, ptr, options)[0];
}

Var attention(const Var& qkv, const Tensor& ptr, const AttentionOptions& options, const LocalFrames& frames) {
  const AttentionOptions o = complete(options);
  const int64_t channels = channels_of("qkv", qkv.value(), Layout::scalars, o.heads + 2 * o.kv_heads);
  return record({{qkv, qkv, {Layout::scalars, o.heads, o.kv_heads, channels, true}, 0, frames}}, ptr, ptr, o)[0];
}

std::vector<Var> attention(const std::vector<AttentionInput>& inputs, const Tensor& ptr,
                           const AttentionOptions& options) {
  if (inputs.empty()) throw Error("attention: no inputs, expected at least one");
  const AttentionOptions o = complete(options);
  std::vector<Source> sources;
  for (const AttentionInput& in : inputs) {
    const int64_t channels = channels_of("qkv", in.qkv.value(), in.layout, o.heads + 2 * o.kv_heads);
    sources.push_back({in.qkv, in.qkv, {in.layout, o.heads, o.kv_heads, channels, true}, in.negative_parts});
  }
  return record(sources, ptr, ptr, o);
}

Var cross_attention(const Var& q, const Var& kv, const Tensor& q_ptr, const Tensor& k_ptr,
                    const AttentionOptions& options) {
  return cross_attention({{q, kv}}, q_ptr, k_ptr, options)[0];
}

std::vector<Var> cross_attention(const std::vector<CrossAttentionInput>& inputs, const Tensor& q_ptr,
                                 const Tensor& k_ptr, const AttentionOptions& options) {
  if (inputs.empty()) throw Error("attention: no inputs, expected at least one");
  const AttentionOptions o = complete(options);
  std::vector<Source> sources;
  for (const auto& [q, kv, layout, negative_parts] : inputs) {
    const int64_t channels = channels_of("q", q.value(), layout, o.heads);
    if (channels_of("kv", kv.value(), layout, 2 * o.kv_heads) != channels)
      fail("attention", "kv has {} columns, expected {}: {} heads of {} for keys and as many for values", kv.dim(-1),
           2 * o.kv_heads * channels, o.kv_heads, channels);
    sources.push_back({q, kv, {layout, o.heads, o.kv_heads, channels, false}, negative_parts});
  }
  return record(sources, q_ptr, k_ptr, o);
}

}  // namespace lightcone
