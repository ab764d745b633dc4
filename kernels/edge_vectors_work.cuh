#pragma once
#include "kernels/device.cuh"
#include "kernels/edge_vectors_math.h"

// How the pairs of a batch become work for blocks: a block takes items, some receivers of a jet, and goes through their
// pairs in tiles, a few receivers times some senders. How a jet is cut into tiles depends on its length alone.
namespace lightcone::kernels::edge {

/// The most receivers of a tile: a x b <= 128 pairs with b >= min(a, 17), see Cut.
inline constexpr int most_receivers = 12;

struct Cut {
  int senders, receivers;
  /// For a jet of N and tiles of at most P pairs: senders in equal chunks of up to a warp's lanes.
  LIGHTCONE_HOST_DEVICE Cut(int N, int P) {
    const int width = P < 32 ? P : 32, chunks = (N + width - 1) / width;
    senders = (N + chunks - 1) / chunks;
    receivers = P / senders < N ? P / senders : N;
  }
};

/// The receivers [first, last) of the jet with the rows [begin, end).
struct Item {
  int32_t begin, end, first, last;
  int32_t group;  ///< of the jet's items
  LIGHTCONE_HOST_DEVICE int64_t pairs() const { return int64_t{last - first} * (end - begin); }
  int64_t pairs_before;  ///< of earlier jets
};

/// The items of a batch, the largest first; rows(N) receivers each.
template <class Rows>
std::vector<Item> items_of(const Tensor& ptr, Rows rows) {
  std::vector<Item> items;
  int64_t pairs = 0;
  const auto offsets = ptr.offsets();
  for (int64_t b = 0; b + 1 < ptr.numel(); ++b) {
    const int32_t begin = offsets[b], end = offsets[b + 1], step = begin < end ? rows(end - begin) : 1;
    int32_t group = 0;
    for (int32_t first = begin; first < end; first += step)
      items.push_back({begin, end, first, std::min(first + step, end), group++, pairs});
    pairs += int64_t{end - begin} * (end - begin - 1);
  }
  std::ranges::stable_sort(items, [](const Item& a, const Item& b) { return a.pairs() > b.pairs(); });
  return items;
}

/// On the GPU.
class Items {
 public:
  Items(Context& ctx, const std::vector<Item>& items)
      : count_(static_cast<int>(items.size())), scratch_(ctx, static_cast<int64_t>(items.size())) {
    if (count_ > 0) ctx.allocator().copy_in(scratch_.data(), items.data(), items.size() * sizeof(Item));
  }
  const Item* data() { return scratch_.data(); }
  int count() const { return count_; }

 private:
  int count_;
  Context::Scratch<Item> scratch_;
};

/// In the backward a jet is cut into at most four groups of receivers, whose sums for senders meet at the end.
struct Groups {
  int rows, count;
  LIGHTCONE_HOST_DEVICE Groups(int N, int P) {
    const int a = Cut(N, P).receivers, wanted = N > 96 ? 4 : (N + 31) / 32;
    rows = ((N + wanted - 1) / wanted + a - 1) / a * a;
    count = (N + rows - 1) / rows;
  }
};

/// Four-vectors in f64 whatever the tensor holds.
struct InDoubles {
  const double* f64;
  const float* f32;
  explicit InDoubles(const Tensor& t)
      : f64(t.dtype() == DType::f64 ? t.data<double>() : nullptr),
        f32(t.dtype() == DType::f64 ? nullptr : t.data<float>()) {}
  __device__ double operator[](int64_t i) const { return f64 ? f64[i] : f32[i]; }
};
struct OutDoubles {
  double* f64;
  float* f32;
  explicit OutDoubles(Tensor* t)
      : f64(t && t->dtype() == DType::f64 ? t->data<double>() : nullptr),
        f32(t && t->dtype() != DType::f64 ? t->data<float>() : nullptr) {}
  explicit operator bool() const { return f64 || f32; }
  __device__ void store(int64_t i, double v) const {
    if (f64)
      f64[i] = v;
    else
      f32[i] = static_cast<float>(v);
  }
};

/// Cuts shared memory into arrays; with nullptr it counts.
class Carve {
 public:
  LIGHTCONE_HOST_DEVICE explicit Carve(char* base) : base_(base) {}
  template <class T>
  LIGHTCONE_HOST_DEVICE T* take(int64_t n) {
    const size_t at = bytes;
    bytes += (n * sizeof(T) + 15) / 16 * 16;
    return reinterpret_cast<T*>(base_ + at);
  }
  size_t bytes = 0;

 private:
  char* base_;
};

}  // namespace lightcone::kernels::edge
