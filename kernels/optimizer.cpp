#include "kernels/optimizer.h"

#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"

// Products and sums round one by one, as in the references, whose f32 averages then come out with the same bits.
#pragma GCC optimize("fp-contract=off")
#include "kernels/optimizer_math.h"

namespace lightcone::kernels {

namespace {

constexpr int64_t chunk_size = 16384;

/// A list of tensors laid end to end and cut into chunks, so that hundreds of small biases share one.
class EndToEnd {
 public:
  template <class List>
  EndToEnd(Context& ctx, const List& list)
      : ctx_(ctx), count_(static_cast<int64_t>(list.size())), start_(ctx.scratch<int64_t>(count_ + 1)) {
    start_[0] = 0;
    for (int64_t i = 0; i < count_; ++i) start_[i + 1] = start_[i] + tensor(list[i]).numel();
  }
  /// f(tensor, begin, end, piece) for every tensor's share of every chunk. Tensor i has the pieces piece_range(i).
  template <class F>
  void for_each(F&& f) {
    parallel_chunks(ctx_, start_[count_], chunk_size, [&](int64_t chunk, int64_t begin, int64_t end) {
      int64_t* first = start_.data();
      int64_t i = std::upper_bound(first, first + count_ + 1, begin) - first - 1;
      for (; i < count_ && first[i] < end; ++i) {
        const int64_t low = std::max(begin, first[i]), high = std::min(end, first[i + 1]);
        if (low < high) f(i, low - first[i], high - first[i], i + chunk);
      }
    });
  }
  /// Stepping to the next piece moves to the next tensor or the next chunk, so their sum numbers the pieces.
  int64_t pieces() { return count_ + (start_[count_] + chunk_size - 1) / chunk_size; }
  std::pair<int64_t, int64_t> piece_range(int64_t i) {
    if (start_[i] == start_[i + 1]) return {0, 0};
    return {i + start_[i] / chunk_size, i + (start_[i + 1] - 1) / chunk_size + 1};
  }

 private:
  static const Tensor& tensor(const Tensor& t) { return t; }
  static const Tensor& tensor(const ParameterStep& s) { return s.value; }
  Context& ctx_;
  int64_t count_;
  Context::Scratch<int64_t> start_;
};

template <class F>
void dispatch(DType dtype, F&& f) {
  if (dtype == DType::f64)
    f(Type<double>{});
  else
    f(Type<float>{});
}

/// f(Type<T>, tensor, begin, end) over all elements of a list of tensors.
template <class List, class F>
void for_elements(Context& ctx, const List& list, F&& f) {
  EndToEnd(ctx, list).for_each([&](int64_t i, int64_t begin, int64_t end, int64_t) {
    dispatch(list[i].dtype(), [&](auto type) { f(type, i, begin, end); });
  });
}

template <class List>
double bytes_of(const List& list) {
  double bytes = 0;
  for (const Tensor& t : list) bytes += static_cast<double>(t.bytes());
  return bytes;
}

void check_f64_or_f32(const Context& ctx, const char* where, const char* name, const Tensor& t) {
  check(ctx, where, name, t);
  if (t.dtype() > DType::f32) fail(where, "{} is {}, expected f64 or f32", name, t.dtype());
}

void check_pairs(const Context& ctx, const char* where, std::span<const Tensor> values, const char* name,
                 std::span<Tensor> others) {
  if (values.size() != others.size())
    fail(where, "{} {} for {} values, expected one each", others.size(), name, values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    check_f64_or_f32(ctx, where, "value", values[i]);
    check(ctx, where, name, others[i]).like(values[i]);
  }
}

void check_norm(const Context& ctx, const char* where, const Tensor& norm) {
  check(ctx, where, "norm", norm).shape({1}).dtype(DType::f64);
}

void check_fraction(const char* where, const char* name, double x) {
  if (!(x >= 0 && x <= 1)) fail(where, "{} is {}, expected 0 to 1", name, x);
}

void check_not_negative(const char* where, const char* name, double x) {
  if (!(x >= 0 && std::isfinite(x))) fail(where, "{} is {}, expected a finite number of at least 0", name, x);
}

}  // namespace

namespace cpu {

/// T holds the parameter, Rule::State is what it computes with and the averages hold.
template <class T, class Rule>
void update(const Rule& rule, ParameterStep& s, int64_t begin, int64_t end) {
  using S = typename Rule::State;
  T* p = s.value.data<T>();
  const T* g = s.gradient.data<T>();
  S* m = s.m.data<S>();
  if constexpr (std::is_same_v<Rule, optim::Lion<S>>) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) rule(p[i], g[i], m[i]);
  } else {
    S* v = s.v.data<S>();
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      S value = S(p[i]);
      rule(value, S(g[i]), m[i], v[i]);
      p[i] = T(value);
    }
  }
}

}  // namespace cpu

namespace cuda {
void optimizer_step(Context& ctx, UpdateRule rule, std::span<ParameterStep> steps, const UpdateOptions& o);
void lookahead(Context& ctx, std::span<Tensor> values, std::span<Tensor> slow, double alpha);
void ema_update(Context& ctx, std::span<const Tensor> values, std::span<Tensor> shadow, double decay);
void gradient_norm(Context& ctx, std::span<const Tensor> gradients, double* norm);
void clip_by_norm(Context& ctx, std::span<Tensor> gradients, double max_norm, const double* norm);
void clip_by_value(Context& ctx, std::span<Tensor> gradients, double limit);
}  // namespace cuda

void optimizer_step(Context& ctx, UpdateRule rule, std::span<ParameterStep> steps, const UpdateOptions& o) {
  constexpr const char* where = "optimizer_step";
  for (double beta : {o.beta1, o.beta2})
    if (!(beta >= 0 && beta < 1)) fail(where, "a beta is {}, expected at least 0 and below 1", beta);
  check_not_negative(where, "eps", o.eps);
  double bytes = 0;
  for (const ParameterStep& s : steps) {
    check_f64_or_f32(ctx, where, "value", s.value);
    check(ctx, where, "gradient", s.gradient).like(s.value);
    const DType state = rule == UpdateRule::ranger ? DType::f32 : s.value.dtype();
    check(ctx, where, "m", s.m).shape(s.value.shape()).dtype(state);
    if (rule != UpdateRule::lion) check(ctx, where, "v", s.v).like(s.m);
    if (s.t < 1) fail(where, "t is {}, expected a count from 1", s.t);
    check_not_negative(where, "lr", s.lr);
    check_not_negative(where, "weight_decay", s.weight_decay);
    bytes += 3. * s.value.bytes() + (rule == UpdateRule::lion ? 2. : 4.) * s.m.bytes();
  }
  const auto scope = ctx.profiler().scope(where, bytes);
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::optimizer_step(ctx, rule, steps, o);
  EndToEnd(ctx, steps).for_each([&](int64_t i, int64_t begin, int64_t end, int64_t) {
    dispatch(steps[i].value.dtype(), [&](auto type) {
      using T = typename decltype(type)::type;
      optim::with_rule<T>(rule, o, [&](auto rule_of) { cpu::update<T>(rule_of(steps[i]), steps[i], begin, end); });
    });
  });
}

void lookahead(Context& ctx, std::span<Tensor> values, std::span<Tensor> slow, double alpha) {
  constexpr const char* where = "lookahead";
  check_pairs(ctx, where, values, "slow", slow);
  check_fraction(where, "alpha", alpha);
  const auto scope = ctx.profiler().scope(where, 4. * bytes_of(values));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::lookahead(ctx, values, slow, alpha);
  for_elements(ctx, values, [&](auto type, int64_t i, int64_t begin, int64_t end) {
    using T = typename decltype(type)::type;
    T *p = values[i].data<T>(), *q = slow[i].data<T>();
    const optim::Lookahead<T> f(alpha);
#pragma omp simd
    for (int64_t k = begin; k < end; ++k) f(p[k], q[k]);
  });
}

void ema_update(Context& ctx, std::span<const Tensor> values, std::span<Tensor> shadow, double decay) {
  constexpr const char* where = "ema_update";
  check_pairs(ctx, where, values, "shadow", shadow);
  check_fraction(where, "decay", decay);
  const auto scope = ctx.profiler().scope(where, 3. * bytes_of(values));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::ema_update(ctx, values, shadow, decay);
  for_elements(ctx, values, [&](auto type, int64_t i, int64_t begin, int64_t end) {
    using T = typename decltype(type)::type;
    const T* p = values[i].data<T>();
    T* q = shadow[i].data<T>();
    const optim::Ema<T> f(decay);
#pragma omp simd
    for (int64_t k = begin; k < end; ++k) f(p[k], q[k]);
  });
}

void gradient_norm(Context& ctx, std::span<const Tensor> gradients, Tensor& norm) {
  constexpr const char* where = "gradient_norm";
  for (const Tensor& g : gradients) check_f64_or_f32(ctx, where, "gradient", g);
  check_norm(ctx, where, norm);
  const auto scope = ctx.profiler().scope(where, bytes_of(gradients), 2. * bytes_of(gradients) / sizeof(float));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::gradient_norm(ctx, gradients, norm.data<double>());
  EndToEnd list(ctx, gradients);
  auto partial = ctx.scratch<double>(list.pieces());
  list.for_each([&](int64_t i, int64_t begin, int64_t end, int64_t piece) {
    dispatch(gradients[i].dtype(), [&](auto type) {
      const auto* g = gradients[i].data<typename decltype(type)::type>();
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t k = begin; k < end; ++k) sum += double(g[k]) * double(g[k]);
      partial[piece] = sum;
    });
  });
  double total = 0;
  for (size_t i = 0; i < gradients.size(); ++i) {
    double squared = 0;
    const auto [first, last] = list.piece_range(i);
    for (int64_t piece = first; piece < last; ++piece) squared += partial[piece];
    const double root = std::sqrt(squared);
    total += root * root;
  }
  *norm.data<double>() = std::sqrt(total);
}

void clip_by_norm(Context& ctx, std::span<Tensor> gradients, double max_norm, const Tensor& norm) {
  constexpr const char* where = "clip_by_norm";
  for (const Tensor& g : gradients) check_f64_or_f32(ctx, where, "gradient", g);
  check_norm(ctx, where, norm);
  if (!(max_norm >= 0)) fail(where, "max_norm is {}, expected a number of at least 0", max_norm);
  const auto scope = ctx.profiler().scope(where, 2. * bytes_of(gradients));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::clip_by_norm(ctx, gradients, max_norm, norm.data<double>());
  const double factor = optim::clip_factor(max_norm, norm.item());
  if (factor >= 1) return;
  for_elements(ctx, gradients, [&](auto type, int64_t i, int64_t begin, int64_t end) {
    using T = typename decltype(type)::type;
    T* g = gradients[i].data<T>();
    const T f = T(factor);
#pragma omp simd
    for (int64_t k = begin; k < end; ++k) g[k] *= f;
  });
}

void clip_by_value(Context& ctx, std::span<Tensor> gradients, double limit) {
  constexpr const char* where = "clip_by_value";
  for (const Tensor& g : gradients) check_f64_or_f32(ctx, where, "gradient", g);
  if (!(limit >= 0)) fail(where, "limit is {}, expected a number of at least 0", limit);
  const auto scope = ctx.profiler().scope(where, 2. * bytes_of(gradients));
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::clip_by_value(ctx, gradients, limit);
  for_elements(ctx, gradients, [&](auto type, int64_t i, int64_t begin, int64_t end) {
    using T = typename decltype(type)::type;
    T* g = gradients[i].data<T>();
    const optim::ClipByValue<T> f(limit);
#pragma omp simd
    for (int64_t k = begin; k < end; ++k) f(g[k]);
  });
}

}  // namespace lightcone::kernels
