// Features in local frames: transformation by tensor representations, alone and inside of attention.
#include <doctest/doctest.h>

#include "autograd/attention.h"
#include "autograd/elementwise.h"
#include "autograd/frames.h"
#include "engine/error.h"
#include "engine/safetensors.h"
#include "kernels/frames.h"
#include "tests/support/lorentz.h"
#include "tests/support/naive_attention.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

constexpr FrameMap maps[] = {FrameMap::to_local, FrameMap::to_global, FrameMap::to_global_lowered};

/// A boost and a rotation for each token; every third one is improper (a reflection).
Array frames_of(int64_t T, uint64_t seed) {
  Array out = zeros({T, 4, 4});
  for (int64_t t = 0; t < T; ++t) {
    Lorentz l = random_rotation(seed + 7 * t) * random_boost(seed + 7 * t + 1, 0.2 + 0.1 * (t % 5));
    if (t % 3 == 2)
      for (int i = 0; i < 4; ++i) l[4 + i] = -l[4 + i];
    std::copy(l.begin(), l.end(), out.values.begin() + 16 * t);
  }
  return out;
}

double determinant(const double* m) {
  double det = 0;
  for (int p = 0; p < 256; ++p) {  // all index maps; those that repeat an index have no sign
    const int i[] = {p & 3, p >> 2 & 3, p >> 4 & 3, p >> 6};
    double sign = 1;
    for (int a = 0; a < 4; ++a)
      for (int b = 0; b < a; ++b) sign *= (i[a] > i[b]) - (i[a] < i[b]);
    det += sign * m[i[0]] * m[4 + i[1]] * m[8 + i[2]] * m[12 + i[3]];
  }
  return det;
}

/// rho(M) x for one copy: every component of the result is a sum over all components.
std::vector<double> naive_rho(const double* frame, const TensorReps& reps, FrameMap map, const double* x) {
  double m[16];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const double g_i = i ? -1 : 1, g_j = j ? -1 : 1;
      m[4 * i + j] = map == FrameMap::to_local    ? frame[4 * i + j]
                     : map == FrameMap::to_global ? g_i * g_j * frame[4 * j + i]
                                                  : g_j * frame[4 * j + i];
    }
  std::vector<double> y;
  for (const auto& term : reps.terms()) {
    const int64_t size = int64_t{1} << 2 * term.order;
    const double parity = term.odd && determinant(m) < 0 ? -1 : 1;
    for (int64_t copy = 0; copy < term.multiplicity; ++copy, x += size)
      for (int64_t to = 0; to < size; ++to) {
        double sum = 0;
        for (int64_t from = 0; from < size; ++from) {
          double product = x[from];
          for (int k = 0; k < term.order; ++k) product *= m[4 * (to >> 2 * k & 3) + (from >> 2 * k & 3)];
          sum += product;
        }
        y.push_back(parity * sum);
      }
  }
  return y;
}

Array naive_transform(const Array& x, const Array& frames, const TensorReps& reps, FrameMap map) {
  Array y = zeros(x.shape);
  for (int64_t i = 0; i < x.shape.numel(); i += reps.dim()) {
    const auto rho = naive_rho(&frames.values[i / x.shape[1] * 16], reps, map, &x.values[i]);
    std::copy(rho.begin(), rho.end(), y.values.begin() + i);
  }
  return y;
}

Var as_frames(const Var& frames, const Var& x) { return cast(frames, sum_dtype(x.dtype())); }

const char* const representations[] = {"8x0n+2x1n", "3x0n",      "1x1n",           "7x0n+3x1n",
                                       "4x0n+5x1n", "1x2n",      "2x0n+1x1n+1x2n", "2x0p+1x1n+1x1p",
                                       "1x0n+1x3n", "5x0n+1x2p", "16x0n+4x1n"};

Array columns(const Array& x, int64_t begin, int64_t count) {
  Array y = zeros({x.shape[0], count});
  for (int64_t t = 0; t < x.shape[0]; ++t)
    for (int64_t c = 0; c < count; ++c) y[t * count + c] = x[t * x.shape[1] + begin + c];
  return y;
}

}  // namespace

TEST_CASE("frames_transform: any representation, into the frame and back") {
  for (const char* text : representations)
    for (FrameMap map : maps)
      for (int64_t T : {0, 1, 67}) {
        if (T > 1 && TensorReps(text).dim() > 40) continue;
        const TensorReps reps(text);
        check_op({.name = fmt::format("frames_transform {} map {} T {}", text, int(map), T),
                  .inputs = {normal({T, 2 * reps.dim()}, 1), frames_of(T, 2)},
                  .op = [=](auto& v) { return std::vector{frames_transform(v[0], as_frames(v[1], v[0]), reps, map)}; },
                  .oracle = [=](auto& v) { return std::vector{naive_transform(v[0], v[1], reps, map)}; }});
      }
}

TEST_CASE("frames_transform: to the laboratory and back is nothing") {
  Context ctx;
  const TensorReps reps("2x0n+1x0p+2x1n+1x2n");
  const Array x = normal({9, reps.dim()}, 1), frames = frames_of(9, 3);
  Tensor y = to_tensor(ctx, x, DType::f64);
  const Tensor f = to_tensor(ctx, frames, DType::f64);
  kernels::frames_transform(ctx, y, f, reps, FrameMap::to_global, y);
  CHECK(largest_difference(to_array(y), x) > 0.1);
  kernels::frames_transform(ctx, y, f, reps, FrameMap::to_local, y);
  CHECK(largest_difference(to_array(y), x) < 1e-13);
}

TEST_CASE("attention in local frames is attention of what the frames make of q, k and v") {
  for (const char* text : representations)
    for (int64_t kv_heads : {2, 1}) {
      const TensorReps reps(text);
      const int64_t D = reps.dim(), H = 2;
      if (D > 40 && kv_heads == 1) continue;
      const Offsets ptr = offsets({3, 0, 1, 17});
      const AttentionOptions o{.heads = H, .kv_heads = kv_heads};
      for (bool amp : {false, true}) {
        OpCase c{
            .name = fmt::format("attention in frames, {} keys {} amp {}", text, kv_heads, amp),
            .inputs = {normal({21, (H + 2 * kv_heads) * D}, 1), frames_of(21, 5)},
            .op =
                [=](auto& v) {
                  v[0].tape().set_amp(amp);
                  return std::vector{attention(v[0], to_ptr(v[0].context(), ptr), o, {as_frames(v[1], v[0]), reps})};
                },
            .oracle =
                [=](auto& v) {
                  const Array q = columns(v[0], 0, H * D), k = columns(v[0], H * D, kv_heads * D),
                              value = columns(v[0], (H + kv_heads) * D, kv_heads * D);
                  const Array parts[] = {naive_transform(q, v[1], reps, FrameMap::to_global),
                                         naive_transform(k, v[1], reps, FrameMap::to_global_lowered),
                                         naive_transform(value, v[1], reps, FrameMap::to_global)};
                  Array qkv = zeros(v[0].shape);
                  int64_t column = 0;
                  for (const Array& part : parts) {
                    for (int64_t t = 0; t < 21; ++t)
                      for (int64_t i = 0; i < part.shape[1]; ++i)
                        qkv[t * qkv.shape[1] + column + i] = part[t * part.shape[1] + i];
                    column += part.shape[1];
                  }
                  return std::vector{naive_transform(Naive{ptr, ptr, o}({qkv})[0], v[1], reps, FrameMap::to_local)};
                }};
        if (amp) {
          c.dtypes = {DType::f32};
          c.tolerance_factor = tolerance(DType::bf16) / tolerance(DType::f32);
        }
        check_op(c);
      }
    }
}

TEST_CASE("attention's gradients in frames of gamma 1e4: those of f32 are those of f64") {
  // Of <dy, y> in the global frame, where y would have to get by an inverse, no digit is right.
  const TensorReps reps("4x0n+3x1n");
  const Offsets ptr = offsets({1, 3, 17});
  Array frames = zeros({21, 4, 4});
  for (int64_t t = 0; t < 21; ++t) {
    const Lorentz l = random_rotation(t + 1) * random_boost(t + 50, std::acosh(1e4));
    for (int i = 0; i < 16; ++i) frames[16 * t + i] = static_cast<float>(l[i]);
  }
  for (int64_t kv_heads : {2, 1}) {
    const Array in = normal({21, (2 + 2 * kv_heads) * 16}, 1), dy = normal({21, 32}, 2);
    auto gradient = [&](DType dtype) {
      Context ctx(1);
      Tape tape(ctx);
      const Var qkv = tape.variable(to_tensor(ctx, in, dtype));
      // Scores of order 1: those of usual scale, 1e8, would tell nothing but the nearest key.
      const AttentionOptions options{.heads = 2, .kv_heads = kv_heads, .scale = 1e-9};
      const Var y = attention(qkv, to_ptr(ctx, ptr), options, {tape.constant(to_tensor(ctx, frames, dtype)), reps});
      tape.backward(y, to_tensor(ctx, dy, dtype));
      return to_array(tape.gradient(qkv));
    };
    const Array single = gradient(DType::f32), exact = gradient(DType::f64);
    const int64_t keys = 32, values = keys + 16 * kv_heads;
    for (auto [begin, count] : {std::pair{int64_t{0}, keys}, {keys, values - keys}, {values, 16 * kv_heads}})
      CHECK(relative_error(columns(single, begin, count), columns(exact, begin, count)) < tolerance(DType::f32));
  }
}

TEST_CASE("attention in the same frame for all is attention without frames") {
  Context ctx(2);
  const Offsets ptr = offsets({5, 40});
  const TensorReps reps("8x0n+2x1n");
  Tape tape(ctx);
  const Var qkv = tape.constant(to_tensor(ctx, normal({45, 6 * 16}, 1), DType::f64));
  const Var frames = tape.constant(to_tensor(ctx, repeated(random_rotation(1) * random_boost(2, 1), 45), DType::f64));
  const Var with = attention(qkv, to_ptr(ctx, ptr), {.heads = 2}, {frames, reps}),
            without = attention(qkv, to_ptr(ctx, ptr), {.heads = 2});
  // Vectors meet by their invariant product there, by a sum of squares here: only scalars agree.
  CHECK(largest_difference(with.value(), without.value()) > 1e-3);
  const TensorReps scalars("16x0n");
  CHECK(largest_difference(attention(qkv, to_ptr(ctx, ptr), {.heads = 2}, {frames, scalars}).value(),
                           without.value()) == 0);
}

TEST_CASE("a change of the laboratory changes nothing in local frames") {
  Context ctx(2);
  const Offsets ptr = offsets({5, 40});
  const TensorReps reps("8x0n+1x1n+1x2n");
  const Array qkv = normal({45, 6 * reps.dim()}, 1), frames = frames_of(45, 2);
  auto run = [&](const Array& f) {
    Tape tape(ctx);
    return to_array(attention(tape.constant(to_tensor(ctx, qkv, DType::f64)), to_ptr(ctx, ptr), {.heads = 2},
                              {tape.constant(to_tensor(ctx, f, DType::f64)), reps})
                        .value());
  };
  const Array before = run(frames);
  for (const Lorentz& lambda : lorentz_transformations(3)) {
    // x -> lambda x in the laboratory; frames take the new laboratory to the same frame: L lambda^-1.
    Array moved = frames;
    const Lorentz back = inverse(lambda);
    for (int64_t t = 0; t < 45; ++t) {
      Lorentz l;
      std::copy_n(frames.values.begin() + 16 * t, 16, l.begin());
      l = l * back;
      std::copy(l.begin(), l.end(), moved.values.begin() + 16 * t);
    }
    CHECK(relative_error(run(moved), before) < 1e-10);
  }
}

TEST_CASE("frames: numbers of the reference implementation") {
  Context ctx;
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/frames.safetensors");
  auto read = [&](const std::string& name) { return file.load(ctx, name); };
  for (const char* text : {"4x0n", "3x1n", "2x0n+3x1n", "1x2n", "2x0n+1x1n+2x2n", "1x3n+1x0n", "1x1n+2x0n+1x1n",
                           "2x0n+2x0p+1x1n", "3x0p", "2x2p", "1x0n+1x1p"}) {
    CAPTURE(text);
    const std::string at = fmt::format("reps/{}/", text);
    Tape tape(ctx);
    const Var x = tape.variable(read(at + "in"));
    const Var y = frames_transform(x, tape.constant(read("frames/in")), TensorReps(text), FrameMap::to_local);
    tape.backward(y, read(at + "grad_out"));
    CHECK(relative_error(to_array(y.value()), to_array(read(at + "out"))) < 1e-12);
    CHECK(relative_error(to_array(tape.gradient(x)), to_array(read(at + "grad_in"))) < 1e-12);
  }
  for (auto [name, text] : {std::pair{"mixed", "2x0n+1x1n+1x2n"}, {"vec", "2x0n+2x1n"}, {"scalar", "4x0n"}}) {
    CAPTURE(name);
    const std::string at = fmt::format("attention/{}/", name);
    const TensorReps reps(text);
    const int64_t D = reps.dim(), H = 2, T = 7;
    // [1, H, T, D] there, rows of [which][H][D] here.
    auto rows = [&](std::vector<std::string> names) {
      const int64_t all = static_cast<int64_t>(names.size()) * H * D;
      Array out = zeros({T, all});
      for (size_t which = 0; which < names.size(); ++which) {
        const Array x = to_array(read(at + names[which]));
        for (int64_t h = 0; h < H; ++h)
          for (int64_t t = 0; t < T; ++t)
            for (int64_t d = 0; d < D; ++d) out[t * all + (which * H + h) * D + d] = x[(h * T + t) * D + d];
      }
      return out;
    };
    Tape tape(ctx);
    const Var qkv = tape.variable(to_tensor(ctx, rows({"q", "k", "v"}), DType::f64)),
              frames = tape.variable(read(at + "frames").reshape({T, 4, 4}));
    const Var y = attention(qkv, to_ptr(ctx, offsets({4, 3})), {.heads = H}, {frames, reps});
    tape.backward(y, to_tensor(ctx, rows({"grad_out"}), DType::f64));
    CHECK(relative_error(to_array(y.value()), rows({"out"})) < 1e-12);
    CHECK(relative_error(to_array(tape.gradient(qkv)), rows({"grad_q", "grad_k", "grad_v"})) < 1e-11);
    if (!file.has(at + "grad_frames")) continue;
    Array expected = to_array(read(at + "grad_frames"));
    expected.shape = {T, 4, 4};
    CHECK(relative_error(to_array(tape.gradient(frames)), expected) < 1e-11);
  }
}

TEST_CASE("tensor representations: width and canonical form") {
  auto check = [](const char* text, int64_t dim, const char* canonical) {
    const TensorReps reps(text);
    CHECK(reps.dim() == dim);
    CHECK(reps.text() == canonical);
  };
  check("8x0n+2x1n", 16, "8x0n+2x1n");
  check("1x1n", 4, "1x1n");
  check("2x2n", 32, "2x2n");
  check("1x2n + 3x0n+1x0n", 20, "4x0n+1x2n");
  check("0x0n+2x1p", 8, "2x1p");
  check("2x1p+1x1n+1x1n", 16, "2x1p+2x1n");
}

TEST_CASE("tensor representations: whatever else is refused by name") {
  for (const char* text : {"", "8", "8x", "x0n", "8x0", "8x0m", "8x0n+", "+8x0n", "-1x0n", "8x5n", "8x-1n",
                           "99999999999999999999x0n", "8x0nn", "8y0n"}) {
    const std::string message =
        fmt::format("tensor representation: '{}' is not of the form 8x0n+2x1n (multiplicity x order, n or p)", text);
    CHECK_THROWS_WITH_AS(TensorReps{text}, message.c_str(), Error);
  }
}

TEST_CASE("frames_gradient ends where it leaves the dtype, and passes on what is not finite itself") {
  Context ctx(1);
  for (const char* text : {"2x1n", "1x0n+1x1n+1x2n"}) {
    const TensorReps reps(text);
    const int64_t T = 3, D = reps.dim();
    Array x = normal({T, D}, 1), dx = normal({T, D}, 2);
    for (int64_t i = D; i < 2 * D; ++i) x[i] *= 1e25, dx[i] *= 1e25;
    dx[3 * D - 1] = NAN;
    const Tensor in = to_tensor(ctx, x, DType::f32), din = to_tensor(ctx, dx, DType::f32);
    const kernels::FramedFeatures features{in, din, 0, 0, 1};
    Tensor gradient = ctx.empty({T, 4, 4}, DType::f32);
    kernels::frames_gradient(ctx, {&features, 1}, to_tensor(ctx, frames_of(T, 3), DType::f32), reps, gradient);
    double first = 0, second = 0, third = 0;
    for (int64_t i = 0; i < 16; ++i) {
      first += std::abs(gradient.data<float>()[i]);
      second += std::abs(gradient.data<float>()[16 + i]);
      third += std::abs(gradient.data<float>()[32 + i]);
    }
    CHECK(std::isfinite(first));
    CHECK(first > 0);
    CHECK(second == 0);
    CHECK(std::isnan(third));
  }
}
