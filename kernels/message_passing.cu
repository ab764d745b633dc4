#include <array>

#include "kernels/elementwise_math.h"
#include "kernels/frames.h"
#include "kernels/matmul.h"
#include "kernels/message_passing.h"
#include "kernels/pair_masses.cuh"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Constituent;
using cuda::Jets;

/// Edges are worked on so many at a time, or those of one receiver if they are more.
constexpr int64_t edges_at_a_time = int64_t{1} << 15;

/// The edges [first, first + count) of the receivers [from, to); senders are among [begin, end), the jets of these.
struct Pass {
  int64_t from, to, first, count, begin, end;
};

std::vector<Pass> passes_of(const Tensor& ptr) {
  std::vector<Pass> passes{{}};
  const auto offsets = ptr.offsets();
  for (size_t b = 0; b + 1 < offsets.size(); ++b)
    for (int64_t i = offsets[b]; i < offsets[b + 1]; ++i) {
      const int64_t edges = offsets[b + 1] - offsets[b] - 1;
      Pass* pass = &passes.back();
      if (pass->count && pass->count + edges > edges_at_a_time)
        pass = &passes.emplace_back(Pass{i, i, pass->first + pass->count, 0, offsets[b], 0});
      pass->to = i + 1, pass->count += edges, pass->end = offsets[b + 1];
    }
  return passes;
}

// The kernels below give a block the edges of one receiver of a pass, whose rows follow each other.
struct Receiver : Constituent {
  int64_t t, row;  ///< row: of its first edge within the pass
  __device__ Receiver(const Jets& jets, const Pass& pass)
      : Constituent(jets.constituent(pass.from + blockIdx.x)),
        t(pass.from + blockIdx.x),
        row(pairs - first + int64_t{i} * (N - 1) - pass.first) {}
  __device__ int64_t sender(int64_t edge) const { return first + edge + (edge >= i); }
  /// f(edge, column) for all edges and columns; a thread takes one at a time.
  template <class F>
  __device__ void each(int64_t cols, F f) const {
    for (int64_t k = threadIdx.x; k < (N - 1) * cols; k += block_threads) f(k / cols, k % cols);
  }
};

// h = (h +) receiver_i + sender_j + W_e e_ij
template <class S>
__global__ void first_layer_kernel(Jets jets, Pass pass, int64_t H, const S* receiver, const S* sender, int64_t E,
                                   const S* edge, const S* edge_weight, bool add, S* h) {
  const Receiver own(jets, pass);
  own.each(H, [&](int64_t r, int64_t c) {
    S* const to = h + (own.row + r) * H + c;
    S sum = receiver[own.t * H + c] + sender[own.sender(r) * H + c];
    if (add) sum = *to + sum;
    for (int64_t k = 0; k < E; ++k) sum += edge_weight[c * E + k] * edge[(own.row + r) * E + k];
    *to = sum;
  });
}

// Features of the senders and frames of the receivers.
template <class S>
__global__ void gather_kernel(Jets jets, Pass pass, int64_t D, const S* x, const S* frames, S* x_of_edges,
                              S* frames_of_edges) {
  const Receiver own(jets, pass);
  own.each(D, [&](int64_t r, int64_t c) { x_of_edges[(own.row + r) * D + c] = x[own.sender(r) * D + c]; });
  own.each(16, [&](int64_t r, int64_t c) { frames_of_edges[(own.row + r) * 16 + c] = frames[own.t * 16 + c]; });
}

// x[edge] *= dy[receiver], by the number of edges for means.
template <class S>
__global__ void from_receivers_kernel(Jets jets, Pass pass, int64_t H, const S* dy, bool mean, S* x) {
  const Receiver own(jets, pass);
  const S share = mean ? S(1) / S(std::max(1, own.N - 1)) : S(1);
  own.each(H, [&](int64_t r, int64_t c) { x[(own.row + r) * H + c] *= dy[own.t * H + c] * share; });
}

// y[receiver] = the sum or mean of x[edge]
template <class S>
__global__ void to_receivers_kernel(Jets jets, Pass pass, int64_t C, const S* x, bool mean, S* y) {
  const Receiver own(jets, pass);
  const S share = mean ? S(1) / S(std::max(1, own.N - 1)) : S(1);
  cuda::column_sums<S>(
      own.N - 1, C, [&](int64_t r, int64_t c) { return x[(own.row + r) * C + c]; },
      [&](int64_t c, S sum) { y[own.t * C + c] = sum * share; });
}

// y[sender] += x[edge], one receiver after the other, so that it does not matter where passes are cut. A thread takes
// one column of one sender at a time.
template <class S>
__global__ void to_senders_kernel(Jets jets, Pass pass, int64_t C, const S* x, S* y) {
  const int64_t n = (pass.end - pass.begin) * C;
  cuda::Place place(C);
  for (int64_t k = cuda::first_item(); k < n; k += cuda::item_step(), place.next()) {
    const int64_t t = pass.begin + place.row;
    const Constituent own = jets.constituent(t);
    const int64_t from = std::max(pass.from - own.first, int64_t{0}),
                  to = std::min<int64_t>(pass.to - own.first, own.N);
    S sum = y[t * C + place.col];
    for (int64_t i = from; i < to; ++i)
      if (i != own.i) sum += x[(own.edge(i, own.i) - pass.first) * C + place.col];
    y[t * C + place.col] = sum;
  }
}

// x = gelu(x), with x / (1 - p) or 0 in place of x where there is dropout; slope, if not null, is its derivative. A
// thread takes a pack at a time, and then what is behind the last whole one.
template <class S>
__global__ void activate_kernel(int64_t n, double p, Numbers numbers, int64_t element, S* x, S* slope) {
  constexpr int V = cuda::pack_size<S>;
  const S kept = S(1 / (1 - p));
  auto one = [&](int64_t k, S& value, S& derivative) {
    const S factor = p == 0 ? S(1) : numbers.uniform(element + k) < p ? S(0) : kept, h = value * factor;
    const auto normal = elementwise::normal(h);
    value = h * normal.cdf;
    derivative = (normal.cdf + h * normal.density) * factor;
  };
  for (int64_t k = cuda::first_item(); k < n / V; k += cuda::item_step()) {
    auto values = cuda::load_word<V>(x + k * V);
    cuda::Pack<S, V> derivatives;
#pragma unroll
    for (int v = 0; v < V; ++v) one(k * V + v, values.at[v], derivatives.at[v]);
    cuda::store_word(x + k * V, values);
    if (slope) cuda::store_word(slope + k * V, derivatives);
  }
  for (int64_t k = n / V * V + cuda::first_item(); k < n; k += cuda::item_step()) {
    S derivative;
    one(k, x[k], derivative);
    if (slope) slope[k] = derivative;
  }
}

/// The perceptron on the edges of one pass after the other. Products are those of matmul.h.
template <class S>
class Network {
 public:
  Network(Context& ctx, const char* where, const Tensor& ptr, const MessagePerceptron& m, const MessageOptions& o,
          const Draw& draw, bool backward)
      : ctx_(ctx),
        where_(where),
        m_(m),
        o_(o),
        pairs_(ctx, ptr),
        passes_(passes_of(ptr)),
        numbers_(ctx, o.dropout == 0 ? Draw{} : draw),
        weights_(m.weights.begin(), m.weights.end()),
        feature_weight_(m.feature_weight.numel() ? std::make_unique<Weights>(m.feature_weight) : nullptr),
        backward_(backward) {
    int64_t most = 0;
    for (const Pass& pass : passes_) most = std::max(most, pass.count);
    edges_ = passes_.back().first + passes_.back().count;
    auto rows = [&](int64_t columns) { return ctx.empty({most, columns}, m.receiver.dtype()); };
    for (int64_t l = 0; l < (backward ? depth() + 1 : std::min<int64_t>(2, depth() + 1)); ++l) {
      active_.push_back(rows(H()));
      if (backward) slope_.push_back(rows(H()));
    }
    if (backward && depth() > 0) other_ = rows(H());
    if (!feature_weight_) return;
    local_ = rows(D()), frames_ = rows(16);
    if (backward) dlocal_ = rows(D());
    if (backward) dframes_ = rows(16);
  }

  void forward(Tensor& y) {
    for (const Pass& pass : passes_) {
      const Tensor messages = run(pass);
      to_receivers(pass, messages, o_.aggregation == Pool::mean, y);
    }
  }

  void backward(const Tensor& dy, MessagePerceptron& to) {
    for (Tensor* sum : {&to.sender, &to.features, &to.frames})
      if (sum->defined()) ctx_.allocator().clear(sum->raw(), sum->bytes());
    for (const Pass& pass : passes_) {
      run(pass);
      Tensor delta = cut(slope_[depth()], pass);
      cuda::launch(ctx_, where_, from_receivers_kernel<S>, of_receivers(pass), pairs_, pass, H(), dy.data<S>(),
                   o_.aggregation == Pool::mean, delta.data<S>());
      for (int64_t l = depth() - 1; l >= 0; --l) {
        Tensor dx = cut(other_, pass), next = cut(slope_[l], pass);
        linear_backward(pass, delta, cut(active_[l], pass), weights_[l], &dx, to.weights[l], &to.biases[l]);
        multiply(ctx_, next, dx, next);
        delta = next;
      }
      to_receivers(pass, delta, false, to.receiver);
      to_senders(pass, delta, to.sender);
      if (m_.edge_weight.defined()) {
        Tensor dedge = to.edge.defined() ? to.edge.narrow(pass.first, pass.count) : Tensor{};
        linear_backward(pass, delta, m_.edge.narrow(pass.first, pass.count), m_.edge_weight,
                        dedge.defined() ? &dedge : nullptr, to.edge_weight, nullptr);
      }
      if (feature_weight_) features_backward(pass, delta, to);
    }
  }

 private:
  int64_t H() const { return m_.receiver.dim(1); }
  int64_t D() const { return m_.feature_weight.dim(1); }
  int64_t depth() const { return static_cast<int64_t>(m_.weights.size()); }
  static Tensor cut(const Tensor& rows, const Pass& pass) { return rows.narrow(0, pass.count); }
  static lightcone::cuda::Grid of_receivers(const Pass& pass) { return {pass.to - pass.from, block_threads}; }

  /// The last gelu(h).
  Tensor run(const Pass& pass) {
    Tensor h = cut(active_[0], pass);
    if (feature_weight_) {
      Tensor local = cut(local_, pass), frames = cut(frames_, pass);
      cuda::launch(ctx_, where_, gather_kernel<S>, of_receivers(pass), pairs_, pass, D(), m_.features.data<S>(),
                   m_.frames.data<S>(), local.data<S>(), frames.data<S>());
      frames_transform(ctx_, local, frames.reshape({pass.count, 4, 4}), o_.reps, FrameMap::to_local, local);
      linear(ctx_, local, *feature_weight_, {}, h);
    }
    const bool edges = m_.edge_weight.defined();
    cuda::launch(ctx_, where_, first_layer_kernel<S>, of_receivers(pass), pairs_, pass, H(), m_.receiver.data<S>(),
                 m_.sender.data<S>(), edges ? m_.edge_weight.dim(1) : 0,
                 edges ? m_.edge.narrow(pass.first, pass.count).data<S>() : nullptr,
                 edges ? m_.edge_weight.data<S>() : nullptr, feature_weight_ != nullptr, h.data<S>());
    activate(0, pass, h);
    for (int64_t l = 0; l < depth(); ++l) {
      Tensor next = cut(active_[backward_ ? l + 1 : (l + 1) % 2], pass);
      linear(ctx_, h, weights_[l], m_.biases[l], next);
      activate(l + 1, pass, next);
      h = next;
    }
    return h;
  }

  void activate(int64_t layer, const Pass& pass, Tensor& h) {
    cuda::launch(ctx_, where_, activate_kernel<S>, {cuda::blocks_for(h.numel()), block_threads}, h.numel(), o_.dropout,
                 numbers_, (layer * edges_ + pass.first) * H(), h.data<S>(),
                 backward_ ? slope_[layer].template data<S>() : nullptr);
  }

  void features_backward(const Pass& pass, const Tensor& delta, MessagePerceptron& to) {
    const Tensor local = cut(local_, pass), frames = cut(frames_, pass).reshape({pass.count, 4, 4});
    Tensor dlocal = cut(dlocal_, pass);
    linear_backward(pass, delta, local, *feature_weight_, &dlocal, to.feature_weight, nullptr);
    if (to.frames.defined()) {
      Tensor dframes = cut(dframes_, pass).reshape({pass.count, 4, 4});
      const FramedFeatures framed{.x = local, .dx = dlocal, .made_by_to_local = true};
      frames_gradient(ctx_, std::array{framed}, frames, o_.reps, dframes);
      to_receivers(pass, dframes.reshape({pass.count, 16}), false, to.frames);
    }
    frames_transform_backward(ctx_, dlocal, frames, o_.reps, FrameMap::to_local, dlocal);
    to_senders(pass, dlocal, to.features);
  }

  /// Adds to dw and db, or overwrites them in the first pass.
  void linear_backward(const Pass& pass, const Tensor& dy, const Tensor& x, const Weights& w, Tensor* dx, Tensor& dw,
                       Tensor* db) {
    if (&pass == &passes_.front()) return kernels::linear_backward(ctx_, dy, x, w, dx, &dw, db);
    Tensor more = ctx_.empty(dw.shape(), dw.dtype()), more_bias = db ? ctx_.empty(db->shape(), db->dtype()) : Tensor{};
    kernels::linear_backward(ctx_, dy, x, w, dx, &more, db ? &more_bias : nullptr);
    add(ctx_, dw, more, dw);
    if (db) add(ctx_, *db, more_bias, *db);
  }

  void to_receivers(const Pass& pass, const Tensor& x, bool mean, Tensor& y) {
    cuda::launch(ctx_, where_, to_receivers_kernel<S>, of_receivers(pass), pairs_, pass, x.dim(1), x.data<S>(), mean,
                 y.data<S>());
  }
  void to_senders(const Pass& pass, const Tensor& x, Tensor& y) {
    const int64_t n = (pass.end - pass.begin) * x.dim(1);
    cuda::launch(ctx_, where_, to_senders_kernel<S>, {cuda::blocks_for(n), block_threads}, pairs_, pass, x.dim(1),
                 x.data<S>(), y.data<S>());
  }

  Context& ctx_;
  const char* where_;
  const MessagePerceptron& m_;
  const MessageOptions& o_;
  const cuda::PairsOf pairs_;
  const std::vector<Pass> passes_;
  const cuda::DrawnNumbers numbers_;
  const std::vector<Weights> weights_;
  const std::unique_ptr<Weights> feature_weight_;
  const bool backward_;
  int64_t edges_;
  std::vector<Tensor> active_, slope_;  // of each layer; forward alone two in turn
  Tensor other_, local_, frames_, dlocal_, dframes_;
};

}  // namespace

namespace cuda {

void message_passing(Context& ctx, const Tensor& ptr, const MessagePerceptron& m, const MessageOptions& o,
                     const Draw& dropout, Tensor& y) {
  const char* where = "message_passing";
  dispatch_momentum(where, y.dtype(), [&](auto type) {
    Network<typename decltype(type)::type>(ctx, where, ptr, m, o, dropout, false).forward(y);
  });
}

void message_passing_backward(Context& ctx, const Tensor& dy, const Tensor& ptr, const MessagePerceptron& m,
                              const MessageOptions& o, const Draw& dropout, MessagePerceptron& gradients) {
  const char* where = "message_passing_backward";
  dispatch_momentum(where, dy.dtype(), [&](auto type) {
    Network<typename decltype(type)::type>(ctx, where, ptr, m, o, dropout, true).backward(dy, gradients);
  });
}

void edge_attributes(Context& ctx, const Tensor& p, const Tensor& ptr, double mean, double std, Tensor& e) {
  masses<false>(ctx, "edge_attributes", p, ptr, mean, std, e);
}

void edge_attributes_backward(Context& ctx, const Tensor& de, const Tensor& p, const Tensor& ptr, double std,
                              Tensor& dp) {
  masses_backward<false>(ctx, "edge_attributes_backward", de, p, ptr, std, dp);
}

}  // namespace cuda

}  // namespace lightcone::kernels
