#include "kernels/loss.h"

#include <algorithm>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/elementwise_math.h"

namespace lightcone::kernels {

namespace cpu {
constexpr int64_t grain = 4096;

// The mean of f(x, t) over all elements.
template <class T, class F>
double mean(Context& ctx, int64_t n, const T* x, const T* t, F f) {
  return parallel_sum<double>(ctx, n, grain,
                              [&](int64_t, int64_t begin, int64_t end) {
                                sum_type<T> terms[grain];
                                vector_math::map(end - begin, terms, f, x + begin, t + begin);
                                double sum = 0;
                                for (int64_t i = 0; i < end - begin; ++i) sum += terms[i];
                                return sum;
                              }) /
         static_cast<double>(n);
}

template <class T, class F>
void map(Context& ctx, int64_t n, const T* x, const T* t, T* dx, F f) {
  parallel_chunks(ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) {
    vector_math::map(end - begin, dx + begin, f, x + begin, t + begin);
  });
}

// log sum_c exp(x[c]), shifted by the largest so that nothing overflows.
template <class T, class Sum = sum_type<T>>
Sum log_sum_exp(int64_t cols, const T* x) {
  const Sum largest = Sum(*std::max_element(x, x + cols));
  Sum sum = 0;
  for (int64_t c = 0; c < cols; ++c) sum += std::exp(Sum(x[c]) - largest);
  return largest + std::log(sum);
}

template <class T, class Sum = sum_type<T>>
double cross_entropy(Context& ctx, int64_t rows, int64_t cols, const T* x, const int64_t* labels) {
  return parallel_sum<double>(ctx, rows, grain_for(cols, grain),
                              [&](int64_t, int64_t begin, int64_t end) {
                                double sum = 0;
                                for (int64_t b = begin; b < end; ++b)
                                  sum += log_sum_exp(cols, x + b * cols) - Sum(x[b * cols + labels[b]]);
                                return sum;
                              }) /
         static_cast<double>(rows);
}

template <class T, class Sum = sum_type<T>>
void cross_entropy_backward(Context& ctx, int64_t rows, int64_t cols, Sum factor, const T* x, const int64_t* labels,
                            T* dx) {
  parallel_chunks(ctx, rows, grain_for(cols, grain), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const Sum total = log_sum_exp(cols, x + b * cols);
      for (int64_t c = 0; c < cols; ++c)
        dx[b * cols + c] = T(factor * (std::exp(Sum(x[b * cols + c]) - total) - Sum(c == labels[b])));
    }
  });
}
}  // namespace cpu

namespace {

void check_loss(const char* where, const char* name, const Tensor& x, const Tensor& loss) {
  check(where, name, x).compute();
  if (x.numel() == 0) fail(where, "{} has shape {}; there is no mean of 0 elements", name, x.shape());
  check(where, "loss", loss).shape({1}).dtype(sum_dtype(x.dtype()));
}

void check_cross_entropy(const char* where, const Tensor& logits, const Tensor& labels, const Tensor& loss) {
  check(where, "logits", logits).rank(2);
  check_loss(where, "logits", logits, loss);
  check(where, "labels", labels).shape({logits.dim(0)}).dtype(DType::i64);
  const auto l = labels.span<int64_t>();
  for (size_t b = 0; b < l.size(); ++b)
    if (l[b] < 0 || l[b] >= logits.dim(1)) fail(where, "label {} is {}, expected 0 to {}", b, l[b], logits.dim(1) - 1);
}

// loss = <term(x, t)>; term works on the type of sums.
template <class F>
void forward(const char* where, const char* name, Context& ctx, const Tensor& x, const Tensor& targets, Tensor& loss,
             F term) {
  check_loss(where, name, x, loss);
  check(where, "targets", targets).like(x);
  const auto scope = ctx.profiler().scope(where, 2. * x.bytes());
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    *loss.data<Sum>() = static_cast<Sum>(cpu::mean(ctx, x.numel(), x.data<T>(), targets.data<T>(), term));
  });
}

// dx = dloss slope(x, t) / n
template <class F>
void backward(const char* where, const char* name, Context& ctx, const Tensor& dloss, const Tensor& x,
              const Tensor& targets, Tensor& dx, F slope) {
  check_loss(where, name, x, dloss);
  check(where, "targets", targets).like(x);
  check(where, "the gradient", dx).like(x);
  const auto scope = ctx.profiler().scope(where, 3. * x.bytes());
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    const Sum factor = static_cast<Sum>(dloss.item() / static_cast<double>(x.numel()));
    cpu::map(ctx, x.numel(), x.data<T>(), targets.data<T>(), dx.data<T>(),
             [=](Sum v, Sum t) { return factor * slope(v, t); });
  });
}

}  // namespace

void bce_with_logits(Context& ctx, const Tensor& logits, const Tensor& targets, Tensor& loss) {
  // softplus(x) - t x = max(x, 0) - t x + log(1 + exp(-|x|)): for t = 1 and large x the first two cancel exactly.
  forward("bce_with_logits", "logits", ctx, logits, targets, loss, [](auto x, auto t) {
    using T = decltype(x);
    return std::max(x, T(0)) - t * x + vector_math::log1p(vector_math::exp(-std::abs(x)));
  });
}

void bce_with_logits_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& targets,
                              Tensor& dlogits) {
  backward("bce_with_logits_backward", "logits", ctx, dloss, logits, targets, dlogits,
           [](auto x, auto t) { return elementwise::sigmoid(x) - t; });
}

void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& labels, Tensor& loss) {
  check_cross_entropy("cross_entropy", logits, labels, loss);
  const auto scope = ctx.profiler().scope("cross_entropy", logits.bytes());
  dispatch_compute("cross_entropy", logits.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    *loss.data<Sum>() = static_cast<Sum>(
        cpu::cross_entropy(ctx, logits.dim(0), logits.dim(1), logits.data<T>(), labels.data<int64_t>()));
  });
}

void cross_entropy_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            Tensor& dlogits) {
  check_cross_entropy("cross_entropy_backward", logits, labels, dloss);
  check("cross_entropy_backward", "dlogits", dlogits).like(logits);
  const auto scope = ctx.profiler().scope("cross_entropy_backward", 2. * logits.bytes());
  dispatch_compute("cross_entropy_backward", logits.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto factor = static_cast<sum_type<T>>(dloss.item() / static_cast<double>(logits.dim(0)));
    cpu::cross_entropy_backward(ctx, logits.dim(0), logits.dim(1), factor, logits.data<T>(), labels.data<int64_t>(),
                                dlogits.data<T>());
  });
}

void mse(Context& ctx, const Tensor& predictions, const Tensor& targets, Tensor& loss) {
  forward("mse", "predictions", ctx, predictions, targets, loss, [](auto x, auto t) { return (x - t) * (x - t); });
}

void mse_backward(Context& ctx, const Tensor& dloss, const Tensor& predictions, const Tensor& targets,
                  Tensor& dpredictions) {
  backward("mse_backward", "predictions", ctx, dloss, predictions, targets, dpredictions,
           [](auto x, auto t) { return 2 * (x - t); });
}

}  // namespace lightcone::kernels
