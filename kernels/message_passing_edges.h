#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/tensor.h"

// The edges of jets' complete graphs, in the order of message_passing.h.
namespace lightcone::kernels::messages {

/// Edges are worked on so many at a time; a layer's values then stay in the second-level cache.
inline constexpr int64_t block = 128;

/// Consecutive edges.
struct EdgeBlock {
  int64_t first, count;
  int32_t receiver[block], sender[block];
};

struct Graph {
  const int32_t* ptr;
  std::vector<int32_t> begin, end;  ///< the jet of each constituent
  std::vector<int64_t> before;      ///< edges in front of each constituent's as a receiver, and all

  explicit Graph(const Tensor& offsets) : ptr(offsets.data<int32_t>()), before{0} {
    for (int64_t b = 0; b + 1 < offsets.numel(); ++b)
      for (int32_t i = ptr[b]; i < ptr[b + 1]; ++i) {
        begin.push_back(ptr[b]), end.push_back(ptr[b + 1]);
        before.push_back(before.back() + ptr[b + 1] - ptr[b] - 1);
      }
    jets_ = offsets.numel() - 1;
  }
  int64_t jets() const { return jets_; }
  int64_t tokens() const { return static_cast<int64_t>(begin.size()); }
  int64_t edges() const { return before.back(); }
  int64_t edge(int64_t i, int64_t j) const { return before[i] + j - begin[i] - (j > i); }
  /// 1 / (number of edges) of receiver i.
  double share(int64_t i) const { return 1. / std::max(1, end[i] - begin[i] - 1); }

  /// f(EdgeBlock) for all edges of the receivers [from, to), in order.
  template <class F>
  void for_blocks(int64_t from, int64_t to, F&& f) const {
    EdgeBlock edges;
    edges.first = before[from], edges.count = 0;
    for (auto i = static_cast<int32_t>(from); i < to; ++i)
      for (int32_t j = begin[i]; j < end[i]; ++j) {
        if (j == i) continue;
        edges.receiver[edges.count] = i, edges.sender[edges.count] = j;
        if (++edges.count < block) continue;
        f(static_cast<const EdgeBlock&>(edges));
        edges.first += block, edges.count = 0;
      }
    if (edges.count) f(static_cast<const EdgeBlock&>(edges));
  }

 private:
  int64_t jets_;
};

}  // namespace lightcone::kernels::messages
