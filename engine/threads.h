#pragma once
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <vector>

#include "engine/context.h"

namespace lightcone {

/// Calls f(chunk, begin, end) for the chunks [0, grain), [grain, 2·grain), … of n items, on the Context's threads. The
/// cut depends on n and grain alone, never on the number of threads, so a result that is a function of the chunk has
/// the same bits for any number of them. One chunk runs on the caller's thread without starting others. The first
/// exception (by chunk) is rethrown.
template <class F>
void parallel_chunks(const Context& ctx, int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  ctx.require_cpu();
  const int64_t chunks = (n + grain - 1) / grain;
  const int threads = static_cast<int>(std::min<int64_t>(ctx.threads(), chunks));
  if (threads <= 1 || omp_in_parallel()) {
    for (int64_t c = 0; c < chunks; ++c) f(c, c * grain, std::min(n, (c + 1) * grain));
    return;
  }
  std::exception_ptr failure;
  int64_t failed = chunks;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t c = 0; c < chunks; ++c) {
    try {
      f(c, c * grain, std::min(n, (c + 1) * grain));
    } catch (...) {
#pragma omp critical(lightcone_failure)
      if (c < failed) {
        failed = c;
        failure = std::current_exception();
      }
    }
  }
  if (failure) std::rethrow_exception(failure);
}

/// Items per chunk so that a chunk touches about `work` elements: enough to pay for a hand-over between threads, few
/// enough to share.
inline int64_t grain_for(int64_t elements_per_item, int64_t work = 16384) {
  return std::max<int64_t>(1, work / std::max<int64_t>(1, elements_per_item));
}

/// f(row) for every row; rows of `cols` elements are handed out in chunks of about 16384 elements.
template <class F>
void parallel_rows(const Context& ctx, int64_t rows, int64_t cols, F&& f) {
  parallel_chunks(ctx, rows, grain_for(cols), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r);
  });
}

/// Sum of f(chunk, begin, end) over the chunks, added in chunk order.
template <class Sum, class F>
Sum parallel_sum(const Context& ctx, int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return Sum{};
  std::vector<Sum> partial((n + grain - 1) / grain);
  parallel_chunks(ctx, n, grain, [&](int64_t c, int64_t begin, int64_t end) { partial[c] = f(c, begin, end); });
  Sum sum{};
  for (const Sum& p : partial) sum += p;
  return sum;
}

}  // namespace lightcone
