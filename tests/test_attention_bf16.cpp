// Attention with bf16 products, of f32 and of bf16 tensors.
#include <doctest/doctest.h>

#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/naive_attention.h"

using namespace lightcone;
using namespace lightcone::test;
using kernels::head_view;
using kernels::Products;

namespace {
struct Result {
  Array y, dx;
};
Result run_amp(Context& ctx, const Array& qkv, const Array& dy, const Offsets& ptr, const AttentionOptions& o,
               bool amp = true, DType dtype = DType::f32) {
  Tape tape(ctx);
  tape.set_amp(amp);
  const Var in = tape.variable(to_tensor(ctx, qkv, dtype)), y = attention(in, to_ptr(ctx, ptr), o);
  tape.backward(y, to_tensor(ctx, dy, dtype));
  return {to_array(y.value()), to_array(tape.gradient(in))};
}

/// q, k and v in one tensor for the kernel's own interface, its results, and their gradients.
struct Call {
  Tensor qkv, y, lse, dqkv;
};
constexpr double scale = 0.3;

std::array<kernels::HeadView, 3> views(const Tensor& qkv, int64_t heads, int64_t kv_heads) {
  const int64_t C = qkv.dim(1) / (heads + 2 * kv_heads);
  auto view = [&](int64_t column, int64_t n) { return head_view(qkv, Layout::scalars, column * C, n, C); };
  return {view(0, heads), view(heads, kv_heads), view(heads + kv_heads, kv_heads)};
}
kernels::HeadView heads_of(const Tensor& y, int64_t heads) {
  return head_view(y, Layout::scalars, 0, heads, y.dim(1) / heads);
}

Call attend(Context& ctx, const Tensor& qkv, const Tensor& ptr, int64_t heads, int64_t kv_heads, Products products) {
  const auto [q, k, v] = views(qkv, heads, kv_heads);
  const int64_t T = qkv.dim(0);
  Call c{.qkv = qkv,
         .y = ctx.empty({T, heads * q.channels}, qkv.dtype()),
         .lse = ctx.empty({T, heads}, DType::f32),
         .dqkv = ctx.empty(qkv.shape(), qkv.dtype())};
  const kernels::AttentionSegment segment{q, k, v, heads_of(c.y, heads)};
  kernels::attention(ctx, {&segment, 1}, ptr, ptr, scale, {}, c.lse, products);
  return c;
}

void attend_backward(Context& ctx, Call& c, const Tensor& dy, const Tensor& ptr, int64_t heads, int64_t kv_heads,
                     Products products) {
  const auto [q, k, v] = views(c.qkv, heads, kv_heads);
  const auto [dq, dk, dv] = views(c.dqkv, heads, kv_heads);
  const kernels::AttentionSegment segment{q, k, v, heads_of(c.y, heads)};
  const kernels::AttentionGradient gradient{heads_of(dy, heads), dq, dk, dv};
  kernels::attention_backward(ctx, {&segment, 1}, {&gradient, 1}, ptr, ptr, scale, {}, c.lse, products);
}

/// f(device, amx) for the CPU with AMX tiles and without, and for other devices.
void on_devices(const std::function<void(Device, bool)>& f) {
  with_and_without_amx([&](bool amx) { f(Device::cpu, amx); });
  for (Device device : devices())
    if (device != Device::cpu) f(device, false);
}
}  // namespace

// Rounding q, k, v, dy, p and ds to bf16 once each loses what a bf16 tensor loses: the table's tolerance for bf16.
TEST_CASE("attention with bf16 products under amp") {
  with_and_without_amx([](bool) {
    auto check_amp = [](OpCase c) {
      c.name += " under amp";
      c.dtypes = {DType::f64, DType::f32};
      c.op = [op = c.op](auto& x) {
        x[0].tape().set_amp(true);
        return op(x);
      };
      OpCase f64 = c;
      f64.dtypes = {DType::f64};  // which amp leaves alone
      check_op(f64);
      c.dtypes = {DType::f32};
      c.tolerance_factor = tolerance(DType::bf16) / tolerance(DType::f32);
      check_op(c);
    };
    for (int64_t head_dim : {8, 9, 13, 16, 28}) check_amp(fused_case({3, 0, 1, 17, 8}, head_dim, {.heads = 2}));
    for (int64_t head_dim : {48, 64, 72, 112, 140}) check_amp(fused_case({3, 0, 5}, head_dim, {.heads = 1}));
    for (int64_t n : {0, 1, 16, 31, 32, 33, 64, 65, 97, 150}) check_amp(fused_case({n}, 16, {.heads = 2}));
    check_amp(fused_case({20, 5, 33}, 12, {.heads = 4, .kv_heads = 2}));
    check_amp(fused_case({3, 0, 1, 20}, 16, {.heads = 4, .kv_heads = 1}));
    const Offsets ptr = offsets({3, 0, 1, 33});
    const AttentionOptions o{.heads = 2, .dropout = 0.3};
    const std::vector<double> uniforms = uniform({37, 2, 37}, 9, 0, 1).values;
    check_amp({.name = "attention of vectors and scalars with dropout",
               .inputs = {normal({37, 4, 6 * 3}, 1), normal({37, 6 * 5}, 2)},
               .op =
                   [=](auto& x) {
                     x[0].context().rng().replace("attention_dropout", uniforms);
                     return attention({{x[0], Layout::vectors, kernels::minkowski_signs}, {x[1]}},
                                      to_ptr(x[0].context(), ptr), o);
                   },
               .oracle = Naive{ptr, ptr, o, {Layout::vectors, Layout::scalars}, {0b1110, 0}, uniforms}});
  });
}

TEST_CASE("bf16 products of small whole numbers are exact") {
  // Scores of zero and a power of two of keys: p = 1/64, so that y, dv, ds (multiples of 2^-12 below 2^-4) and the
  // products with them are exact in bf16 and f32. The queries or the keys are zero.
  constexpr int64_t n = 64, C = 16;
  const Array dy = [] {
    Array a = zeros({n, C});
    for (int64_t i = 0; i < n * C; ++i) a[i] = i * 5 % 7 == 0 ? (i % 2 ? 1 : -1) : 0;
    return a;
  }();
  for (int which : {0, 1}) {
    Array qkv = zeros({n, 3 * C});
    for (int64_t t = 0; t < n; ++t)
      for (int64_t c = 0; c < C; ++c) {
        qkv.at(t, which * C + c) = (t * 7 + c * 3) % 11 - 5;
        qkv.at(t, 2 * C + c) = ((t * 3 + c * 5) % 5 - 2) * 64;
      }
    Context cpu(1);
    const AttentionOptions o{.heads = 1, .scale = 1.};
    const Result expected = run_amp(cpu, qkv, dy, {0, double(n)}, o, false, DType::f64);
    on_devices([&](Device device, bool amx) {
      CAPTURE(amx);
      Context ctx(device, 1);
      const Result got = run_amp(ctx, qkv, dy, {0, double(n)}, o);
      // f32 comes this close only where it is exact; f64 rounds in lse = log 64.
      CHECK(relative_error(got.y, expected.y) < 1e-12);
      CHECK(relative_error(got.dx, expected.dx) < 1e-12);
    });
  }
}

TEST_CASE("AMX tiles and rounded operands agree") {
  if (!amx_available()) return;
  Context ctx(1);
  const Offsets ptr = offsets({40, 1, 0, 150, 65, 17, 600});
  for (int64_t D : {9, 16, 20}) {
    const AttentionOptions o{.heads = 4, .kv_heads = 2};
    const Array qkv = normal({873, 8 * D}, 3), dy = normal({873, 4 * D}, 4);
    const Result tiles = run_amp(ctx, qkv, dy, ptr, o), exact = run_amp(ctx, qkv, dy, ptr, o, false);
    use_amx(false);
    const Result plain = run_amp(ctx, qkv, dy, ptr, o);
    use_amx(true);
    // Sums in another order round a few of the p and ds the other way, each by 2^-8 of itself.
    CHECK(relative_error(tiles.y, plain.y) < 0x1p-11);
    CHECK(relative_error(tiles.dx, plain.dx) < 0x1p-11);
    // It did round.
    CHECK(relative_error(exact.y, plain.y) > 0x1p-11);
    CHECK(relative_error(exact.dx, plain.dx) > 0x1p-11);
  }
}

TEST_CASE("attention of bf16 tensors gives the bits of f32 ones with the same numbers, rounded") {
  on_devices([](Device device, bool amx) {
    CAPTURE(amx);
    Context ctx(device, 1);
    ctx.allocator().set_guard(true);
    const Offsets jets = offsets({40, 1, 0, 150, 17, device == Device::cpu ? 600 : 5});  // a simulated GPU takes long
    const Tensor ptr = to_ptr(ctx, jets);
    const auto T = static_cast<int64_t>(jets.back());
    for (Products products : {Products::bf16, Products::exact})
      for (int64_t channels : {4, 7, 13, 16, 28})
        for (int64_t kv_heads : {2, 1}) {
          CAPTURE(channels);
          CAPTURE(kv_heads);
          CAPTURE((products == Products::bf16));
          constexpr int64_t heads = 2;
          const Tensor qkv = bf16_values(ctx, normal({T, (heads + 2 * kv_heads) * channels}, 1)),
                       dy = bf16_values(ctx, normal({T, heads * channels}, 2)), small_dy = as(ctx, dy, DType::bf16);
          Call exact = attend(ctx, qkv, ptr, heads, kv_heads, products),
               small = attend(ctx, as(ctx, qkv, DType::bf16), ptr, heads, kv_heads, products);
          CHECK(same_bits(small.y, as(ctx, exact.y, DType::bf16)));
          CHECK(same_bits(small.lse, exact.lse));
          // The backward reads y as the forward left it, rounded.
          exact.y = as(ctx, small.y, DType::f32);
          attend_backward(ctx, exact, dy, ptr, heads, kv_heads, products);
          attend_backward(ctx, small, small_dy, ptr, heads, kv_heads, products);
          CHECK(same_bits(small.dqkv, as(ctx, exact.dqkv, DType::bf16)));
          ctx.allocator().synchronize();  // another Context has another stream
          Context three(device, 3);
          Call again = attend(three, small.qkv, ptr, heads, kv_heads, products);
          attend_backward(three, again, small_dy, ptr, heads, kv_heads, products);
          CHECK(same_bits(again.y, small.y));
          CHECK(same_bits(again.dqkv, small.dqkv));
        }
    CHECK(ctx.allocator().guard_violations() == 0);
  });
}

TEST_CASE("attention of narrow heads is exact under amp, also of bf16 tensors") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    const Tensor ptr = to_ptr(ctx, offsets({40, 17}));
    for (DType dtype : {DType::f32, DType::bf16})
      for (int64_t channels : {4, 8, 9}) {
        const Tensor qkv = to_tensor(ctx, normal({57, 6 * channels}, 1), dtype),
                     dy = to_tensor(ctx, normal({57, 2 * channels}, 2), dtype);
        Call exact = attend(ctx, qkv, ptr, 2, 2, Products::exact), amp = attend(ctx, qkv, ptr, 2, 2, Products::bf16);
        attend_backward(ctx, exact, dy, ptr, 2, 2, Products::exact);
        attend_backward(ctx, amp, dy, ptr, 2, 2, Products::bf16);
        const bool narrow = channels <= kernels::largest_exact_head;
        CHECK(same_bits(amp.dqkv, exact.dqkv) == narrow);
        if (narrow) CHECK(same_bits(amp.lse, exact.lse));
      }
  }
}

TEST_CASE("attention's tensors are all of one dtype") {
  Context ctx(1);
  const Tensor ptr = to_ptr(ctx, offsets({4}));
  const Tensor small = ctx.zeros({4, 6}, DType::bf16), wide = ctx.zeros({4, 6}, DType::f32);
  Tensor y = ctx.zeros({4, 2}, DType::bf16), y32 = ctx.zeros({4, 2}, DType::f32), lse = ctx.zeros({4, 2}, DType::f32);
  auto call = [&](const Tensor& q, const Tensor& k, const Tensor& v, Tensor& out, Tensor& lse) {
    const kernels::AttentionSegment s{views(q, 2, 2)[0], views(k, 2, 2)[1], views(v, 2, 2)[2], heads_of(out, 2)};
    kernels::attention(ctx, {&s, 1}, ptr, ptr, 1, {}, lse, Products::bf16);
  };
  auto back = [&](const Tensor& dy, const Tensor& dqkv) {
    const auto [q, k, v] = views(small, 2, 2);
    const auto [dq, dk, dv] = views(dqkv, 2, 2);
    const kernels::AttentionSegment s{q, k, v, heads_of(y, 2)};
    const kernels::AttentionGradient g{heads_of(dy, 2), dq, dk, dv};
    kernels::attention_backward(ctx, {&s, 1}, {&g, 1}, ptr, ptr, 1, {}, lse, Products::bf16);
  };
  CHECK_NOTHROW(call(small, small, small, y, lse));
  CHECK_NOTHROW(back(y, small));
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
  REFUSED("attention: k of segment 0 is f32, expected bf16", call(small, wide, small, y, lse));
  REFUSED("attention: v of segment 0 is f32, expected bf16", call(small, small, wide, y, lse));
  REFUSED("attention: y of segment 0 is f32, expected bf16", call(small, small, small, y32, lse));
  REFUSED("attention: lse is bf16, expected f32", call(small, small, small, y, y));
  REFUSED("attention_backward: dy of segment 0 is f32, expected bf16", back(y32, small));
  REFUSED("attention_backward: dq of segment 0 is f32, expected bf16", back(y, wide));
#undef REFUSED
}
