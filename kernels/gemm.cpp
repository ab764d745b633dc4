#include "kernels/gemm.h"

#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <mutex>
#include <optional>
#include <tuple>

namespace lightcone::kernels::gemm {
namespace {

// oneDNN plans and splits by the number of OpenMP threads, so it sees one.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// ---- f64 ----

#ifdef __AVX512F__
constexpr int lanes = 8, tile_rows = 8;
#else
constexpr int lanes = 4, tile_rows = 4;
#endif
constexpr int tile_vectors = 3, tile_cols = tile_vectors * lanes;  // the tile stays in registers
using Vector [[gnu::vector_size(lanes * sizeof(double)), gnu::aligned(alignof(double))]] = double;

int64_t packed_size(int64_t n, int64_t k) { return (n + tile_cols - 1) / tile_cols * tile_cols * k; }

// b(p, j) = b[p * row + j * col] as panels of tile_cols columns, each [k, tile_cols], the last one filled up with
// zeros.
void pack(int64_t n, int64_t k, const double* b, int64_t row, int64_t col, double* panels) {
  for (int64_t first = 0; first < n; first += tile_cols)
    for (int64_t p = 0; p < k; ++p)
      for (int64_t j = first; j < first + tile_cols; ++j) *panels++ = j < n ? b[p * row + j * col] : 0;
}

// One tile of c: each element is a sum over p in order. a(i, p) = a[i * row + p * col]; rows past the last are computed
// from it again and not stored.
void tile(int64_t rows, int64_t cols, int64_t k, const double* a, int64_t row, int64_t col, const double* panel,
          double* c, int64_t n, bool accumulate) {
  Vector sum[tile_rows][tile_vectors] = {};
  const double* in[tile_rows];
  for (int i = 0; i < tile_rows; ++i) in[i] = a + std::min<int64_t>(i, rows - 1) * row;
  for (int64_t p = 0; p < k; ++p, panel += tile_cols) {
#pragma GCC unroll 8
    for (int i = 0; i < tile_rows; ++i) {
      const double factor = in[i][p * col];
#pragma GCC unroll 3
      for (int v = 0; v < tile_vectors; ++v) sum[i][v] += factor * *reinterpret_cast<const Vector*>(panel + v * lanes);
    }
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) c[i * n + j] = (accumulate ? c[i * n + j] : 0) + sum[i][j / lanes][j % lanes];
}

void tiles(int64_t m, int64_t n, int64_t k, const double* a, int64_t row, int64_t col, const double* panels, double* c,
           bool accumulate) {
  for (int64_t j = 0; j < n; j += tile_cols, panels += k * tile_cols)
    for (int64_t i = 0; i < m; i += tile_rows)
      tile(std::min<int64_t>(tile_rows, m - i), std::min<int64_t>(tile_cols, n - j), k, a + i * row, row, col, panels,
           c + i * n + j, n, accumulate);
}

// ---- f32 ----

void sgemm(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
           const float* b, int64_t ldb, float* c, bool accumulate) {
  const OneThread one;
  const auto status = dnnl_sgemm(transpose_a, transpose_b, m, n, k, 1.f, a, lda, b, ldb, accumulate ? 1.f : 0.f, c, n);
  if (status != dnnl_success) fail("matmul", "oneDNN refuses a product {} x {} x {}, status {}", m, n, k, int(status));
}

// ---- bf16 ----

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

enum class Kind { rows, tokens, tokens_accumulate };

struct Primitive {
  dnnl::matmul::primitive_desc description;
  dnnl::matmul run;
};

dnnl::memory::desc matrix(int64_t rows, int64_t cols, dnnl::memory::data_type type, bool transposed = false) {
  return {{rows, cols}, type, transposed ? dnnl::memory::dims{1, rows} : dnnl::memory::dims{cols, 1}};
}

// Planning a product and generating its code costs 0.3 ms, so the last ones are kept. Null if the CPU has no bf16.
std::shared_ptr<const Primitive> primitive(Kind kind, int64_t m, int64_t n, int64_t k) {
  constexpr size_t limit = 256;
  static std::mutex mutex;
  static std::map<std::tuple<Kind, int64_t, int64_t, int64_t>, std::shared_ptr<const Primitive>> known;
  const std::lock_guard lock(mutex);
  const auto key = std::tuple(kind, m, n, k);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  if (known.size() >= limit) known.clear();

  using Type = dnnl::memory::data_type;
  const OneThread one;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (kind == Kind::tokens_accumulate) {
    dnnl::post_ops sum;
    sum.append_sum();
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::desc product(matrix(m, k, Type::bf16, kind != Kind::rows),
                                   kind == Kind::rows
                                       ? dnnl::memory::desc({k, n}, Type::bf16, dnnl::memory::format_tag::any)
                                       : matrix(k, n, Type::bf16),
                                   matrix(m, n, Type::f32));
  std::shared_ptr<const Primitive> made;
  try {
    const dnnl::matmul::primitive_desc description(product, attributes, cpu());
    made = std::make_shared<const Primitive>(Primitive{description, dnnl::matmul(description)});
  } catch (const dnnl::error& error) {
    if (error.status != dnnl_unimplemented)
      fail("matmul", "oneDNN cannot plan a bf16 product {} x {} x {}: {}", m, n, k, error.what());
  }
  return known[key] = made;
}

dnnl::memory memory(const dnnl::memory::desc& description, const void* data) {
  return {description, cpu(), const_cast<void*>(data)};
}

// The operands of one primitive, and its scratch, on one thread.
class Execution {
 public:
  Execution(Context& ctx, const Primitive& p, const dnnl::memory& b)
      : p_(p), scratch_(ctx, p.description.scratchpad_desc().get_size()), stream_(cpu()) {
    arguments_ = {{DNNL_ARG_SRC, memory(p.description.src_desc(), nullptr)},
                  {DNNL_ARG_WEIGHTS, b},
                  {DNNL_ARG_DST, memory(p.description.dst_desc(), nullptr)},
                  {DNNL_ARG_SCRATCHPAD, memory(p.description.scratchpad_desc(), scratch_.data())}};
  }
  void operator()(const bf16* a, float* c) {
    const OneThread one;
    arguments_.at(DNNL_ARG_SRC).set_data_handle(const_cast<bf16*>(a));
    arguments_.at(DNNL_ARG_DST).set_data_handle(c);
    p_.run.execute(stream_, arguments_);
  }

 private:
  const Primitive& p_;
  Context::Scratch<std::byte> scratch_;
  dnnl::stream stream_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

// ---- rows in panels ----

// f(rows, a, c) for the whole panels together, then for the rest padded to one.
template <class T, class F>
void in_panels(Context& ctx, int64_t panel, int64_t rows, int64_t n, int64_t k, const T* a, sum_type<T>* c, F&& f) {
  const int64_t whole = rows / panel * panel, rest = rows - whole;
  if (whole) f(whole, a, c);
  if (!rest) return;
  auto padded = ctx.scratch<T>(panel * k);
  auto result = ctx.scratch<sum_type<T>>(panel * n);
  std::copy_n(a + whole * k, rest * k, padded.data());
  std::fill_n(padded.data() + rest * k, (panel - rest) * k, T(0));
  f(panel, padded.data(), result.data());
  std::copy_n(result.data(), rest * n, c + whole * n);
}

}  // namespace

// What a product keeps of b: panels of it (f64), b itself (f32), oneDNN's order of it (bf16).
template <>
struct RowProduct<double>::Parts {
  int64_t n, k;
  Context::Scratch<double> panels;
  Parts(Context& ctx, int64_t n, int64_t k, const double* b, bool transposed)
      : n(n), k(k), panels(ctx, packed_size(n, k)) {
    pack(n, k, b, transposed ? 1 : n, transposed ? k : 1, panels.data());
  }
  void run(int64_t rows, const double* a, double* c) { tiles(rows, n, k, a, k, 1, panels.data(), c, false); }
};

template <>
struct RowProduct<float>::Parts {
  Context& ctx;
  int64_t n, k;
  const float* b;
  bool transposed;
  Parts(Context& ctx, int64_t n, int64_t k, const float* b, bool transposed)
      : ctx(ctx), n(n), k(k), b(b), transposed(transposed) {}
  // oneDNN's kernel for the last few rows rounds otherwise: it is met below 16 rows with AVX-512, at every rest of a
  // division by 6 without, and past 144 rows (where it splits them) in odd places.
  void run(int64_t rows, const float* a, float* c) {
    static const int64_t panel = dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core ? 48 : 16;
    for (int64_t r = 0; r < rows; r += 144)
      in_panels(ctx, panel, std::min<int64_t>(144, rows - r), n, k, a + r * k, c + r * n,
                [&](int64_t m, const float* from, float* to) {
                  sgemm('N', transposed ? 'T' : 'N', m, n, k, from, k, b, transposed ? k : n, to, false);
                });
  }
};

template <>
struct RowProduct<bf16>::Parts {
  static constexpr int64_t panel = 64;
  Context& ctx;
  int64_t n, k;
  std::shared_ptr<const Primitive> product;
  Context::Scratch<std::byte> storage;  // b in oneDNN's order, or widened
  dnnl::memory ordered;
  std::unique_ptr<RowProduct<float>> widened;

  Parts(Context& ctx, int64_t n, int64_t k, const bf16* b, bool transposed)
      : ctx(ctx),
        n(n),
        k(k),
        product(primitive(Kind::rows, panel, n, k)),
        storage(ctx, product ? product->description.weights_desc().get_size() : n * k * sizeof(float)) {
    if (!product) {
      float* wide = reinterpret_cast<float*>(storage.data());
      std::copy_n(b, n * k, wide);
      widened = std::make_unique<RowProduct<float>>(ctx, n, k, wide, transposed);
      return;
    }
    const OneThread one;
    dnnl::memory plain = memory(matrix(k, n, dnnl::memory::data_type::bf16, transposed), b);
    ordered = memory(product->description.weights_desc(), storage.data());
    dnnl::stream stream(cpu());
    dnnl::reorder(plain, ordered).execute(stream, plain, ordered);
  }
  void run(int64_t rows, const bf16* a, float* c) {
    if (widened) {
      auto wide = ctx.scratch<float>(rows * k);
      std::copy_n(a, rows * k, wide.data());
      (*widened)(rows, wide.data(), c);
      return;
    }
    Execution execute(ctx, *product, ordered);
    in_panels(ctx, panel, rows, n, k, a, c, [&](int64_t m, const bf16* from, float* to) {
      for (int64_t r = 0; r < m; r += panel) execute(from + r * k, to + r * n);
    });
  }
};

template <class T>
RowProduct<T>::RowProduct(Context& ctx, int64_t n, int64_t k, const T* b, bool transposed)
    : n_(n), k_(k), parts_(n && k ? std::make_unique<Parts>(ctx, n, k, b, transposed) : nullptr) {}

template <class T>
RowProduct<T>::~RowProduct() = default;

template <class T>
void RowProduct<T>::operator()(int64_t rows, const T* a, Sum* c) const {
  if (!parts_)
    std::fill_n(c, rows * n_, Sum(0));
  else if (rows)
    parts_->run(rows, a, c);
}

template class RowProduct<double>;
template class RowProduct<float>;
template class RowProduct<bf16>;

template <>
void token_product(Context& ctx, int64_t tokens, int64_t n, int64_t k, const double* a, const double* b, double* c,
                   bool accumulate) {
  auto panels = ctx.scratch<double>(packed_size(k, tokens));
  pack(k, tokens, b, k, 1, panels.data());
  tiles(n, k, tokens, a, 1, n, panels.data(), c, accumulate);
}

template <>
void token_product(Context&, int64_t tokens, int64_t n, int64_t k, const float* a, const float* b, float* c,
                   bool accumulate) {
  if (n && k) sgemm('T', 'N', n, k, tokens, a, n, b, k, c, accumulate);
}

template <>
void token_product(Context& ctx, int64_t tokens, int64_t n, int64_t k, const bf16* a, const bf16* b, float* c,
                   bool accumulate) {
  if (!n || !k) return;
  const auto product = primitive(accumulate ? Kind::tokens_accumulate : Kind::tokens, n, k, token_block);
  if (!product) {
    auto wide_a = ctx.scratch<float>(tokens * n), wide_b = ctx.scratch<float>(tokens * k);
    std::copy_n(a, tokens * n, wide_a.data());
    std::copy_n(b, tokens * k, wide_b.data());
    return token_product<float>(ctx, tokens, n, k, wide_a.data(), wide_b.data(), c, accumulate);
  }
  auto run = [&](const bf16* full_a, const bf16* full_b) {
    Execution(ctx, *product, memory(product->description.weights_desc(), full_b))(full_a, c);
  };
  if (tokens == token_block) return run(a, b);
  auto padded_a = ctx.scratch<bf16>(token_block * n), padded_b = ctx.scratch<bf16>(token_block * k);
  std::fill(std::copy_n(a, tokens * n, padded_a.data()), padded_a.data() + token_block * n, bf16(0.f));
  std::fill(std::copy_n(b, tokens * k, padded_b.data()), padded_b.data() + token_block * k, bf16(0.f));
  run(padded_a.data(), padded_b.data());
}

}  // namespace lightcone::kernels::gemm
