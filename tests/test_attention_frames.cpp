// Attention with features in local frames.
#include <doctest/doctest.h>

#include "autograd/attention.h"
#include "engine/safetensors.h"
#include "tests/support/devices.h"
#include "tests/support/frames.h"
#include "tests/support/naive_attention.h"

using namespace lightcone;
using namespace lightcone::test;

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
  for (Device device : devices())
    for (int64_t kv_heads : {2, 1}) {
      const Array in = normal({21, (2 + 2 * kv_heads) * 16}, 1), dy = normal({21, 32}, 2);
      auto gradient = [&](DType dtype) {
        Context ctx(device, 1);
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
  for (Device device : devices()) {
    Context ctx(device, 2);
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

TEST_CASE("attention in frames: numbers of the reference implementation") {
  Context ctx;
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/frames.safetensors");
  auto read = [&](const std::string& name) { return file.load(ctx, name); };
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
