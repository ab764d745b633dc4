#pragma once
#include <vector>

#include "engine/threads.h"

/// All ordered pairs (i, j) of a jet's constituents, i = j among them: N^2 rows, jet by jet, i by i, j by j.
namespace lightcone::kernels {

/// Pairs before each jet of `ptr` (see segment.h), and of all.
inline std::vector<int64_t> all_pairs_before(const Tensor& ptr) {
  std::vector<int64_t> sums{0};
  for (int64_t b = 0; b + 1 < ptr.numel(); ++b) {
    const int64_t N = ptr.offsets()[b + 1] - ptr.offsets()[b];
    sums.push_back(sums.back() + N * N);
  }
  return sums;
}
inline int64_t count_all_pairs(const Tensor& ptr) { return all_pairs_before(ptr).back(); }

/// f(jet, its first pair, its first constituent, N) for every jet, in chunks by the work per pair.
template <class F>
void for_each_jet_of_pairs(Context& ctx, const Tensor& ptr, int64_t work, F&& f) {
  const std::vector<int64_t> pairs = all_pairs_before(ptr);
  const auto jets = static_cast<int64_t>(pairs.size()) - 1;
  const int32_t* p = ptr.data<int32_t>();
  parallel_chunks(ctx, jets, jets ? grain_for(pairs.back() / jets * work) : 1, [&](int64_t, int64_t from, int64_t to) {
    for (int64_t b = from; b < to; ++b) f(b, pairs[b], int64_t{p[b]}, int64_t{p[b + 1] - p[b]});
  });
}

}  // namespace lightcone::kernels
