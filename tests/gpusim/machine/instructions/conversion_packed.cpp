#include <algorithm>

#include "gpusim/machine/instructions/conversion.h"
#include "gpusim/machine/instructions/fp8.h"
#include "gpusim/machine/instructions/narrow.h"

// cvt to two numbers in one register (the first operand gets the upper part), to tf32, and cvt.pack.

namespace gpusim {
namespace {

struct F16 {
  template <Round round>
  static uint16_t to(float x) {
    return to_f16<round>(x);
  }
  static constexpr uint32_t largest = 0x7bff;
};
struct Bf16 {
  template <Round round>
  static uint16_t to(float x) {
    return to_bf16<round>(x);
  }
  static constexpr uint32_t largest = 0x7f7f;
};

template <class H, Round round>
uint32_t half_of(float x, bool relu, bool satfinite) {
  const uint32_t bits = H::template to<round>(x), magnitude = bits & 0x7fff;
  const uint32_t limited = satfinite && magnitude == H::largest + 1 ? bits - 1 : bits;
  return relu && bits & 0x8000 ? 0 : limited;  // a NaN has no sign here
}

template <class H, Round round>
[[gnu::flatten]] void halves(Lanes& w, const Op& op) {
  const ConversionMode mode = ConversionMode::of(op.immediate);
  map_lanes<uint32_t>(
      w, op.x[0],
      [relu = mode.relu, satfinite = mode.satfinite](float high, float low) {
        return half_of<H, round>(high, relu, satfinite) << 16 | half_of<H, round>(low, relu, satfinite);
      },
      w.of<float>(op.x[1]), w.of<float>(op.x[2]));
}

template <class F>
[[gnu::flatten]] void fp8_from_floats(Lanes& w, const Op& op) {
  map_lanes<uint16_t>(
      w, op.x[0],
      [relu = ConversionMode::of(op.immediate).relu](float high, float low) {
        return static_cast<uint16_t>(to_fp8<F>(high, relu) << 8 | to_fp8<F>(low, relu));
      },
      w.of<float>(op.x[1]), w.of<float>(op.x[2]));
}

template <class F>
[[gnu::flatten]] void fp8_from_halves(Lanes& w, const Op& op) {
  map_lanes<uint16_t>(
      w, op.x[0],
      [relu = ConversionMode::of(op.immediate).relu](uint32_t x) {
        const float high = f16_to_float(static_cast<uint16_t>(x >> 16)), low = f16_to_float(static_cast<uint16_t>(x));
        return static_cast<uint16_t>(to_fp8<F>(high, relu) << 8 | to_fp8<F>(low, relu));
      },
      w.of<uint32_t>(op.x[1]));
}

template <class F>
[[gnu::flatten]] void halves_from_fp8(Lanes& w, const Op& op) {
  map_lanes<uint32_t>(
      w, op.x[0],
      [relu = ConversionMode::of(op.immediate).relu](uint16_t x) {
        const auto half = [relu](uint8_t bits) { return half_of<F16, Round::nearest>(F::value(bits), relu, false); };
        return half(static_cast<uint8_t>(x >> 8)) << 16 | half(static_cast<uint8_t>(x));
      },
      w.of<uint16_t>(op.x[1]));
}

enum class Tf32 : uint8_t { away, even, zero };

/// f32 with the 13 last bits of its mantissa rounded off.
template <Tf32 round>
void tf32(Lanes& w, const Op& op) {
  const ConversionMode mode = ConversionMode::of(op.immediate);
  map_lanes<uint32_t>(
      w, op.x[0],
      [relu = mode.relu, satfinite = mode.satfinite](uint32_t bits) {
        const uint32_t magnitude = bits & 0x7fffffff, even = magnitude >> 13 & 1;
        const uint32_t half = round == Tf32::zero ? 0 : round == Tf32::away ? 0x1000 : 0xfff + even;
        uint32_t result = (bits + half) & ~0x1fffu;
        result = satfinite && (result & 0x7fffffff) == 0x7f800000 ? result - 0x2000 : result;
        result = relu && bits >> 31 ? 0 : result;
        return magnitude > 0x7f800000 ? canonical_nan_f32 : result;
      },
      w.of<uint32_t>(op.x[1]));
}

/// cvt.pack.sat of two s32 to `bits` bits each; what a third operand has goes above them.
template <int bits, bool is_signed>
void pack(Lanes& w, const Op& op) {
  static constexpr int32_t low = is_signed ? -(1 << (bits - 1)) : 0, high = (1 << (bits - (is_signed ? 1 : 0))) - 1;
  constexpr uint32_t ones = (1u << bits) - 1;
  const auto two = [](int32_t a, int32_t b) {
    return (static_cast<uint32_t>(std::clamp(a, low, high)) & ones) << bits |
           (static_cast<uint32_t>(std::clamp(b, low, high)) & ones);
  };
  const int32_t *a = w.of<int32_t>(op.x[1]), *b = w.of<int32_t>(op.x[2]);
  if constexpr (bits == 16)
    map_lanes<uint32_t>(w, op.x[0], two, a, b);
  else
    map_lanes<uint32_t>(
        w, op.x[0], [two](int32_t a, int32_t b, uint32_t c) { return c << (2 * bits) | two(a, b); }, a, b,
        w.of<uint32_t>(op.x[3]));
}

Choice select_pack(Variant& variant, std::span<const Shape> operands) {
  static constexpr std::pair<std::string_view, Handler> handlers[] = {{"u8", pack<8, false>}, {"s8", pack<8, true>},
                                                                      {"u4", pack<4, false>}, {"s4", pack<4, true>},
                                                                      {"u2", pack<2, false>}, {"s2", pack<2, true>}};
  if (!variant.take("sat")) return {};
  if (variant.is({"u16", "s32"})) return choice(operands, pack<16, false>, {4, 4, 4}, Kind::convert);
  if (variant.is({"s16", "s32"})) return choice(operands, pack<16, true>, {4, 4, 4}, Kind::convert);
  for (const auto& [type, run] : handlers)
    if (variant.is({type, "s32", "b32"})) return choice(operands, run, {4, 4, 4, 4}, Kind::convert);
  return {};
}

Choice select_tf32(Variant& variant, std::span<const Shape> operands, const ConversionMode& mode) {
  const bool away = variant.take("rna");
  const Round round = variant.take_rounding();
  if (!variant.is({"tf32", "f32"}) || (away && (mode.relu || round != Round::none))) return {};
  const auto answer = [&](Handler run) { return choice(operands, run, {4, 4}, Kind::convert, mode.packed()); };
  if (away) return answer(tf32<Tf32::away>);
  if (round == Round::nearest) return answer(tf32<Tf32::even>);
  return round == Round::zero ? answer(tf32<Tf32::zero>) : Choice{};
}

template <class F>
Choice select_fp8(const Variant& variant, std::span<const Shape> operands, const ConversionMode& mode,
                  std::string_view type) {
  const auto answer = [&](Handler run, std::vector<uint8_t> bytes) {
    return choice(operands, run, std::move(bytes), Kind::convert, mode.packed());
  };
  if (mode.satfinite && variant.is({type, "f32"})) return answer(fp8_from_floats<F>, {2, 4, 4});
  if (mode.satfinite && variant.is({type, "f16x2"})) return answer(fp8_from_halves<F>, {2, 4});
  if (!mode.satfinite && variant.is({"f16x2", type})) return answer(halves_from_fp8<F>, {4, 2});
  return {};
}

}  // namespace

Choice select_packed_conversion(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  if (variant.take("pack")) return select_pack(variant, operands);
  ConversionMode mode;
  mode.relu = variant.take("relu");
  mode.satfinite = variant.take("satfinite");
  if (std::ranges::find(variant.left(), "tf32") != variant.left().end()) return select_tf32(variant, operands, mode);
  mode.round = variant.take_rounding();
  const auto answer = [&](Handler run) { return choice(operands, run, {4, 4, 4}, Kind::convert, mode.packed()); };
  const bool nearest = mode.round == Round::nearest, zero = mode.round == Round::zero;
  if (!nearest && !zero) return {};
  if (variant.is({"f16x2", "f32"})) return answer(nearest ? halves<F16, Round::nearest> : halves<F16, Round::zero>);
  if (variant.is({"bf16x2", "f32"})) return answer(nearest ? halves<Bf16, Round::nearest> : halves<Bf16, Round::zero>);
  if (!nearest) return {};
  const Choice e4m3 = select_fp8<E4m3>(variant, operands, mode, "e4m3x2");
  return e4m3.run ? e4m3 : select_fp8<E5m2>(variant, operands, mode, "e5m2x2");
}

}  // namespace gpusim
