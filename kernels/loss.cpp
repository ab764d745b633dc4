#include "kernels/loss.h"

#include <algorithm>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/loss_math.h"

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

namespace cuda {  // loss.cu
template <class F>
void mean(Context& ctx, const char* where, F term, const Tensor& x, const Tensor& targets, Tensor& loss);
template <class F>
void slope(Context& ctx, const char* where, F term, const Tensor& dloss, const Tensor& x, const Tensor& targets,
           Tensor& dx);
void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& labels, Tensor& loss);
void cross_entropy_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            Tensor& dlogits);
}  // namespace cuda

namespace {

void check_loss(const Context& ctx, const char* where, const char* name, const Tensor& x, const Tensor& loss) {
  check(ctx, where, name, x).compute();
  if (x.numel() == 0) fail(where, "{} has shape {}; there is no mean of 0 elements", name, x.shape());
  check(ctx, where, "loss", loss).shape({1}).dtype(sum_dtype(x.dtype()));
}

void check_cross_entropy(const Context& ctx, const char* where, const Tensor& logits, const Tensor& labels,
                         const Tensor& loss) {
  check(ctx, where, "logits", logits).rank(2);
  check_loss(ctx, where, "logits", logits, loss);
  check(ctx, where, "labels", labels).shape({logits.dim(0)}).dtype(DType::i64);
  if (ctx.device() != Device::cpu) return;
  const auto l = labels.span<int64_t>();
  for (size_t b = 0; b < l.size(); ++b)
    if (l[b] < 0 || l[b] >= logits.dim(1)) fail(where, "label {} is {}, expected 0 to {}", b, l[b], logits.dim(1) - 1);
}

// loss = <term(x, t)>
template <class F>
void forward(const char* where, const char* name, Context& ctx, F term, const Tensor& x, const Tensor& targets,
             Tensor& loss) {
  check_loss(ctx, where, name, x, loss);
  check(ctx, where, "targets", targets).like(x);
  const auto scope = ctx.profiler().scope(where, 2. * x.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::mean(ctx, where, term, x, targets, loss);
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    *loss.data<Sum>() = static_cast<Sum>(cpu::mean(ctx, x.numel(), x.data<T>(), targets.data<T>(), term));
  });
}

// dx = the slope of that mean at x, times dloss
template <class F>
void backward(const char* where, const char* name, Context& ctx, F term, const Tensor& dloss, const Tensor& x,
              const Tensor& targets, Tensor& dx) {
  check_loss(ctx, where, name, x, dloss);
  check(ctx, where, "targets", targets).like(x);
  check(ctx, where, "the gradient", dx).like(x);
  const auto scope = ctx.profiler().scope(where, 3. * x.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::slope(ctx, where, term, dloss, x, targets, dx);
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    const Sum factor = static_cast<Sum>(dloss.item() / static_cast<double>(x.numel()));
    cpu::map(ctx, x.numel(), x.data<T>(), targets.data<T>(), dx.data<T>(),
             [=](Sum v, Sum t) { return loss::slope<F>(factor, v, t); });
  });
}

}  // namespace

void bce_with_logits(Context& ctx, const Tensor& logits, const Tensor& targets, Tensor& loss) {
  forward("bce_with_logits", "logits", ctx, loss::BinaryCrossEntropy(), logits, targets, loss);
}

void bce_with_logits_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& targets,
                              Tensor& dlogits) {
  backward("bce_with_logits_backward", "logits", ctx, loss::BinaryCrossEntropy(), dloss, logits, targets, dlogits);
}

void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& labels, Tensor& loss) {
  check_cross_entropy(ctx, "cross_entropy", logits, labels, loss);
  const auto scope = ctx.profiler().scope("cross_entropy", logits.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::cross_entropy(ctx, logits, labels, loss);
  dispatch_compute("cross_entropy", logits.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using Sum = sum_type<T>;
    *loss.data<Sum>() = static_cast<Sum>(
        cpu::cross_entropy(ctx, logits.dim(0), logits.dim(1), logits.data<T>(), labels.data<int64_t>()));
  });
}

void cross_entropy_backward(Context& ctx, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            Tensor& dlogits) {
  check_cross_entropy(ctx, "cross_entropy_backward", logits, labels, dloss);
  check(ctx, "cross_entropy_backward", "dlogits", dlogits).like(logits);
  const auto scope = ctx.profiler().scope("cross_entropy_backward", 2. * logits.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::cross_entropy_backward(ctx, dloss, logits, labels, dlogits);
  dispatch_compute("cross_entropy_backward", logits.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto factor = static_cast<sum_type<T>>(dloss.item() / static_cast<double>(logits.dim(0)));
    cpu::cross_entropy_backward(ctx, logits.dim(0), logits.dim(1), factor, logits.data<T>(), labels.data<int64_t>(),
                                dlogits.data<T>());
  });
}

void mse(Context& ctx, const Tensor& predictions, const Tensor& targets, Tensor& loss) {
  forward("mse", "predictions", ctx, loss::SquaredError(), predictions, targets, loss);
}

void mse_backward(Context& ctx, const Tensor& dloss, const Tensor& predictions, const Tensor& targets,
                  Tensor& dpredictions) {
  backward("mse_backward", "predictions", ctx, loss::SquaredError(), dloss, predictions, targets, dpredictions);
}

}  // namespace lightcone::kernels
