#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/support/bits.h"
#include "tests/support/devices.h"
#include "tests/support/naive_attention.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
constexpr double inf = std::numeric_limits<double>::infinity();
}  // namespace

TEST_CASE("attention over ragged jets") {
  for (int64_t head_dim : {1, 4, 13, 16, 28, 112}) check_op(fused_case({3, 0, 1, 17, 8}, head_dim, {.heads = 2}));
  for (int64_t head_dim : {20, 48, 64, 72, 88}) check_op(fused_case({3, 0, 17}, head_dim, {.heads = 1}));
  for (int64_t n : {0, 1, 31, 33, 64, 65, 150}) check_op(fused_case({n}, 8, {.heads = 2}));
  check_op(fused_case({}, 8, {.heads = 2}));
  check_op(fused_case({0, 0, 5}, 3, {.heads = 1, .scale = 1.7}));
}

TEST_CASE("multi-query and grouped attention") {
  check_op(fused_case({3, 0, 1, 33}, 13, {.heads = 4, .kv_heads = 1}));
  check_op(fused_case({20, 5}, 8, {.heads = 4, .kv_heads = 2}));
}

TEST_CASE("attention in a long jet, which is cut into pieces") {
  const int64_t longest = devices().size() == 1 ? 1100 : 300;  // a simulated GPU takes long
  for (int64_t kv_heads : {2, 1}) {
    OpCase c = fused_case({2, longest}, 4, {.heads = 2, .kv_heads = kv_heads});
    c.dtypes = {DType::f64};
    check_op(c);
  }
}

TEST_CASE("attention over vectors, multivectors and scalars") {
  const Offsets ptr = offsets({3, 0, 1, 33});
  const int64_t T = 37;
  constexpr uint32_t blades = 0b1010011100001110;  // any signs will do
  for (int64_t kv_heads : {2, 1}) {
    const AttentionOptions o{.heads = 2, .kv_heads = kv_heads};
    const int64_t n = o.heads + 2 * kv_heads;
    check_op({.name = fmt::format("attention of vectors and scalars, {} heads of keys", kv_heads),
              .inputs = {normal({T, 4, n * 3}, 1), normal({T, n * 5}, 2)},
              .op =
                  [=](auto& x) {
                    return attention({{x[0], Layout::vectors, kernels::minkowski_signs}, {x[1]}},
                                     to_ptr(x[0].context(), ptr), o);
                  },
              .oracle = Naive{ptr, ptr, o, {Layout::vectors, Layout::scalars}, {0b1110, 0}}});
    check_op({.name = fmt::format("attention of multivectors and scalars, {} heads of keys", kv_heads),
              .inputs = {normal({16, T, n * 2}, 1), normal({T, n * 3}, 2)},
              .op =
                  [=](auto& x) {
                    return attention({{x[0], Layout::multivectors, blades}, {x[1]}}, to_ptr(x[0].context(), ptr), o);
                  },
              .oracle = Naive{ptr, ptr, o, {Layout::multivectors, Layout::scalars}, {blades, 0}}});
  }
}

TEST_CASE("attention of heads that lie in one piece is that of columns") {
  const int64_t T = 37, C = 5;
  for (Device device : devices())
    for (int64_t kv_heads : {4, 1}) {
      Context ctx(device, 2);
      const Tensor ptr = to_ptr(ctx, offsets({3, 0, 1, 33}));
      const AttentionOptions o{.heads = 4, .kv_heads = kv_heads};
      const int64_t n = o.heads + 2 * kv_heads;
      // [T, heads, C] -> [heads, T, C]
      auto turned = [&](const Array& x, int64_t heads) {
        Array y = zeros({heads, T, C});
        for (int64_t t = 0; t < T; ++t)
          for (int64_t h = 0; h < heads; ++h)
            for (int64_t c = 0; c < C; ++c) y[(h * T + t) * C + c] = x[(t * heads + h) * C + c];
        return y;
      };
      const Array qkv = normal({T, n * C}, 1), dy = normal({T, o.heads * C}, 2);
      auto run = [&](Layout layout) {
        const bool heads = layout == Layout::heads;
        Tape tape(ctx);
        const Var x = tape.variable(to_tensor(ctx, heads ? turned(qkv, n) : qkv, DType::f32));
        const Var y = attention({{x, layout}}, ptr, o)[0];
        tape.backward(y, to_tensor(ctx, heads ? turned(dy, o.heads) : dy, DType::f32));
        return std::vector{y.value(), tape.gradient(x)};
      };
      const auto columns = run(Layout::scalars), heads = run(Layout::heads);
      CHECK(same_bits(heads[0], to_tensor(ctx, turned(to_array(columns[0]), o.heads), DType::f32)));
      CHECK(same_bits(heads[1], to_tensor(ctx, turned(to_array(columns[1]), n), DType::f32)));
    }
}

TEST_CASE("cross attention") {
  const Offsets q_ptr = offsets({1, 2, 0, 18}), k_ptr = offsets({7, 0, 4, 33});
  const AttentionOptions o{.heads = 2};
  check_op({.name = "cross attention",
            .inputs = {normal({21, 2 * 5}, 1), normal({44, 4 * 5}, 2)},
            .op =
                [=](auto& x) {
                  Context& ctx = x[0].context();
                  return std::vector{cross_attention(x[0], x[1], to_ptr(ctx, q_ptr), to_ptr(ctx, k_ptr), o)};
                },
            .oracle = Naive{.q_ptr = q_ptr, .k_ptr = k_ptr, .options = o, .fused = false}});
}

TEST_CASE("attention dropout") {
  const std::vector<int64_t> lengths = {3, 0, 1, 20};
  const Offsets ptr = offsets(lengths);
  for (int64_t kv_heads : {2, 1}) {
    const AttentionOptions o{.heads = 2, .kv_heads = kv_heads, .dropout = 0.3};
    const std::vector<double> uniforms = uniform({24, 2, 24}, 9, 0, 1).values;
    OpCase c = fused_case(lengths, 4, o);
    c.op = [=](auto& x) {
      Context& ctx = x[0].context();
      ctx.rng().replace("attention_dropout", uniforms);
      return std::vector{attention(x[0], to_ptr(ctx, ptr), o)};
    };
    c.oracle = Naive{.q_ptr = ptr, .k_ptr = ptr, .options = o, .uniforms = uniforms};
    check_op(c);
    // Generated numbers: the oracle draws the same ones from the same stream.
    const Draw draw = Rng(c.seed).draw("attention_dropout", 24 * 2 * 24);
    std::vector<double> drawn(24 * 2 * 24);
    for (size_t i = 0; i < drawn.size(); ++i) drawn[i] = draw.uniform(i);
    c = fused_case(lengths, 4, o);
    c.oracle = Naive{.q_ptr = ptr, .k_ptr = ptr, .options = o, .uniforms = drawn};
    check_op(c);
  }
  // In evaluation it is off, and draws nothing.
  for (Device device : devices()) {
    Context ctx(device, 1);
    const Tensor qkv = to_tensor(ctx, normal({24, 3 * 2 * 4}, 3), DType::f64), jets = to_ptr(ctx, ptr);
    Tape tape(ctx, Tape::Mode::evaluate);
    const Var with = attention(tape.constant(qkv), jets, {.heads = 2, .dropout = 0.3});
    const Var without = attention(tape.constant(qkv), jets, {.heads = 2});
    CHECK(to_array(with.value()).values == to_array(without.value()).values);
    CHECK(ctx.rng().positions().empty());
  }
}

// Rounding q, k, v, dy, p and ds to tf32 loses an eighth of what bf16 loses: it has three more bits.
TEST_CASE("attention of f32 tensors with products in tf32, where these are allowed") {
  auto check_tf32 = [](OpCase c) {
    c.name += " in tf32";
    c.dtypes = {DType::f32};
    c.tolerance_factor = tolerance(DType::bf16) / 8 / tolerance(DType::f32);
    c.op = [op = c.op](auto& x) {
      x[0].context().set_tf32(true);
      return op(x);
    };
    check_op(c);
  };
  for (int64_t head_dim : {9, 16, 20, 48, 72}) check_tf32(fused_case({3, 0, 1, 17, 8}, head_dim, {.heads = 2}));
  for (int64_t n : {1, 65, 150}) check_tf32(fused_case({n}, 12, {.heads = 2, .kv_heads = 1}));
  const Offsets ptr = offsets({3, 0, 1, 33});
  const AttentionOptions o{.heads = 2, .dropout = 0.3};
  const std::vector<double> uniforms = uniform({37, 2, 37}, 9, 0, 1).values;
  check_tf32({.name = "attention of vectors and scalars with dropout",
              .inputs = {normal({37, 4, 6 * 3}, 1), normal({37, 6 * 5}, 2)},
              .op =
                  [=](auto& x) {
                    x[0].context().rng().replace("attention_dropout", uniforms);
                    return attention({{x[0], Layout::vectors, kernels::minkowski_signs}, {x[1]}},
                                     to_ptr(x[0].context(), ptr), o);
                  },
              .oracle = Naive{ptr, ptr, o, {Layout::vectors, Layout::scalars}, {0b1110, 0}, uniforms}});
  // It is of f32 alone, on a GPU, and not for heads that bf16 leaves exact either.
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (int64_t head_dim : {kernels::largest_exact_head, kernels::largest_exact_head + 1}) {
        Context ctx(device, 1);
        const Tensor qkv = to_tensor(ctx, normal({40, 3 * head_dim}, 3), dtype);
        auto run = [&](bool tf32) {
          ctx.set_tf32(tf32);
          Tape tape(ctx);
          const Var x = tape.variable(qkv), y = attention(x, to_ptr(ctx, offsets({40})), {.heads = 1});
          tape.backward(y, to_tensor(ctx, normal({40, head_dim}, 4), dtype));
          return std::pair{y.value(), tape.gradient(x)};
        };
        const auto exact = run(false), rounded = run(true);
        const bool rounds = device == Device::cuda && dtype == DType::f32 && head_dim > kernels::largest_exact_head;
        CHECK(same_bits(rounded.first, exact.first) == !rounds);
        CHECK(same_bits(rounded.second, exact.second) == !rounds);
      }
}

namespace {
struct Kind {
  DType dtype;
  bool amp = false, tf32 = false;
};
/// Of the first `compared` jets.
void check_alone_and_in_a_batch(Device device, Kind kind, const std::vector<int64_t>& lengths, size_t compared,
                                const AttentionOptions& o, int64_t D) {
  const Offsets ptr = offsets(lengths);
  const auto T = static_cast<int64_t>(ptr.back());
  const int64_t columns = (o.heads + 2 * o.kv_heads) * D;
  Context ctx(device, 2);
  ctx.set_tf32(kind.tf32);
  const Tensor qkv = to_tensor(ctx, normal({T, columns}, 3), kind.dtype);
  const Tensor dy = to_tensor(ctx, normal({T, o.heads * D}, 4), kind.dtype);
  auto results = [&](const Tensor& x, const Tensor& g, const Offsets& jets) {
    Tape tape(ctx);
    tape.set_amp(kind.amp);
    const Var in = tape.variable(x), y = attention(in, to_ptr(ctx, jets), o);
    tape.backward(y, g);
    return std::pair{to_array(y.value()), to_array(tape.gradient(in))};
  };
  const auto [y, dx] = results(qkv, dy, ptr);
  for (size_t b = 0; b < compared; ++b) {
    const int64_t first = ptr[b], n = lengths[b];
    const auto [y1, dx1] = results(qkv.narrow(first, n), dy.narrow(first, n), {0, double(n)});
    CHECK(std::equal(y1.values.begin(), y1.values.end(), y.values.begin() + first * o.heads * D));
    CHECK(std::equal(dx1.values.begin(), dx1.values.end(), dx.values.begin() + first * columns));
  }
}
}  // namespace

TEST_CASE("a jet gets the same bits alone and in a batch") {
  for (Device device : devices()) {
    // On a simulated GPU a short one: still of several tiles.
    const std::vector<int64_t> lengths = {40, 1, 0, 150, 65, 17, device == Device::cpu ? 600 : 70};
    for (Kind kind : {Kind{DType::f64}, {DType::f32}, {DType::bf16}, {DType::f32, true}, {DType::f32, false, true}})
      for (int64_t kv_heads : {1, 2})
        check_alone_and_in_a_batch(device, kind, lengths, lengths.size(), {.heads = 2, .kv_heads = kv_heads},
                                   kind.amp || kind.tf32 ? 13 : 7);
    // So many jets and heads that a GPU's blocks take more of each jet at once.
    std::vector<int64_t> many(130, 1);
    many[0] = 130, many[1] = 66;
    check_alone_and_in_a_batch(device, {DType::f32}, many, 2, {.heads = 4, .kv_heads = 4}, 4);
    check_alone_and_in_a_batch(device, {DType::f32}, many, 2, {.heads = 4, .kv_heads = 4}, 33);
    check_alone_and_in_a_batch(device, {DType::f32, true}, many, 2, {.heads = 4, .kv_heads = 4}, 9);
  }
}

TEST_CASE("attention with infinities, NaN and large scores") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Tape tape(ctx, Tape::Mode::evaluate);
    auto run = [&](const Array& qkv) {
      return to_array(attention(tape.constant(to_tensor(ctx, qkv, DType::f32)), to_ptr(ctx, {0, double(qkv.shape[0])}),
                                {.heads = 1, .scale = 1.})
                          .value());
    };
    // Columns q, k, v. Scores of thousands must not overflow.
    Array x{{2, 3}, {100, 90, 1, 100, 80, 2}};
    CHECK(run(x).values == std::vector<double>{1, 1});
    // A score of -inf is a probability of 0, wherever it stands; a row of them is NaN, as is +inf or NaN.
    x = zeros({200, 3});
    for (int64_t t = 0; t < 200; ++t) x.at(t, 0) = 1, x.at(t, 1) = t < 150 ? -inf : 0, x.at(t, 2) = t < 150 ? 5 : 7;
    for (double y : run(x).values) CHECK(y == doctest::Approx(7));
    for (int64_t t = 0; t < 200; ++t) x.at(t, 1) = -inf;
    for (double y : run(x).values) CHECK(std::isnan(y));
    for (double bad : {inf, std::numeric_limits<double>::quiet_NaN()}) {
      for (int64_t t = 0; t < 200; ++t) x.at(t, 1) = t == 170 ? bad : 0;
      for (double y : run(x).values) CHECK(std::isnan(y));
    }
  }
}

TEST_CASE("attention refuses bad input") {
  Context ctx(1);
  Tape tape(ctx);
  auto x = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
  auto ptr = [&](Offsets p) { return to_ptr(ctx, p); };
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
  const AttentionOptions two{.heads = 2};
  REFUSED("attention: q_ptr is f32, expected i32", attention(x({4, 6}), ctx.zeros({2}, DType::f32), two));
  REFUSED("attention: q_ptr starts at 1, expected 0", attention(x({4, 6}), ptr({1, 4}), two));
  REFUSED("attention: q_ptr decreases from 3 to 2 at entry 2", attention(x({4, 6}), ptr({0, 3, 2, 4}), two));
  REFUSED("attention: q_ptr ends at 3, expected the number of rows, 4", attention(x({4, 6}), ptr({0, 3}), two));
  REFUSED("attention: qkv has 8 columns, expected a multiple of 6 heads", attention(x({4, 8}), ptr({0, 4}), two));
  REFUSED("attention: qkv has 0 columns, expected a multiple of 6 heads", attention(x({4, 0}), ptr({0, 4}), two));
  REFUSED("attention: qkv has shape [4], expected 2 axes", attention(x({4}), ptr({0, 4}), two));
  REFUSED("attention: qkv is i32, expected f64, f32 or bf16", attention(x({4, 6}, DType::i32), ptr({0, 4}), two));
  REFUSED("attention: 3 heads and 2 kv_heads, expected a multiple",
          attention(x({4, 7}), ptr({0, 4}), {.heads = 3, .kv_heads = 2}));
  REFUSED("attention: dropout probability is 1, expected [0, 1)",
          attention(x({4, 6}), ptr({0, 4}), {.heads = 2, .dropout = 1}));
  REFUSED("attention: scale is inf, expected a finite number",
          attention(x({4, 6}), ptr({0, 4}), {.heads = 2, .scale = inf}));
  REFUSED("attention: no inputs, expected at least one", attention(std::vector<AttentionInput>{}, ptr({0}), two));
  REFUSED("attention: 5 segments, expected 1 to 4",
          attention(std::vector<AttentionInput>(5, {x({4, 6})}), ptr({0, 4}), two));
  REFUSED("attention: q of segment 1 has 3 rows, expected 4 as in its ptr",
          attention({{x({4, 6})}, {x({3, 6})}}, ptr({0, 4}), two));
  REFUSED("attention: q of segment 1 is f64, expected f32",
          attention({{x({4, 6})}, {x({4, 6}, DType::f64)}}, ptr({0, 4}), two));
  REFUSED("attention: negative_parts 0b1110 of segment 0 names more than its 1 parts",
          attention({{x({4, 6}), Layout::scalars, kernels::minkowski_signs}}, ptr({0, 4}), two));
  REFUSED("attention: qkv has shape [5, 4, 3], expected 6 heads of 1 feature or more",
          attention({{x({5, 4, 3}), Layout::heads}}, ptr({0, 4}), two));
  REFUSED("attention: kv has 16 columns, expected 12: 2 heads of 3 for keys and as many for values",
          cross_attention(x({4, 6}), x({4, 16}), ptr({0, 4}), ptr({0, 4}), two));
  REFUSED("attention: q_ptr has 1 jets, k_ptr has 2",
          cross_attention(x({4, 6}), x({4, 12}), ptr({0, 4}), ptr({0, 1, 4}), two));
  // What only the kernel's own interface can get wrong.
  const Tensor qkv = ctx.zeros({4, 6}, DType::f32), jets = ptr({0, 4});
  Tensor y = ctx.zeros({4, 2}, DType::f32), lse = ctx.zeros({4, 2}, DType::f32);
  auto view = [](const Tensor& t, int64_t column, int64_t heads, int64_t channels) {
    return kernels::head_view(t, Layout::scalars, column, heads, channels);
  };
  const kernels::AttentionSegment good{view(qkv, 0, 2, 1), view(qkv, 2, 2, 1), view(qkv, 4, 2, 1), view(y, 0, 2, 1)};
  auto call = [&](auto change) {
    kernels::AttentionSegment s = good;
    kernels::AttentionDropout dropout;
    change(s, dropout);
    kernels::attention(ctx, {&s, 1}, jets, jets, 1, dropout, lse);
  };
  REFUSED("attention: 3 heads of 2 channels from column 1 do not fit into 6 columns", view(qkv, 1, 3, 2));
  REFUSED("attention: k of segment 0 has heads of 1 x 2 features, expected 1 x 1",
          call([&](auto& s, auto&) { s.k = view(qkv, 2, 2, 2); }));
  REFUSED("attention: v of segment 0 has 1 heads, expected 2", call([&](auto& s, auto&) { s.v = view(qkv, 2, 1, 1); }));
  REFUSED("attention: y of segment 0 does not lie inside of its tensor of 8 elements",
          call([&](auto& s, auto&) { s.y.row_stride = 3; }));
  REFUSED("attention: 3 recorded numbers for dropout, expected 32", call([&](auto&, auto& dropout) {
            dropout.probability = 0.5;
            dropout.draw.recorded = std::make_shared<std::vector<double>>(3);
          }));
  const kernels::AttentionSegment f64{
      view(ctx.zeros({4, 6}, DType::f64), 0, 2, 1), view(ctx.zeros({4, 6}, DType::f64), 2, 2, 1),
      view(ctx.zeros({4, 6}, DType::f64), 4, 2, 1), view(ctx.zeros({4, 2}, DType::f64), 0, 2, 1)};
  REFUSED("attention: bf16 products of f64 tensors, expected f32 or bf16",
          kernels::attention(ctx, {&f64, 1}, jets, jets, 1, {}, lse, kernels::Products::bf16));
  lse = ctx.zeros({4, 1}, DType::f32);
  REFUSED("attention: lse has shape [4, 1], expected [4, 2]", call([](auto&, auto&) {}));
#undef REFUSED
}
