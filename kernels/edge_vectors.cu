#include "kernels/edge_vectors_backward.cuh"
#include "kernels/edge_vectors_forward.cuh"

namespace lightcone::kernels {

namespace {

using namespace edge;

/// The most blocks: what a large GPU holds at once, but the same on all, so that sums over blocks are, too. Fewer where
/// each has arrays in global memory.
constexpr int most_blocks = 528, most_blocks_outside = 64;

extern __shared__ __align__(16) char shared_memory[];

// A block takes the items blockIdx.x, blockIdx.x + blocks … and goes through the tiles of each: for each few receivers
// all senders, a tile's pairs at a time.
template <class S, int width>
__global__ void __launch_bounds__(threads<width>, least_blocks<S, width>)
    forward_kernel(Network<S> net, EdgeWeight kind, bool mean, bool layer_norm, int items, const Item* item_list, int P,
                   S* outside, int64_t outside_size, OutDoubles y, S* lse, double* norm) {
  Carve carve(shared_memory);
  const auto tile = tile_in<width, false>(carve, net, P, !outside, outside + blockIdx.x * outside_size);
  const Averages<S> averages(carve, net, P);
  copy_weights<width>(net, tile);
  for (int at = blockIdx.x; at < items; at += gridDim.x) {
    const Item item = item_list[at];
    const int N = item.end - item.begin;
    const Cut cut(N, P);
    const double share = mean ? 1. / (N > 2 ? N - 1 : 1) : 1.;
    for (int i0 = item.first; i0 < item.last; i0 += cut.receivers) {
      averages.clear(net);
      for (int j0 = item.begin; j0 < item.end; j0 += cut.senders) {
        set_pairs(net, tile, item, cut, i0, j0, averages.momenta);
        run_forward<width, false>(net, tile);
        averages.add(net, tile, kind, cut);
        __syncthreads();
      }
      const int receivers = min(cut.receivers, item.last - i0);
      averages.finish(net, kind, layer_norm, share, i0, receivers, y, lse, norm);
      __syncthreads();
    }
  }
}

/// Where the backward's sums go.
template <class S>
struct Results {
  S* blocks;             ///< of the perceptron, packed, for each block
  S *receiver, *sender;  ///< [T, H]; [group][T, H]
  double *of_i, *of_j;   ///< of momenta, likewise; or null
  int64_t rows;          ///< T
};

// A block takes items as in the forward; for each few senders all of the item's receivers. It alone adds to a row of
// its receivers, and to one of its group's senders.
template <class S, int width>
__global__ void __launch_bounds__(threads<width>, least_blocks<S, width>)
    backward_kernel(Network<S> net, EdgeWeight kind, int items, const Item* item_list, int P, S* outside,
                    int64_t outside_size, ToSums to_sums, const S* lse, Results<S> to) {
  Carve carve(shared_memory);
  const auto tile = tile_in<width, true>(carve, net, P, !outside, outside + blockIdx.x * outside_size);
  double* df = to.of_i ? carve.take<double>(8 * P) : nullptr;
  S* const result = to.blocks + blockIdx.x * net.size();
  S* const sums = width ? carve.take<S>(net.size()) : result;
  for (int64_t k = threadIdx.x; k < net.size(); k += blockDim.x) sums[k] = 0;
  copy_weights<width>(net, tile);
  const int H = net.H;
  for (int at = blockIdx.x; at < items; at += gridDim.x) {
    const Item item = item_list[at];
    const Cut cut(item.end - item.begin, P);
    const int64_t group = item.group * to.rows;
    for (int j0 = item.begin; j0 < item.end; j0 += cut.senders)
      for (int i0 = item.first; i0 < item.last; i0 += cut.receivers) {
        set_pairs(net, tile, item, cut, i0, j0, nullptr);
        run_forward<width, true>(net, tile);
        to_logits(net, tile, kind, to_sums, lse, df);
        run_backward<width>(net, tile);
        if (df) to_momenta(net, tile, df);
        add_gradients(net, tile, sums);
        const int rows = min(cut.receivers, item.last - i0), senders = min(cut.senders, item.end - j0);
        const bool first = j0 == item.begin, first_of_senders = i0 == item.first;
        add_to_rows(tile, rows, cut.senders, senders, 1, H, tile.gradient(net, 0), first,
                    to.receiver + int64_t{i0} * H);
        add_to_rows(tile, senders, 1, rows, cut.senders, H, tile.gradient(net, 0), first_of_senders,
                    to.sender + (group + j0) * H);
        if (df) {
          add_to_momenta(P, rows, cut.senders, senders, 1, df, first, to.of_i + int64_t{i0} * 4);
          add_to_momenta(P, senders, 1, rows, cut.senders, df + 4 * P, first_of_senders, to.of_j + (group + j0) * 4);
        }
        __syncthreads();
      }
  }
  if constexpr (width > 0)
    for (int64_t k = threadIdx.x; k < net.size(); k += blockDim.x) result[k] = sums[k];
}

// A thread takes an element of the padded `to` at a time, zero where `x` [rows, cols] has none.
template <class S>
__global__ void pack_kernel(int rows, int cols, int width, int64_t count, const S* x, S* to) {
  for (int64_t t = cuda::first_item(); t < count; t += cuda::item_step()) {
    const int64_t r = t / width, c = t % width;
    to[t] = r < rows && c < cols ? x[r * cols + c] : S(0);
  }
}

// A block takes an item, a thread some of its pairs i < j: the sum of ln m^2 - mean, or of its square.
__global__ void statistics_kernel(const Item* items, InDoubles p, double mean, bool squares, double* sums) {
  const Item item = items[blockIdx.x];
  const int N = item.end - item.begin;
  double sum = 0;
  for (int64_t t = threadIdx.x; t < item.pairs(); t += blockDim.x) {
    const int64_t i = item.first + t / N, j = item.begin + t % N;
    if (j <= i) continue;
    double s[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) s[c] = p[4 * i + c] + p[4 * j + c];
    const double e = std::log(at_least(minkowski(s, s), 1e-10)) - mean;
    sum += squares ? e * e : e;
  }
  __shared__ double of_warp[cuda::block_threads / 32];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < cuda::block_threads / 32; ++warp) sum += of_warp[warp];
  sums[blockIdx.x] = sum;
}

/// The kernels' network: padded and packed.
template <class S>
class Packed {
 public:
  Packed(Context& ctx, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp, const EdgeVectorsOptions& o,
         const Draw& draw)
      : numbers_(ctx, o.dropout > 0 ? draw : Draw{}), net_(network(p, ptr, mlp, o)), scratch_(ctx, net_.size()) {
    net_.packed = scratch_.data();
    net_.numbers = numbers_;
    auto pack = [&](const Tensor* x, int64_t rows, int64_t cols, int64_t rows_to, int width, int64_t at) {
      const int64_t count = rows_to * width;
      cuda::launch(ctx, "edge_vectors: pack", pack_kernel<S>, {cuda::blocks_for(count), cuda::block_threads},
                   static_cast<int>(rows), static_cast<int>(cols), width, count, x ? x->data<S>() : nullptr,
                   scratch_.data() + at);
    };
    pack(net_.edges ? &mlp.edge : nullptr, net_.edges, net_.H, 1, net_.Hp, 0);
    for (int l = 0; l < net_.depth; ++l) {
      pack(&mlp.weights[l], net_.real_rows(l), net_.H, net_.rows(l), net_.Hp, net_.weights(l));
      pack(&mlp.biases[l], 1, net_.real_rows(l), 1, net_.rows(l), net_.bias(l));
    }
  }
  const Network<S>& network() const { return net_; }

 private:
  static Network<S> network(const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp, const EdgeVectorsOptions& o) {
    const int H = static_cast<int>(mlp.receiver.dim(1)), n = static_cast<int>(mlp.weights.back().dim(0));
    return {.H = H,
            .Hp = std::is_same_v<S, float> && H <= 32 ? std::max(8, static_cast<int>(std::bit_ceil(unsigned(H))))
                                                      : (H + 7) / 8 * 8,
            .n = n,
            .np = (n + 3) / 4 * 4,
            .depth = static_cast<int>(mlp.weights.size()),
            .receiver = mlp.receiver.data<S>(),
            .sender = mlp.sender.data<S>(),
            .packed = nullptr,
            .pair = PairOptions(p, o),
            .edges = mlp.edge.defined(),
            .words = H % 4 == 0 && cuda::aligned<4>(mlp.receiver.data<S>(), mlp.sender.data<S>()),
            .dropout = o.dropout,
            .kept = static_cast<S>(1 / (1 - o.dropout)),
            .pairs = count_pairs(ptr),
            .numbers = {}};
  }
  cuda::DrawnNumbers numbers_;
  Network<S> net_;
  Context::Scratch<S> scratch_;
};

/// The most dynamic shared memory of a block that every GPU from sm_80 on with a large part of it has (8.6: 99 KB).
constexpr size_t most_shared = 99 << 10;

/// Pairs of a tile, and shared memory for it.
struct Plan {
  int P;
  size_t shared;
  bool inside;
};
/// The largest tiles whose arrays fit; bytes(P, inside) says what they take.
template <class Bytes>
Plan plan(int most, Bytes bytes) {
  for (int P = most; P >= 16; P /= 2)
    if (const size_t shared = bytes(P, true); shared <= most_shared) return {P, shared, true};
  return {16, bytes(16, false), false};
}

template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  cuda::check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
                   "edge_vectors: shared memory");
}

template <class S, int width>
void forward(Context& ctx, const Network<S>& net, const Tensor& ptr, const EdgeVectorsOptions& o, Tensor& vectors,
             Tensor& lse, Tensor& norm) {
  const Plan planned = plan(width ? register_pairs : 64, [&](int P, bool inside) {
    Carve carve(nullptr);
    tile_in<width, false>(carve, net, P, inside, static_cast<S*>(nullptr));
    Averages<S>(carve, net, P);
    return carve.bytes;
  });
  // Whole jets where there are many of them, so that senders are read once; else enough items for all blocks.
  double pairs = 0;
  for (int64_t b = 0; b + 1 < ptr.numel(); ++b) pairs += std::pow(ptr.offsets()[b + 1] - ptr.offsets()[b], 2.);
  Items items(ctx, items_of(ptr, [&](int N) {
                const int a = Cut(N, planned.P).receivers;
                return std::clamp(static_cast<int>(pairs / (2 * most_blocks) / N + a - 1) / a, 1, N / a + 1) * a;
              }));
  const int64_t blocks = std::min(items.count(), planned.inside ? most_blocks : most_blocks_outside);
  const int64_t outside_size = planned.inside ? 0 : outside_elements<false>(net, planned.P);
  auto outside = ctx.scratch<S>(blocks * outside_size);
  auto kernel = forward_kernel<S, width>;
  allow_shared(kernel, planned.shared);
  cuda::launch(ctx, "edge_vectors", kernel, {blocks, threads<width>, planned.shared}, net, o.nonlinearity,
               o.aggregation == Pool::mean, o.layer_norm, items.count(), items.data(), planned.P,
               planned.inside ? nullptr : outside.data(), outside_size, OutDoubles(&vectors), lse.data<S>(),
               norm.data<double>());
}

template <class S>
struct StoreRows {
  S* to;
  __device__ void operator()(int64_t t, S sum) const { to[t] = sum; }
};
struct StoreMomenta {
  const double* of_i;
  OutDoubles to;
  __device__ void operator()(int64_t t, double of_j) const { to.store(t, of_i[t] + of_j); }
};

template <class S, int width>
void backward(Context& ctx, const Network<S>& net, const Tensor& dvectors, const Tensor& ptr,
              const EdgeVectorsOptions& o, const Tensor& vectors, const Tensor& lse, const Tensor& norm,
              EdgeMlp& gradients, Tensor* dp) {
  const int64_t T = vectors.dim(0), jets = ptr.numel() - 1;
  const bool softmax = o.nonlinearity == EdgeWeight::softmax;
  const Plan planned = plan(width ? register_pairs : 64, [&](int P, bool inside) {
    Carve carve(nullptr);
    tile_in<width, true>(carve, net, P, inside, static_cast<S*>(nullptr));
    if (dp) carve.take<double>(8 * P);
    if (width) carve.take<S>(net.size());
    return carve.bytes;
  });
  const int P = planned.P;
  auto dv = ctx.scratch<double>(T * net.n * 4), less = ctx.scratch<double>(T * net.n);
  cuda::launch(ctx, "edge_vectors_backward: sums", to_sums_kernel, {std::min<int64_t>(jets, 1 << 16), 64},
               static_cast<int>(jets), ptr.data<int32_t>(), net.n, o.aggregation == Pool::mean, o.layer_norm, softmax,
               largest_gradient<S>, InDoubles(dvectors), InDoubles(vectors), norm.data<double>(), dv.data(),
               less.data());

  const std::vector<Item> list = items_of(ptr, [&](int N) { return Groups(N, P).rows; });
  int64_t groups = 0;
  for (const Item& item : list) groups = std::max<int64_t>(groups, item.group + 1);
  Items items(ctx, list);
  const int64_t blocks = std::min<int64_t>({items.count(), planned.inside ? most_blocks : most_blocks_outside,
                                            std::max<int64_t>(1, (int64_t{1} << 22) / net.size())});
  const int64_t outside_size = planned.inside ? 0 : outside_elements<true>(net, P);
  auto outside = ctx.scratch<S>(blocks * outside_size), of_blocks = ctx.scratch<S>(blocks * net.size());
  auto of_groups = ctx.scratch<S>(groups > 1 ? groups * T * net.H : 0);
  auto of_i = ctx.scratch<double>(dp ? T * 4 : 0), of_j = ctx.scratch<double>(dp ? groups * T * 4 : 0);
  const Results<S> results{of_blocks.data(),
                           gradients.receiver.data<S>(),
                           groups > 1 ? of_groups.data() : gradients.sender.data<S>(),
                           dp ? of_i.data() : nullptr,
                           dp ? of_j.data() : nullptr,
                           T};
  auto kernel = backward_kernel<S, width>;
  allow_shared(kernel, planned.shared);
  cuda::launch(ctx, "edge_vectors_backward", kernel, {blocks, threads<width>, planned.shared}, net, o.nonlinearity,
               items.count(), items.data(), P, planned.inside ? nullptr : outside.data(), outside_size,
               ToSums{dv.data(), less.data()}, lse.data<S>(), results);

  if (groups > 1)
    cuda::launch(ctx, "edge_vectors_backward: senders", sum_groups_kernel<S, StoreRows<S>>, {jets, cuda::block_threads},
                 ptr.data<int32_t>(), P, T, net.H, results.sender, StoreRows<S>{gradients.sender.data<S>()});
  if (dp && T > 0)
    cuda::launch(ctx, "edge_vectors_backward: momenta", sum_groups_kernel<double, StoreMomenta>,
                 {jets, cuda::block_threads}, ptr.data<int32_t>(), P, T, 4, results.of_j,
                 StoreMomenta{of_i.data(), OutDoubles(dp)});
  auto sum = [&](Tensor& to, int cols, int row, int64_t at) {
    const int64_t count = to.numel();
    cuda::launch(ctx, "edge_vectors_backward: perceptron", sum_blocks_kernel<S>, {(count + 31) / 32, 256},
                 static_cast<int>(blocks), net.size(), cols, row, count, of_blocks.data() + at, to.data<S>());
  };
  if (net.edges) sum(gradients.edge, net.H, net.Hp, 0);
  for (int l = 0; l < net.depth; ++l) {
    sum(gradients.weights[l], net.H, net.Hp, net.weights(l));
    sum(gradients.biases[l], net.real_rows(l), net.rows(l), net.bias(l));
  }
}

}  // namespace

namespace cuda {

/// f<width> for this network: in registers for f32 up to 32 channels.
template <class S, class F>
void with_width(const Network<S>& net, F&& f) {
  if constexpr (std::is_same_v<S, float>) {
    if (net.Hp == 8) return f(std::integral_constant<int, 8>{});
    if (net.Hp == 16) return f(std::integral_constant<int, 16>{});
    if (net.Hp == 32) return f(std::integral_constant<int, 32>{});
  }
  f(std::integral_constant<int, 0>{});
}

void edge_vectors(Context& ctx, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp, const EdgeVectorsOptions& o,
                  const Draw& dropout, Tensor& vectors, Tensor& lse, Tensor& norm) {
  dispatch_momentum("edge_vectors", mlp.receiver.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    const Packed<S> packed(ctx, p, ptr, mlp, o, dropout);
    with_width(packed.network(),
               [&](auto width) { forward<S, width()>(ctx, packed.network(), ptr, o, vectors, lse, norm); });
  });
}

void edge_vectors_backward(Context& ctx, const Tensor& dvectors, const Tensor& p, const Tensor& ptr, const EdgeMlp& mlp,
                           const EdgeVectorsOptions& o, const Draw& dropout, const Tensor& vectors, const Tensor& lse,
                           const Tensor& norm, EdgeMlp& gradients, Tensor* dp) {
  dispatch_momentum("edge_vectors_backward", mlp.receiver.dtype(), [&](auto type) {
    using S = typename decltype(type)::type;
    const Packed<S> packed(ctx, p, ptr, mlp, o, dropout);
    with_width(packed.network(), [&](auto width) {
      backward<S, width()>(ctx, packed.network(), dvectors, ptr, o, vectors, lse, norm, gradients, dp);
    });
  });
}

EdgeStatistics edge_statistics(Context& ctx, const Tensor& p, const Tensor& ptr, double pairs) {
  Items items(ctx, items_of(ptr, [](int N) { return std::max(1, 8192 / N); }));
  auto sums = ctx.scratch<double>(items.count());
  std::vector<double> of_items(items.count());
  auto sum = [&](double mean, bool squares) {
    launch(ctx, "edge_statistics", statistics_kernel, {items.count(), block_threads}, items.data(), InDoubles(p), mean,
           squares, sums.data());
    ctx.allocator().copy_out(of_items.data(), sums.data(), of_items.size() * sizeof(double));
    double all = 0;
    for (double s : of_items) all += s;
    return all * 2;
  };
  const double mean = sum(0, false) / pairs;
  return {mean, std::max(std::sqrt(sum(mean, true) / (pairs - 1)), 1e-5)};
}

}  // namespace cuda

}  // namespace lightcone::kernels
