#include "kernels/device.cuh"
#include "kernels/optimizer_math.h"

namespace lightcone::kernels {

namespace {

using cuda::block_threads;
using cuda::Pack;

/// Tensors as a kernel's parameter: nothing is uploaded, nothing waits. Each entry has tensors of one shape, with
/// elements of X..., and what is done to their elements; entries are cut into chunks, end to end.
template <int packs_, class F, class... X>
struct Table {
  static constexpr int capacity = 128, packs = packs_, V = cuda::pack_size<X...>, chunk = packs * V * block_threads;
  struct Entry {
    F f;
    int64_t size;
    void* x[sizeof...(X)];
  };
  int count = 0;
  int end[capacity];  ///< the block behind the entry's last
  Entry entry[capacity];

  int blocks() const { return count ? end[count - 1] : 0; }
  void add(F f, int64_t size, X*... x) {
    end[count] = blocks() + static_cast<int>((size + chunk - 1) / chunk);
    entry[count++] = {f, size, {const_cast<std::remove_const_t<X>*>(x)...}};
  }
};

/// The first entry that ends behind the block: entries without elements own no block.
template <class Table>
__device__ int entry_of(const Table& table, int block) {
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (block < table.end[middle])
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

template <class X, int V>
__device__ void store_changed(X* to, const Pack<std::remove_const_t<X>, V>& pack) {
  if constexpr (!std::is_const_v<X>) cuda::store_word(to, pack);
}

// A block owns one chunk of one entry, a thread one pack of V elements of it: as words where all tensors of the entry
// are aligned for that and the pack is whole, else one by one.
template <class F, class... X>
__global__ void each_kernel(const __grid_constant__ Table<1, F, X...> table) {
  constexpr int V = table.V;
  const int i = entry_of(table, blockIdx.x), first = i ? table.end[i - 1] : 0;
  const auto& entry = table.entry[i];
  const F f = entry.f;
  if constexpr (requires { f.idle(); })
    if (f.idle()) return;
  const int64_t at = (int64_t{blockIdx.x} - first) * table.chunk + threadIdx.x * V;
  auto run = [&](X*... x) {
    if (at + V <= entry.size && ((reinterpret_cast<uintptr_t>(x) % (V * sizeof(X)) == 0) && ...)) {
      auto change = [&](Pack<std::remove_const_t<X>, V>... pack) {
#pragma unroll
        for (int k = 0; k < V; ++k) f(pack.at[k]...);
        (store_changed<X>(x + at, pack), ...);
      };
      change(Pack<std::remove_const_t<X>, V>(cuda::load_word<V>(x + at))...);
    } else {
      for (int64_t k = at; k < at + V && k < entry.size; ++k) f(x[k]...);
    }
  };
  [&]<size_t... k>(std::index_sequence<k...>) { run(static_cast<X*>(entry.x[k])...); }
  (std::index_sequence_for<X...>());
}

struct Nothing {};
template <class T>
using Squared = Table<4, Nothing, const T>;

struct Plus {
  __device__ double operator()(double a, double b) const { return a + b; }
};

// A block owns one chunk of one tensor, a thread `packs` packs of it, tails as in each_kernel. partial[block] = the sum
// of squares over the chunk, in an order that its length gives.
template <class T>
__global__ void squares_kernel(const __grid_constant__ Squared<T> table, double* partial) {
  constexpr int V = Squared<T>::V;
  const int i = entry_of(table, blockIdx.x), first = i ? table.end[i - 1] : 0;
  const T* x = static_cast<const T*>(table.entry[i].x[0]);
  const int64_t size = table.entry[i].size;
  const bool aligned = reinterpret_cast<uintptr_t>(x) % (V * sizeof(T)) == 0;
  double sum = 0;
#pragma unroll
  for (int p = 0; p < table.packs; ++p) {
    const int64_t at = (int64_t{blockIdx.x} - first) * table.chunk + (p * block_threads + threadIdx.x) * V;
    if (at + V <= size && aligned) {
      const auto pack = cuda::load_word<V>(x + at);
#pragma unroll
      for (int k = 0; k < V; ++k) sum += double(pack.at[k]) * double(pack.at[k]);
    } else {
      for (int64_t k = at; k < at + V && k < size; ++k) sum += double(x[k]) * double(x[k]);
    }
  }
  sum = cuda::combined<block_threads>(sum, Plus());
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: the root of the sum of `count` numbers, a thread every 256th.
__global__ void root_kernel(int64_t count, const double* partial, double* root) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += block_threads) sum += partial[i];
  sum = cuda::combined<block_threads>(sum, Plus());
  if (threadIdx.x == 0) *root = std::sqrt(sum);
}

/// flush(table) for tables with the entries of tensors 0 to n: entry(i, add) calls add(f, size, x...) where tensor i is
/// one for this kind of table.
template <class Table, class Entry, class Flush>
void in_tables(size_t n, Entry&& entry, Flush&& flush) {
  Table table;
  auto add = [&](auto... arguments) {
    if (table.count == Table::capacity) {
      flush(table);
      table.count = 0;
    }
    table.add(arguments...);
  };
  for (size_t i = 0; i < n; ++i) entry(i, add);
  if (table.count) flush(table);
}

template <class F, class... X, class Entry>
void each(Context& ctx, const char* where, size_t n, Entry&& entry) {
  using Entries = Table<1, F, X...>;
  in_tables<Entries>(n, entry, [&](const Entries& table) {
    cuda::launch(ctx, where, each_kernel<F, X...>, {table.blocks(), block_threads}, table);
  });
}

/// A launch for each of the two dtypes, since lists may mix them; as a rule the other one has nothing to do.
template <class F>
void of_both_types(F&& f) {
  f(double());
  f(float());
}

template <class T>
bool holds(const Tensor& x) {
  return x.dtype() == dtype_of<T>;
}

/// What a rule does to one parameter of type T.
template <class T, class Rule>
struct Update {
  Rule rule;
  template <class... State>
  __device__ void operator()(T& p, const T& g, State&... state) const {
    using S = typename Rule::State;
    S value = S(p);
    rule(value, S(g), state...);
    p = T(value);
  }
};

/// The norm is read on the device, by each thread once.
template <class T>
struct ClipByNorm {
  double max_norm;
  const double* norm;
  __device__ bool idle() const { return optim::clip_factor(max_norm, *norm) >= 1; }
  __device__ void operator()(T& g) const { g *= T(optim::clip_factor(max_norm, *norm)); }
};

}  // namespace

namespace cuda {

void optimizer_step(Context& ctx, UpdateRule rule, std::span<ParameterStep> steps, const UpdateOptions& o) {
  of_both_types([&]<class T>(T) {
    optim::with_rule<T>(rule, o, [&](auto rule_of) {
      using Rule = decltype(rule_of(steps[0]));
      using S = typename Rule::State;
      using F = Update<T, Rule>;
      auto run = [&]<class... X>(auto... state) {
        auto entry = [&](size_t i, auto add) {
          ParameterStep& s = steps[i];
          if (holds<T>(s.value))
            add(F{rule_of(s)}, s.value.numel(), s.value.data<T>(), s.gradient.data<T>(),
                (s.*state).template data<S>()...);
        };
        each<F, T, const T, X...>(ctx, "optimizer_step", steps.size(), entry);
      };
      if constexpr (std::is_same_v<Rule, optim::Lion<S>>)
        run.template operator()<S>(&ParameterStep::m);
      else
        run.template operator()<S, S>(&ParameterStep::m, &ParameterStep::v);
    });
  });
}

void lookahead(Context& ctx, std::span<Tensor> values, std::span<Tensor> slow, double alpha) {
  of_both_types([&]<class T>(T) {
    using F = optim::Lookahead<T>;
    each<F, T, T>(ctx, "lookahead", values.size(), [&](size_t i, auto add) {
      if (holds<T>(values[i])) add(F(alpha), values[i].numel(), values[i].data<T>(), slow[i].data<T>());
    });
  });
}

void ema_update(Context& ctx, std::span<const Tensor> values, std::span<Tensor> shadow, double decay) {
  of_both_types([&]<class T>(T) {
    using F = optim::Ema<T>;
    each<F, const T, T>(ctx, "ema_update", values.size(), [&](size_t i, auto add) {
      if (holds<T>(values[i])) add(F(decay), values[i].numel(), values[i].data<T>(), shadow[i].data<T>());
    });
  });
}

void gradient_norm(Context& ctx, std::span<const Tensor> gradients, double* norm) {
  constexpr const char* where = "gradient_norm";
  int64_t blocks = 0, done = 0;
  of_both_types([&]<class T>(T) {
    constexpr int64_t chunk = Squared<T>::chunk;
    for (const Tensor& g : gradients)
      if (holds<T>(g)) blocks += (g.numel() + chunk - 1) / chunk;
  });
  auto partial = ctx.scratch<double>(blocks);
  of_both_types([&]<class T>(T) {
    auto entry = [&](size_t i, auto add) {
      if (holds<T>(gradients[i])) add(Nothing(), gradients[i].numel(), gradients[i].data<T>());
    };
    in_tables<Squared<T>>(gradients.size(), entry, [&](const Squared<T>& table) {
      launch(ctx, where, squares_kernel<T>, {table.blocks(), block_threads}, table, partial.data() + done);
      done += table.blocks();
    });
  });
  launch(ctx, where, root_kernel, {1, block_threads}, blocks, partial.data(), norm);
}

template <template <class> class F, class... Argument>
static void clip(Context& ctx, const char* where, std::span<Tensor> gradients, Argument... argument) {
  of_both_types([&]<class T>(T) {
    each<F<T>, T>(ctx, where, gradients.size(), [&](size_t i, auto add) {
      if (holds<T>(gradients[i])) add(F<T>{argument...}, gradients[i].numel(), gradients[i].data<T>());
    });
  });
}

void clip_by_norm(Context& ctx, std::span<Tensor> gradients, double max_norm, const double* norm) {
  clip<ClipByNorm>(ctx, "clip_by_norm", gradients, max_norm, norm);
}

void clip_by_value(Context& ctx, std::span<Tensor> gradients, double limit) {
  clip<optim::ClipByValue>(ctx, "clip_by_value", gradients, limit);
}

}  // namespace cuda

}  // namespace lightcone::kernels
